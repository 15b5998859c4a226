//! Arguments of `akin dedup`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indexer::dedup::{Grouping, Keep, Method};

use super::positive;

/// No file is ever changed or removed. Pairs are found by their embeddings and then looked at:
/// patches and pixels of both pictures tell an edited copy from another picture of the same subject.
#[derive(Debug, Args)]
pub struct DedupArgs {
    /// Collection
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    pub collection: String,
    /// Similarity from which on a pair is looked at or, with --no-verify, taken for duplicates
    /// [default: measured for the collection's model]
    #[arg(long, value_name = "S", value_parser = cosine, allow_negative_numbers = true)]
    pub threshold: Option<f32>,
    /// Neighbours of each image that are considered
    #[arg(short, default_value = "64", value_name = "K", value_parser = positive)]
    pub k: usize,
    /// Do not open originals: similarity alone decides
    #[arg(long)]
    pub no_verify: bool,
    /// Tell equal pixels in different files apart from edits (decodes pictures of very similar pairs,
    /// once)
    #[arg(long)]
    pub pixels: bool,
    /// What makes a group
    #[arg(long, value_enum, default_value = "components")]
    pub grouping: GroupingArg,
    /// Which image of a group stays
    #[arg(long, value_enum, default_value = "best")]
    pub keep: KeepArg,
    /// Collection whose images always stay, and for which images of this one go
    #[arg(long, value_name = "NAME")]
    pub reference: Vec<String>,
    /// Images at or below this path always stay
    #[arg(long, value_name = "PATH")]
    pub protect: Vec<PathBuf>,
    /// How neighbours are found
    #[arg(long, value_enum, default_value = "auto")]
    pub method: MethodArg,
    /// Write groups and compared pairs to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Take the duplicates out of the collection (never off the disk); without it, they are only
    /// shown
    #[arg(long)]
    pub remove_from_collection: bool,
    /// Remember two images (ids or paths) as no duplicates, whatever they look like, until one of
    /// the files changes
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["calibrate", "report"])]
    pub not_duplicate: Option<Vec<String>>,
    /// Forget the pair of --not-duplicate
    #[arg(long, requires = "not_duplicate")]
    pub forget: bool,
    /// Show what each threshold gets right on labelled pairs: a CSV with the columns a and b (ids or
    /// paths) and copy (1 or 0); without a file, what each threshold would do
    #[arg(long, num_args = 0..=1, value_name = "TRUTH", conflicts_with = "report")]
    pub calibrate: Option<Option<PathBuf>>,
    /// Share of pairs called that must be copies at the threshold suggested
    #[arg(long, default_value = "0.99", value_name = "P", value_parser = share, requires = "calibrate")]
    pub precision: f64,
    /// Folder for calibration.csv and calibration.svg
    #[arg(long, value_name = "DIR", requires = "calibrate")]
    pub out: Option<PathBuf>,
    /// Seed of resampling and of the pairs shown
    #[arg(long, default_value = "0", value_name = "N", requires = "calibrate")]
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum GroupingArg {
    /// Everything connected, through however many others
    Components,
    /// One image and what is linked with it directly: no chains
    Medoid,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeepArg {
    /// The most pixels, then the largest file
    Best,
    /// The largest file, then the most pixels
    Largest,
    /// The file changed longest ago
    Oldest,
    /// The first path
    PathOrder,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MethodArg {
    /// Exact up to 100,000 images, then through HNSW
    Auto,
    /// Every pair is compared
    Exact,
    /// Through HNSW, where the collection has it
    Hnsw,
}

impl From<GroupingArg> for Grouping {
    fn from(grouping: GroupingArg) -> Self {
        match grouping {
            GroupingArg::Components => Self::Components,
            GroupingArg::Medoid => Self::Medoid,
        }
    }
}

impl From<KeepArg> for Keep {
    fn from(keep: KeepArg) -> Self {
        match keep {
            KeepArg::Best => Self::Best,
            KeepArg::Largest => Self::Largest,
            KeepArg::Oldest => Self::Oldest,
            KeepArg::PathOrder => Self::PathOrder,
        }
    }
}

impl From<MethodArg> for Method {
    fn from(method: MethodArg) -> Self {
        match method {
            MethodArg::Auto => Self::Auto,
            MethodArg::Exact => Self::Exact,
            MethodArg::Hnsw => Self::Hnsw,
        }
    }
}

fn cosine(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    match (-1.0..=1.0).contains(&number) {
        true => Ok(number),
        false => Err("it is a cosine similarity and lies between -1 and 1".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    match number > 0.0 && number <= 1.0 {
        true => Ok(number),
        false => Err("it must be above 0 and at most 1".to_owned()),
    }
}
