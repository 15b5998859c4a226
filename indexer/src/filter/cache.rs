//! Answers of filters kept while the view stays the same.

use std::sync::{Arc, Mutex, PoisonError};

use roaring::RoaringBitmap;

use super::Filter;
use crate::View;
use crate::error::Result;

/// Most filters kept.
const MAX_ENTRIES: usize = 32;
/// Most bytes of rows kept, as serialised.
const MAX_BYTES: usize = 64 << 20;

/// The latest filters and the rows that pass them, for the latest view of one collection. Shared by
/// any number of threads.
#[derive(Debug, Default)]
pub struct FilterCache(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// The view that they belong to.
    sequence: u64,
    /// Least recently used first. Few enough to be looked through.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    filter: Filter,
    rows: Arc<RoaringBitmap>,
    bytes: usize,
}

impl FilterCache {
    /// The rows that pass, as [`Filter::rows`] finds them.
    ///
    /// # Errors
    /// As [`Filter::rows`].
    pub fn rows(&self, filter: &Filter, view: &View) -> Result<Arc<RoaringBitmap>> {
        let sequence = view.sequence();
        if let Some(rows) = self.with(|entries| entries.find(sequence, filter)) {
            return Ok(rows);
        }
        // Not under the lock: other filters need not wait for this one.
        let rows = Arc::new(filter.rows(view)?);
        self.with(|entries| entries.keep(sequence, filter, &rows));
        Ok(rows)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Entries) -> T) -> T {
        // What is kept is whole at any moment, so that a panic elsewhere does not matter.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Entries {
    fn find(&mut self, sequence: u64, filter: &Filter) -> Option<Arc<RoaringBitmap>> {
        if self.sequence != sequence {
            return None;
        }
        let at = self.entries.iter().position(|entry| entry.filter == *filter)?;
        let entry = self.entries.remove(at);
        let rows = Arc::clone(&entry.rows);
        self.entries.push(entry);
        Some(rows)
    }

    fn keep(&mut self, sequence: u64, filter: &Filter, rows: &Arc<RoaringBitmap>) {
        if sequence < self.sequence {
            return;
        }
        if sequence > self.sequence {
            self.entries.clear();
            self.sequence = sequence;
        }
        let bytes = rows.serialized_size();
        if bytes > MAX_BYTES || self.entries.iter().any(|entry| entry.filter == *filter) {
            return;
        }
        self.entries.push(Entry { filter: filter.clone(), rows: Arc::clone(rows), bytes });
        while self.entries.len() > MAX_ENTRIES
            || self.entries.iter().map(|entry| entry.bytes).sum::<usize>() > MAX_BYTES
        {
            self.entries.remove(0);
        }
    }
}
