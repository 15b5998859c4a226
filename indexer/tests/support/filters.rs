//! Filters drawn by lot, with collisions of names, types and values made likely.
#![allow(dead_code, reason = "each test program uses a part")]

use std::ops::Bound;

pub use fixtures::Lot;
use indexer::filter::{BuiltIn, Field, Filter, Scalar, Test};

/// Payload fields that filters ask for.
pub const KEYS: [&str; 12] = [
    "label",
    "tags",
    "n",
    "flag",
    "exif.iso",
    "exif.lens.name",
    "and",
    "width",
    "payload.x",
    "a b",
    "é\"`\\\n",
    "id",
];
const TEXTS: [&str; 14] = [
    "",
    "a",
    "ab",
    "abc",
    "b",
    "1",
    "dog",
    "true",
    "\0x",
    "é",
    "\u{1F600}",
    "\"'`\\\n\t\r\u{7}",
    "2024-01-01",
    "z",
];
const NUMBERS: [f64; 10] =
    [-1.5, 0.0, 1.0, 2.0, 3.0, 1e300, 0.1, -1e-9, 9_007_199_254_740_993.0, 40.0];
const TIMES: [&str; 3] = ["1970-01-01", "1970-01-01T00:00:02Z", "1970-01-01T01:00:01.5+01:00"];

pub fn text(lot: &mut Lot) -> String {
    match lot.below(12) {
        // Longer than what an index compares by order.
        0 => "a".repeat(190 + lot.below(30) as usize),
        _ => lot.pick(&TEXTS).to_owned(),
    }
}

pub fn number(lot: &mut Lot) -> f64 {
    match lot.below(4) {
        0 => lot.below(1000) as f64 / 7.0,
        _ => lot.pick(&NUMBERS),
    }
}

fn scalar(lot: &mut Lot) -> Scalar {
    match lot.below(5) {
        0 => Scalar::Bool(lot.below(2) == 0),
        1 | 2 => Scalar::Number(number(lot)),
        _ => Scalar::Text(text(lot)),
    }
}

fn bounds(lot: &mut Lot, mut value: impl FnMut(&mut Lot) -> Scalar) -> Test {
    let mut bound = |lot: &mut Lot| {
        let value = value(lot);
        if lot.below(2) == 0 { Bound::Included(value) } else { Bound::Excluded(value) }
    };
    let (low, high) = (bound(lot), bound(lot));
    match lot.below(4) {
        0 => Test::Range(low, Bound::Unbounded),
        1 => Test::Range(Bound::Unbounded, high),
        _ => Test::Range(low, high),
    }
}

fn test(lot: &mut Lot, value: fn(&mut Lot) -> Scalar, ordered: bool) -> Test {
    match lot.below(if ordered { 6 } else { 4 }) {
        0 => Test::Eq(value(lot)),
        1 => Test::Ne(value(lot)),
        2 => Test::In((0..lot.below(4)).map(|_| value(lot)).collect()),
        3 => Test::Exists,
        _ => bounds(lot, value),
    }
}

fn term(lot: &mut Lot) -> Filter {
    let short = |lot: &mut Lot| Scalar::Text(lot.pick(&TEXTS).to_owned());
    if lot.below(3) > 0 {
        let field = Field::Payload(lot.pick(&KEYS).to_owned());
        let test = match lot.below(4) {
            0 => Test::Prefix(lot.pick(&TEXTS).to_owned()),
            1 => bounds(lot, short),
            2 => bounds(lot, |lot| Scalar::Number(number(lot))),
            _ => test(lot, scalar, false),
        };
        return Filter::Term(field, test);
    }
    let field = lot.pick(&BuiltIn::ALL);
    let number = |lot: &mut Lot| Scalar::Number(lot.below(60) as f64);
    let path = |lot: &mut Lot| {
        let texts = ["/p/a.jpg", "/p/", "a.jpg", "jpg", "png", "", "/q/b.PNG", "b", "/"];
        Scalar::Text(lot.pick(&texts).to_owned())
    };
    let test = match field {
        BuiltIn::Mtime if lot.below(2) == 0 => {
            test(lot, |lot| Scalar::Text(lot.pick(&TIMES).to_owned()), true)
        }
        BuiltIn::Id
        | BuiltIn::Width
        | BuiltIn::Height
        | BuiltIn::Pixels
        | BuiltIn::Size
        | BuiltIn::Mtime => test(lot, number, true),
        BuiltIn::Path | BuiltIn::Name | BuiltIn::Ext | BuiltIn::Sha256 => match lot.below(3) {
            0 => match path(lot) {
                Scalar::Text(text) => Test::Prefix(text),
                _ => Test::Exists,
            },
            _ => test(lot, path, true),
        },
    };
    Filter::Term(Field::BuiltIn(field), test)
}

/// A filter at most this deep.
pub fn filter(lot: &mut Lot, depth: usize) -> Filter {
    let kind = if depth == 0 { 0 } else { lot.below(6) };
    let parts = |lot: &mut Lot| (0..2 + lot.below(2)).map(|_| filter(lot, depth - 1)).collect();
    match kind {
        1 | 2 => Filter::And(parts(lot)),
        3 => Filter::Or(parts(lot)),
        4 => Filter::Not(Box::new(filter(lot, depth - 1))),
        _ => term(lot),
    }
}
