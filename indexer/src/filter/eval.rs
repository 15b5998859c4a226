//! A filter asked about a whole view: which rows pass.
//!
//! Conditions on payload values come from the index. Built-in fields have none, so what the index
//! knows is kept as two sets, rows that pass whatever the records say and rows that may pass, and
//! only records in between are read: one by one when they are few, in one scan otherwise.

use std::ops::Bound;

use roaring::RoaringBitmap;

use super::record::Prepared;
use super::{BuiltIn, Field, Filter, Scalar, Test};
use crate::error::Result;
use crate::{ImageId, ValueRange, View};

/// Reading a record by its id costs about as much as passing this many in a scan.
const SCAN_SHARE: u64 = 4;

/// What is known without records. `surely` is a subset of `maybe`.
struct Limits {
    surely: RoaringBitmap,
    maybe: RoaringBitmap,
}

impl Filter {
    /// The rows of the images that pass.
    ///
    /// # Errors
    /// [`Filter::check`] fails, or the catalog cannot be read.
    pub fn rows(&self, view: &View) -> Result<RoaringBitmap> {
        self.check()?;
        let Limits { mut surely, maybe } = limits(self, view)?;
        let open = maybe - &surely;
        if open.is_empty() {
            return Ok(surely);
        }
        let filter = Prepared::new(self);
        if open.len().saturating_mul(SCAN_SHARE) < view.len() as u64 {
            for row in open {
                let id = view.id_of(row)?;
                // A record of a later state says nothing about this one: its image is left out.
                let record = view.record(id)?.filter(|record| record.row == u64::from(row));
                if record.is_some_and(|record| filter.matches(id, &record)) {
                    surely.insert(row);
                }
            }
            return Ok(surely);
        }
        for image in view.images() {
            let (id, record) = image?;
            let row = u32::try_from(record.row).ok().filter(|row| open.contains(*row));
            if let Some(row) = row.filter(|_| filter.matches(id, &record)) {
                surely.insert(row);
            }
        }
        Ok(surely)
    }
}

fn limits(filter: &Filter, view: &View) -> Result<Limits> {
    let alive = view.alive();
    Ok(match filter {
        Filter::And(parts) => {
            let mut all = Limits { surely: alive.clone(), maybe: alive.clone() };
            for part in parts {
                let part = limits(part, view)?;
                all.surely &= part.surely;
                all.maybe &= part.maybe;
                if all.maybe.is_empty() {
                    break;
                }
            }
            all
        }
        Filter::Or(parts) => {
            let mut any = Limits { surely: RoaringBitmap::new(), maybe: RoaringBitmap::new() };
            for part in parts {
                let part = limits(part, view)?;
                any.surely |= part.surely;
                any.maybe |= part.maybe;
            }
            any
        }
        Filter::Not(part) => {
            let part = limits(part, view)?;
            Limits { surely: alive - part.maybe, maybe: alive - part.surely }
        }
        Filter::Term(Field::Payload(name), test) => {
            let rows = indexed(name, test, view)?;
            Limits { surely: rows.clone(), maybe: rows }
        }
        Filter::Term(Field::BuiltIn(BuiltIn::Id), Test::Eq(value)) => {
            by_id(std::slice::from_ref(value), view)?
        }
        Filter::Term(Field::BuiltIn(BuiltIn::Id), Test::In(values)) => by_id(values, view)?,
        Filter::Term(Field::BuiltIn(_), _) => {
            Limits { surely: RoaringBitmap::new(), maybe: alive.clone() }
        }
    })
}

/// Rows by values of a payload field.
fn indexed(name: &str, test: &Test, view: &View) -> Result<RoaringBitmap> {
    let alive = view.alive();
    let rows = |range| view.rows_with(name, range);
    Ok(match test {
        Test::Eq(value) => rows(ValueRange::Eq(value.clone()))? & alive,
        Test::Ne(value) => alive - rows(ValueRange::Eq(value.clone()))?,
        Test::In(values) => {
            let mut any = RoaringBitmap::new();
            for value in values {
                any |= rows(ValueRange::Eq(value.clone()))?;
            }
            any & alive
        }
        Test::Range(low, high) => between(name, low, high, view)? & alive,
        Test::Prefix(text) => rows(ValueRange::Prefix(text.clone()))? & alive,
        Test::Exists => rows(ValueRange::Any)? & alive,
    })
}

fn between(
    name: &str,
    low: &Bound<Scalar>,
    high: &Bound<Scalar>,
    view: &View,
) -> Result<RoaringBitmap> {
    view.rows_with(name, ValueRange::Between { low: low.clone(), high: high.clone() })
}

/// Rows of images by their ids, without asking the others.
fn by_id(ids: &[Scalar], view: &View) -> Result<Limits> {
    let mut rows = RoaringBitmap::new();
    for id in ids {
        let Scalar::Number(number) = id else { continue };
        // Ids are numbers like others: 7.5 is none, and above 2^53 several ids are one number.
        let id = ImageId(*number as u64);
        if *number < 0.0 || id.0 as f64 != *number || *number >= (1u64 << 53) as f64 {
            continue;
        }
        if let Some(record) = view.record(id)? {
            rows.extend(u32::try_from(record.row));
        }
    }
    rows &= view.alive();
    Ok(Limits { surely: rows.clone(), maybe: rows })
}
