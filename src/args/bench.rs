//! `akin bench`, as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::positive;

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Time making a collection of given vectors
    Index(BenchIndexArgs),
    /// Time searching a collection with given vectors, from query to records
    Search(BenchSearchArgs),
}

#[derive(Debug, Args)]
pub struct BenchIndexArgs {
    /// Vectors: a .npy file, f32, one row each; scaled to unit length
    #[arg(long, value_name = "FILE")]
    pub vectors: PathBuf,
    /// Collection to make
    #[arg(short, long, default_value = "bench", value_name = "NAME")]
    pub collection: String,
    /// Replace the collection if an earlier `akin bench index` made it
    #[arg(long)]
    pub replace: bool,
    /// Number of images from which on search goes through HNSW
    #[arg(long, value_name = "N")]
    pub ann_from: Option<u64>,
}

#[derive(Debug, Args)]
pub struct BenchSearchArgs {
    /// Queries: a .npy file, f32, one row each
    #[arg(long, value_name = "FILE")]
    pub queries: PathBuf,
    /// Collection to search
    #[arg(short, long, default_value = "bench", value_name = "NAME")]
    pub collection: String,
    /// Number of results
    #[arg(short, default_value = "10", value_name = "K", value_parser = positive)]
    pub k: usize,
    /// Compare with every image, without HNSW
    #[arg(long)]
    pub exact: bool,
}
