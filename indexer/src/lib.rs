//! Features to a durable collection, and from a collection to neighbours.
//!
//! Modules are listed in the order data travels; a file uses only those above it. This crate
//! never sees a tensor and serves no HTTP; the module `http` alone speaks to the network, and only
//! `ann/hnsw.rs` names usearch, only `catalog.rs` and `catalog/` name sled.

mod error;
mod durable;
mod random;
mod http;
pub mod model_store;
mod id;
mod locator;
mod record;
mod catalog;
pub mod fetch;
pub mod source;
pub mod metadata;
pub mod pipeline;
mod vectors;
mod ann;
mod background;
mod manifest;
mod collection;
pub mod filter;
pub mod search;
pub mod watch;
pub mod ingest;
pub mod table;
pub mod eval;
pub mod phash;
pub mod dedup;
pub mod probe;
pub mod label;
pub mod training_pictures;
pub mod curate;
pub mod export;
pub mod gallery;

pub use catalog::{FieldValues, Scalar, TEXT_BYTES, ValueRange, scalars};
pub use collection::{
    CheckReport, Collection, CollectionSummary, Collections, CompactReport, CreateOptions, Hit,
    Near, NewImage, OldData, Progress, Reader, ReindexOptions, ReindexReport, RemoveReport,
    RestoreOptions, RestoreReport, SnapshotInfo, SnapshotReport, Step, StorageChoices, Usage, View,
    Violation, Which, read_snapshot_info,
};
pub use error::{IndexerError, Result};
pub use id::{ContentHash, ImageId};
pub use ingest::{
    HeldBack, IngestEvent, IngestOptions, IngestReport, ingest, ingest_embeddings, ingest_sources,
};
pub use locator::{Locator, LocatorKind};
pub use manifest::{ANN_FROM, FORMAT_VERSION, Manifest};
pub use record::{Failure, FileStamp, Known, Payload, Record, Seen, SeenKind};
pub use vectors::Precision;
