//! Which values a payload field has, for those who are to choose among them.

use super::{Catalog, Scalar, ValueRange, failed, postings};
use crate::error::Result;

/// Values of one payload field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldValues {
    /// Different values; `None` when there are more than were looked at.
    pub distinct: Option<usize>,
    /// The most frequent of those looked at, with how many images have each.
    pub top: Vec<(Scalar, u64)>,
}

impl Catalog {
    /// See [`View::field_values`](crate::View::field_values).
    pub(crate) fn field_values(
        &self,
        field: &str,
        top: usize,
        looked_at: usize,
    ) -> Result<FieldValues> {
        // Values with their counts; of a value that is too long to be a key, nothing can be shown.
        let mut found: Vec<(Option<Scalar>, u64)> = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        let mut all = true;
        for entry in self.db.range(postings::key_range(field, &ValueRange::Any)?) {
            let (key, value) = entry.map_err(|error| failed(&self.folder, &error))?;
            // All pages of a value are neighbours.
            let body = &key[..key.len().saturating_sub(4)];
            if last.as_deref() != Some(body) {
                if found.len() == looked_at {
                    all = false;
                    break;
                }
                found.push((postings::value_of(&key), 0));
                last = Some(body.to_vec());
            }
            let rows = self.decoded_page(&key, &value)?.len();
            if let Some((_, count)) = found.last_mut() {
                *count += rows;
            }
        }
        let distinct = all.then_some(found.len());
        // Stable: equal counts stay in the order of values.
        found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let shown = found.into_iter().filter_map(|(value, count)| Some((value?, count)));
        Ok(FieldValues { distinct, top: shown.take(top).collect() })
    }
}
