//! Times as people write them (RFC 3339), without a calendar library.

/// Seconds since 1970 of a date (its first moment, UTC) or of a full RFC 3339 time; none for
/// anything else. Leap seconds count as the next second.
pub(super) fn parse_time(text: &str) -> Option<f64> {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let midnight = days(date)? * 86_400.0;
    match time {
        None => Some(midnight),
        Some(time) => Some(midnight + seconds(time)?),
    }
}

/// Days since 1970-01-01 of `YYYY-MM-DD` in the Gregorian calendar.
fn days(date: &str) -> Option<f64> {
    let mut parts = date.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if parts.next().is_some() || !(1..=length).contains(&day) {
        return None;
    }
    // Years that start in March put the leap day last (Hinnant, "chrono-compatible low-level date
    // algorithms", days_from_civil).
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some((days + day_of_year - 719_468) as f64)
}

/// Seconds since midnight UTC of `HH:MM:SS[.fraction](Z|+HH:MM|-HH:MM)`.
fn seconds(time: &str) -> Option<f64> {
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let (hours, minutes, seconds) =
        (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let digits_only = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 60 || !digits_only {
        return None;
    }
    let fraction: f64 = format!("0.{fraction}").parse().ok()?;
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let east = hours * 60 + minutes;
            if zone.starts_with('-') { -east } else { east }
        }
    };
    Some((hours * 3600 + minutes * 60 + seconds - offset * 60) as f64 + fraction)
}

/// Exactly this many decimal digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    let right = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    right.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::parse_time;

    #[test]
    fn times_by_other_tools() {
        // `date -u -d ... +%s`
        for (text, seconds) in [
            ("1970-01-01", 0.0),
            ("2000-02-29", 951_782_400.0),
            ("2024-05-01T12:00:00Z", 1_714_564_800.0),
            ("2024-05-01t14:30:00.25+02:30", 1_714_564_800.25),
            ("1969-12-31 23:59:59-00:00", -1.0),
            ("0001-01-01", -62_135_596_800.0),
            ("9999-12-31T23:59:59Z", 253_402_300_799.0),
        ] {
            assert_eq!(parse_time(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2024",
            "2024-5-1",
            "2023-02-29",
            "1900-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "2024-01-01T12:00:00",
            "2024-01-01T24:00:00Z",
            "2024-01-01T12:00Z",
            "2024-01-01T12:00:00.Z",
            "2024-01-01T12:00:00+2",
            "2024-01-01T",
            "+024-01-01",
            "2024-01-01-01",
            "２024-01-01",
            "2024-01-01T12:00:00Zx",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
