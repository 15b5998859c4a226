//! Arguments of `akin search`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indexer::search::crop::Crop;

use super::positive;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    akin search photo.jpg -c holiday -k 20\n  \
    akin search photo.jpg --crop 0.25,0.0,0.5,1.0 --filter 'label = \"dog\" and width >= 640'\n  \
    akin search --more-like 17 --more-like 23 --without 5 --hide-duplicates\n\
    Filters, scoring and paging are described in docs/search.md.")]
pub struct SearchArgs {
    /// Picture to search with: a file or an address (http, https); `-` reads it from stdin
    #[arg(value_name = "IMAGE|URL|-")]
    pub image: Option<PathBuf>,
    /// Collection to search
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    pub collection: String,
    /// Number of results
    #[arg(short, default_value = "10", value_name = "K", value_parser = positive)]
    pub k: usize,
    /// Part of IMAGE to search with: pixels of the upright picture, or shares of it with decimal
    /// points, such as 0.25,0.0,0.5,1.0
    #[arg(long, value_name = "X,Y,W,H", requires = "image")]
    pub crop: Option<Crop>,
    /// Search with an image of the collection
    #[arg(long, value_name = "ID")]
    pub id: Option<u64>,
    /// Search with a vector: one NumPy array, or a JSON list
    #[arg(long, value_name = "FILE.npy|.json")]
    pub vector: Option<PathBuf>,
    /// Another example to be near to, by id or as a picture; can be repeated
    #[arg(long, value_name = "ID|IMAGE")]
    pub more_like: Vec<String>,
    /// An example not to be near to, by id or as a picture; can be repeated
    #[arg(long, value_name = "ID|IMAGE")]
    pub without: Vec<String>,
    /// How several examples make one ranking
    #[arg(long, value_enum, default_value = "average")]
    pub scoring: ScoringArg,
    /// Only images that pass, such as 'label = "dog" and date >= "2024-01-01"'
    #[arg(long, value_name = "EXPR")]
    pub filter: Option<String>,
    /// Only images at least as similar as this, -1 to 1
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub min_similarity: Option<f32>,
    /// Show only the best of images at least as similar to each other as this [0.95 if no value is
    /// given]
    #[arg(
        long,
        value_name = "S",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "0.95"
    )]
    pub hide_duplicates: Option<f32>,
    /// How much variety counts against similarity, 0 to 1
    #[arg(long, value_name = "L")]
    pub diversity: Option<f32>,
    /// Leave out this image; can be repeated
    #[arg(long, value_name = "ID")]
    pub exclude: Vec<u64>,
    /// Show examples given by id among the results, even if there are several
    #[arg(long)]
    pub include_examples: bool,
    /// Results to skip
    #[arg(long, value_name = "N", default_value = "0", conflicts_with = "cursor")]
    pub offset: usize,
    /// Go on where a page ended: its `next_cursor`
    #[arg(long, value_name = "C")]
    pub cursor: Option<String>,
    /// Fetch a picture also from this machine and from private networks
    #[arg(long)]
    pub allow_private_addresses: bool,
    /// Compare every image, even in a large collection
    #[arg(long)]
    pub exact: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ScoringArg {
    /// Mean of the wanted, moved away from the mean of the unwanted
    Average,
    /// Similarity with the nearest wanted, without what is nearer to an unwanted
    Best,
}
