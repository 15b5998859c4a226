//! Sources into collections. One binary, so that everything links once.

mod between;
mod embeddings;
mod guarded;
mod incremental;
mod payload;
mod sources;
mod support;
mod urls;
mod watching;
mod web;
