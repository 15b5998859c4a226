//! The few EXIF fields that people search by.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use exif::{Exif, In, Tag, Value as Field};
use serde_json::Value;

use crate::record::Payload;

/// Fields of the bytes of a picture: with `camera`, `exif.date` (ISO 8601, of no time zone),
/// `exif.make`, `exif.model`, `exif.lens`, `exif.iso`, `exif.exposure` (seconds), `exif.aperture`
/// (f-number), `exif.focal_length` (mm); with `gps`, `exif.lat` and `exif.lon` (degrees, north and
/// east positive). What is absent or unreadable is left out.
pub(super) fn read(bytes: &[u8], camera: bool, gps: bool) -> Payload {
    // The parser sees what strangers wrote.
    let parsed = catch_unwind(AssertUnwindSafe(|| {
        let mut reader = exif::Reader::new();
        reader.continue_on_error(true);
        let exif = reader
            .read_from_container(&mut Cursor::new(bytes))
            .or_else(|error| error.distill_partial_result(|_| {}));
        exif.map(|exif| fields(&exif, camera, gps)).unwrap_or_default()
    }));
    parsed.unwrap_or_default()
}

fn fields(exif: &Exif, camera: bool, gps: bool) -> Payload {
    let mut payload = Payload::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            payload.insert(format!("exif.{name}"), value);
        }
    };
    if camera {
        let taken = date(exif, Tag::DateTimeOriginal).or_else(|| date(exif, Tag::DateTime));
        add("date", taken.map(Value::from));
        add("make", text(exif, Tag::Make).map(Value::from));
        add("model", text(exif, Tag::Model).map(Value::from));
        add("lens", text(exif, Tag::LensModel).map(Value::from));
        let iso = exif.get_field(Tag::PhotographicSensitivity, In::PRIMARY);
        add("iso", iso.and_then(|field| field.value.get_uint(0)).map(Value::from));
        for (name, tag) in [
            ("exposure", Tag::ExposureTime),
            ("aperture", Tag::FNumber),
            ("focal_length", Tag::FocalLength),
        ] {
            add(name, rationals(exif, tag).first().copied().and_then(number));
        }
    }
    if gps {
        add("lat", degrees(exif, Tag::GPSLatitude, Tag::GPSLatitudeRef, b'S', 90.0));
        add("lon", degrees(exif, Tag::GPSLongitude, Tag::GPSLongitudeRef, b'W', 180.0));
    }
    payload
}

fn ascii(exif: &Exif, tag: Tag) -> Option<&[u8]> {
    match &exif.get_field(tag, In::PRIMARY)?.value {
        Field::Ascii(lines) => lines.first().map(Vec::as_slice),
        _ => None,
    }
}

/// Text without the padding that cameras write; at most 200 characters.
fn text(exif: &Exif, tag: Tag) -> Option<String> {
    let text = String::from_utf8_lossy(ascii(exif, tag)?).into_owned();
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.chars().take(200).collect())
}

/// `2024:05:06 07:08:09` as `2024-05-06T07:08:09`; cameras whose clock was never set write zeros.
fn date(exif: &Exif, tag: Tag) -> Option<String> {
    let date = exif::DateTime::from_ascii(ascii(exif, tag)?).ok()?;
    let valid = date.year > 0
        && (1..=12).contains(&date.month)
        && (1..=31).contains(&date.day)
        && date.hour < 24
        && date.minute < 60
        && date.second < 61;
    let exif::DateTime { year, month, day, hour, minute, second, .. } = date;
    valid.then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"))
}

fn rationals(exif: &Exif, tag: Tag) -> Vec<f64> {
    match exif.get_field(tag, In::PRIMARY).map(|field| &field.value) {
        Some(Field::Rational(values)) => values.iter().map(|value| value.to_f64()).collect(),
        _ => Vec::new(),
    }
}

fn number(value: f64) -> Option<Value> {
    serde_json::Number::from_f64(value).map(Value::from)
}

/// Degrees, minutes and seconds as degrees, to a tenth of a metre.
fn degrees(exif: &Exif, tag: Tag, side: Tag, negative: u8, most: f64) -> Option<Value> {
    let parts = rationals(exif, tag);
    let [degrees, minutes, seconds] = *parts.first_chunk::<3>()?;
    let value = degrees + minutes / 60.0 + seconds / 3600.0;
    let is_negative = ascii(exif, side)?.first()?.eq_ignore_ascii_case(&negative);
    let value = if is_negative { -value } else { value };
    number((value * 1e6).round() / 1e6).filter(|_| value.abs() <= most)
}

#[cfg(test)]
mod tests {
    use exif::experimental::Writer;
    use exif::{Field as Entry, Rational};
    use serde_json::json;

    use super::*;

    fn tiff(entries: &[Entry]) -> Vec<u8> {
        let mut writer = Writer::new();
        entries.iter().for_each(|entry| writer.push_field(entry));
        let mut bytes = Cursor::new(Vec::new());
        writer.write(&mut bytes, false).expect("write");
        bytes.into_inner()
    }

    fn entry(tag: Tag, value: Field) -> Entry {
        Entry { tag, ifd_num: In::PRIMARY, value }
    }

    fn dms(degrees: u32, minutes: u32, seconds: u32) -> Field {
        let part = |num, denom| Rational { num, denom };
        Field::Rational(vec![part(degrees, 1), part(minutes, 1), part(seconds, 100)])
    }

    #[test]
    fn fields_are_read_and_the_place_only_when_asked_for() {
        let ascii = |text: &str| Field::Ascii(vec![text.as_bytes().to_vec()]);
        let bytes = tiff(&[
            entry(Tag::Make, ascii("Maker \0")),
            entry(Tag::Model, ascii("M 1")),
            entry(Tag::LensModel, ascii("50mm")),
            entry(Tag::DateTimeOriginal, ascii("2024:05:06 07:08:09")),
            entry(Tag::PhotographicSensitivity, Field::Short(vec![400])),
            entry(Tag::ExposureTime, Field::Rational(vec![Rational { num: 1, denom: 4 }])),
            entry(Tag::GPSLatitude, dms(33, 30, 0)),
            entry(Tag::GPSLatitudeRef, ascii("S")),
            entry(Tag::GPSLongitude, dms(18, 15, 3600)),
            entry(Tag::GPSLongitudeRef, ascii("E")),
        ]);
        let payload = serde_json::to_value(read(&bytes, true, false)).expect("JSON");
        let expected = json!({
            "exif.date": "2024-05-06T07:08:09",
            "exif.exposure": 0.25,
            "exif.iso": 400,
            "exif.lens": "50mm",
            "exif.make": "Maker",
            "exif.model": "M 1",
        });
        assert_eq!(payload, expected);
        let place = serde_json::to_value(read(&bytes, false, true)).expect("JSON");
        assert_eq!(place, json!({"exif.lat": -33.5, "exif.lon": 18.26}));
    }

    #[test]
    fn nonsense_gives_nothing() {
        let bytes = tiff(&[
            entry(Tag::DateTimeOriginal, Field::Ascii(vec![b"0000:00:00 00:00:00".to_vec()])),
            entry(Tag::ExposureTime, Field::Rational(vec![Rational { num: 1, denom: 0 }])),
            entry(Tag::GPSLatitude, dms(333, 0, 0)),
            entry(Tag::GPSLatitudeRef, Field::Ascii(vec![b"N".to_vec()])),
        ]);
        assert!(read(&bytes, true, true).is_empty());
        assert!(read(b"", true, true).is_empty());
        for end in 0..bytes.len() {
            read(&bytes[..end], true, true);
        }
    }
}
