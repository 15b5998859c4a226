//! Where a page ended, as a text that is handed out and comes back.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::request::invalid;
use crate::error::Result;
use crate::id::ImageId;
use crate::{Near, View, record};

/// Changes with the layout of the rest.
const VERSION: u8 = 1;
/// Longest cursor that is looked at: that of a diverse list has all ids that were given.
const MAX_TEXT: usize = 16 << 10;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Cursor {
    version: u8,
    /// The search that it belongs to.
    query: u64,
    /// The state that the first page was of.
    pub(super) sequence: u64,
    /// Which rows there were in that state: later ones belong to images added or changed since.
    pub(super) rows: u64,
    /// Tells states apart whose row numbers mean different things.
    data: u64,
    pub(super) place: Place,
}

/// How far a list was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Results given so far.
    pub(super) count: u64,
    pub(super) given: Given,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Given {
    /// All up to this one, in the order by similarity and id.
    UpTo { similarity: f32, id: ImageId },
    /// These, where the order depends on what was given.
    These(Vec<ImageId>),
}

impl Cursor {
    /// The first state and place of a search.
    pub(super) fn new(view: &View, query: u64, place: Place) -> Self {
        Self {
            version: VERSION,
            query,
            sequence: view.sequence(),
            rows: view.rows(),
            data: data(view),
            place,
        }
    }

    /// The same search further on.
    pub(super) fn advanced(&self, place: Place) -> Self {
        Self { place, ..self.clone() }
    }

    /// As text: hexadecimal digits.
    pub(super) fn encode(&self) -> Option<String> {
        let bytes = record::encode(self)?;
        Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Reads the cursor of a search in a view.
    pub(super) fn decode(text: &str, view: &View, query: u64) -> Result<Self> {
        let cursor: Option<Self> =
            bytes(text).and_then(|bytes| record::decode(&bytes)).filter(|cursor: &Self| {
                cursor.version == VERSION && cursor.sequence <= view.sequence()
            });
        let Some(cursor) = cursor else {
            return invalid(
                "this is no cursor of this collection; take `next_cursor` of the page before, whole"
                    .to_owned(),
            );
        };
        if cursor.query != query {
            return invalid(
                "this cursor belongs to another search; only k may differ between the pages of one"
                    .to_owned(),
            );
        }
        if cursor.data != data(view) {
            return invalid(
                "the collection was rewritten since this cursor was made; start at the first page"
                    .to_owned(),
            );
        }
        Ok(cursor)
    }

    /// Whether an image was given, or was passed by.
    pub(super) fn is_past(&self, near: &Near) -> bool {
        match &self.place.given {
            Given::UpTo { similarity, id } => {
                near.similarity.total_cmp(similarity).is_gt()
                    || (near.similarity.total_cmp(similarity).is_eq() && near.id <= *id)
            }
            Given::These(ids) => ids.contains(&near.id),
        }
    }
}

/// Row numbers keep their meaning as long as the data folder is the same.
fn data(view: &View) -> u64 {
    let digest = Sha256::digest(view.manifest().data.as_bytes());
    digest.iter().take(8).fold(0, |all, &byte| all << 8 | u64::from(byte))
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || text.len() > MAX_TEXT {
        return None;
    }
    let digit = |c: u8| char::from(c).to_digit(16);
    pairs.iter().map(|&[a, b]| u8::try_from(digit(a)? << 4 | digit(b)?).ok()).collect()
}
