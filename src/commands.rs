//! One file per command: validated arguments in, one library call, output.

pub mod bench;
pub mod collection;
pub mod curate;
pub mod dedup;
pub mod demo;
pub mod embed;
pub mod eval;
pub mod export;
pub mod index;
pub mod key;
pub mod label;
pub mod model;
pub mod probe;
pub mod search;
pub mod serve;
pub mod train;
