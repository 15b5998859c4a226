//! Dates in headers.

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`; no other form is written today.
pub(super) fn parse_http_date(text: &str) -> Option<i64> {
    let (_, date) = text.trim().split_once(", ")?;
    let mut words = date.split(' ');
    let day: i64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = words.next()?;
    let months =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|&name| name == month)? as i64 + 1;
    let year: i64 = words.next()?.parse().ok().filter(|year| (1600..=9999).contains(year))?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if words.next()? != "GMT" || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Hinnant's days from civil: years start in March, so that the leap day comes last.
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("soon", None),
            ("Thu, 01 Foo 1970 00:00:00 GMT", None),
        ] {
            assert_eq!(parse_http_date(text), expected, "{text}");
        }
    }
}
