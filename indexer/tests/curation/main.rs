//! From a pool and examples to an export. One binary, so that everything links once.

mod world;
mod curate;
mod review;
mod export;
