//! `akin curate`, as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::positive;

/// Grow a dataset out of a pool from examples, without duplicates and without leaks.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct CurateArgs {
    #[command(subcommand)]
    pub command: Option<CurateCommand>,
    #[command(flatten)]
    pub run: Option<CurateRunArgs>,
}

#[derive(Debug, Subcommand)]
pub enum CurateCommand {
    /// Say why an image is in or out
    Explain(ExplainArgs),
    /// Accept or reject images, or take that back; the next export honours it
    Review(ReviewArgs),
}

#[derive(Debug, Args)]
#[group(id = "curation")]
pub struct CurateRunArgs {
    /// Collection to choose from
    #[arg(long, value_name = "NAME", required = true)]
    pub pool: String,
    /// Examples of what is wanted: a collection, or a folder of pictures; several may be named, as
    /// NAME=SET where the set's own name will not do
    #[arg(long = "seed", value_name = "[NAME=]SET|DIR")]
    pub seeds: Vec<String>,
    /// What must have nothing like it in the result, such as a test set: a collection, or a folder
    #[arg(long, value_name = "[NAME=]SET|DIR")]
    pub exclude: Vec<String>,
    /// Folder of the run; the same command goes on there, and redoes only what was changed
    #[arg(long, value_name = "RUN", required = true)]
    pub out: PathBuf,
    /// How pool images are found for examples [default: sample]
    #[arg(long, value_enum)]
    pub method: Option<CurateMethod>,
    /// `sample`: neighbours of each example [default: 4]
    #[arg(short, value_name = "K", value_parser = positive)]
    pub k: Option<usize>,
    /// `cluster`: clusters of the pool [default: the square root of its size]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub clusters: Option<usize>,
    /// `cluster`: draw only from clusters with more examples than this [default: 3]
    #[arg(long, value_name = "N")]
    pub min_seeds: Option<usize>,
    /// `cluster`: images drawn from a cluster at most [default: 10000]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub per_cluster: Option<usize>,
    /// Images retrieved for each set of examples at most [default: 1000000]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub cap: Option<usize>,
    /// Similarity from which on two pool images are duplicates [default: 0.6, scaled to the model]
    #[arg(long, value_name = "COSINE")]
    pub self_threshold: Option<f32>,
    /// Similarity with an excluded image from which on an image is dropped [default: 0.45, scaled
    /// to the model]
    #[arg(long, value_name = "COSINE")]
    pub threshold: Option<f32>,
    /// What goes with an image that is like an excluded one [default: duplicates]
    #[arg(long, value_enum)]
    pub spread: Option<SpreadArg>,
    /// Keep so many images, drawn evenly over a hierarchy of clusters
    #[arg(long, value_name = "N", value_parser = positive)]
    pub balance: Option<usize>,
    /// Decides what is drawn by lot [default: 0]
    #[arg(long, value_name = "N")]
    pub random_seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CurateMethod {
    /// The nearest of each example
    Sample,
    /// By lot from the clusters that examples fall into
    Cluster,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SpreadArg {
    /// What self-deduplication kept for it
    Duplicates,
    /// All that a chain of similar pairs leads to, as published
    Component,
    /// Nothing more
    Direct,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Folder of a finished run
    #[arg(value_name = "RUN")]
    pub folder: PathBuf,
    /// Image of the pool
    #[arg(required = true, value_name = "ID|PATH")]
    pub images: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ReviewArgs {
    /// Folder of a finished run
    #[arg(value_name = "RUN")]
    pub folder: PathBuf,
    /// List of images to let in: an id, a path or a manifest's object on each line
    #[arg(long, value_name = "FILE")]
    pub accept: Option<PathBuf>,
    /// List of images to take out
    #[arg(long, value_name = "FILE")]
    pub reject: Option<PathBuf>,
    /// Take the last decisions back
    #[arg(long, conflicts_with_all = ["accept", "reject"])]
    pub undo: bool,
}
