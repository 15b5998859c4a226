//! Arguments of `akin index`.

use std::path::PathBuf;

use clap::Args;
use indexer::fetch::USER_AGENT;

use super::{InputArgs, positive};

#[derive(Debug, Args)]
pub struct IndexArgs {
    /// Files and folders (searched recursively), archives (.tar, .tar.gz, .tgz, .zip), tables of
    /// URLs (.parquet, .csv, .tsv, .jsonl, .txt), URLs
    #[arg(required_unless_present_any = ["from_list", "embeddings"], value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
    /// Collection, created if there is none
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    pub collection: String,
    /// Take sources from a file, one on each line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub from_list: Option<PathBuf>,
    /// Entries of the list end with NUL instead, as `find -print0` writes them
    #[arg(short = '0', long, requires = "from_list")]
    pub null: bool,
    /// Leave out what matches, by the path below the source or by its name; a folder that matches
    /// is not entered
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Take hidden files and folders too
    #[arg(long)]
    pub hidden: bool,
    /// Try files again that failed before
    #[arg(long)]
    pub retry_failed: bool,
    /// Remove images whose files have gone, even if their whole folder has, or most of them
    #[arg(long)]
    pub prune: bool,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Go on until Ctrl-C: whatever changes in the folders is brought into the collection
    #[arg(long, conflicts_with_all = ["dry_run", "embeddings"])]
    pub watch: bool,
    /// Index vectors that were computed elsewhere: the output of `akin embed`, any Parquet file with
    /// a list column, or a NumPy array (.npy, with what its rows are called in a .jsonl beside it)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sources", "from_list"])]
    pub embeddings: Option<PathBuf>,
    /// Column of the vectors [default: embedding]
    #[arg(long, value_name = "NAME", requires = "embeddings")]
    pub embedding_column: Option<String>,
    /// What the model that made the vectors is called [default: the name of the file]
    #[arg(long, value_name = "NAME", requires = "embeddings")]
    pub embedding_model: Option<String>,
    #[command(flatten)]
    pub payload: PayloadArgs,
    #[command(flatten)]
    pub downloads: DownloadArgs,
    #[command(flatten)]
    pub input: InputArgs,
}

/// What is attached to images.
#[derive(Debug, Args)]
#[command(next_help_heading = "Payload")]
pub struct PayloadArgs {
    /// CSV, TSV, JSON lines or Parquet with a row for each picture; its relative paths are taken
    /// from its own folder and from the sources
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
    /// Column that says which picture a row is about [default: path, file_name, file or sha256]
    #[arg(long, value_name = "NAME", requires = "payload")]
    pub payload_key: Option<String>,
    /// Attach what a JSON file beside the picture says: photo.jpg.json, or photo.json
    #[arg(long)]
    pub sidecar: bool,
    /// Attach date, camera and exposure from EXIF to pictures that are read: exif.date, exif.make...
    #[arg(long)]
    pub exif: bool,
    /// Attach the place from EXIF too: exif.lat, exif.lon
    #[arg(long)]
    pub exif_gps: bool,
}

/// How URLs are fetched.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tables of URLs")]
pub struct DownloadArgs {
    /// Column of the URLs [default: url, URL or image_url]
    #[arg(long, value_name = "NAME")]
    pub url_column: Option<String>,
    /// Columns that become payload [default: all others]
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    pub payload_columns: Option<Vec<String>>,
    /// Downloads at once
    #[arg(long, value_name = "N", default_value = "16", value_parser = positive)]
    pub downloads: usize,
    /// Downloads at once from one host
    #[arg(long, value_name = "N", default_value = "4", value_parser = positive)]
    pub per_host: usize,
    /// Further tries of a download that fails in passing
    #[arg(long, value_name = "N", default_value = "3")]
    pub retries: u32,
    /// What servers are told that we are
    #[arg(long, value_name = "TEXT", default_value = USER_AGENT)]
    pub user_agent: String,
    /// Take pictures also where X-Robots-Tag says noai, noimageai, noindex or noimageindex
    #[arg(long)]
    pub ignore_robots: bool,
    /// Fetch also from this machine and from private networks
    #[arg(long)]
    pub allow_private_addresses: bool,
}
