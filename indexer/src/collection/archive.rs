//! A whole collection in one file that says what it is, for keeping and for moving.
//!
//! A plain tar of, in this order:
//!
//! | member | content |
//! | --- | --- |
//! | `snapshot.json` | format, release, manifest, counts; size, SHA-256 and checksums of the others |
//! | `records.jsonl` | one image a line, by id; `row` is its place in `vectors.npy` |
//! | `failures.jsonl` | one file that gave no image a line, by path |
//! | `vectors.npy` | the embeddings as stored, one row an image |
//! | `SHA256SUMS` | hashes of all of these |
//!
//! Nothing in it depends on how a collection lies on disk, so that a later release reads it. What is
//! derived (graphs, background, postings) is made again when it is restored.

mod format;
mod verify;
mod write;
mod restore;

pub use self::format::SnapshotInfo;
pub use self::restore::{RestoreOptions, RestoreReport};
pub use self::verify::read_snapshot_info;
pub use self::write::SnapshotReport;
