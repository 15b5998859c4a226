//! Payloads drawn by lot, with values that filters of `filters.rs` ask for.
#![allow(dead_code, reason = "each test program uses a part")]

use indexer::Payload;
use serde_json::{Value, json};

use super::filters::{KEYS, Lot, number, text};

fn value(lot: &mut Lot, depth: usize) -> Value {
    match lot.below(if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => json!(lot.below(2) == 0),
        2 | 3 => json!(number(lot)),
        4 | 5 => json!(text(lot)),
        6 => (0..lot.below(4)).map(|_| value(lot, depth - 1)).collect(),
        _ => json!({"iso": value(lot, depth - 1), "lens": {"name": value(lot, depth - 1)}}),
    }
}

/// A payload with some of the fields that filters ask for.
pub fn payload(lot: &mut Lot) -> Payload {
    let mut payload = Payload::new();
    for key in KEYS.iter().chain(&["exif"]) {
        if lot.below(3) > 0 {
            payload.insert((*key).to_owned(), value(lot, 2));
        }
    }
    payload
}
