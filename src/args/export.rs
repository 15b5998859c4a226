//! `akin export`, as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::positive;

/// Write a curated run, or a whole collection, as files other programs load.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ExportArgs {
    #[command(subcommand)]
    pub command: Option<ExportCommand>,
    #[command(flatten)]
    pub write: Option<ExportWriteArgs>,
}

#[derive(Debug, Subcommand)]
pub enum ExportCommand {
    /// Check an export's files against their hashes, and its leak certificate against the
    /// collections, if they are there
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
#[group(id = "writing")]
pub struct ExportWriteArgs {
    /// Folder of a finished `akin curate`, or a collection
    #[arg(value_name = "RUN|COLLECTION", required = true)]
    pub source: String,
    /// Layout
    #[arg(long, value_enum, required = true)]
    pub format: FormatArg,
    /// Folder of the export, new or empty; appears whole or not at all
    #[arg(long, value_name = "DIR", required = true)]
    pub out: PathBuf,
    /// How the pictures come along [default: copy for imagefolder and webdataset, none for others]
    #[arg(long, value_enum)]
    pub files: Option<FilesArg>,
    /// Add the embeddings: a column of parquet, .npy files of others
    #[arg(long)]
    pub embeddings: bool,
    /// Fail when a picture is missing or changed, rather than leave it out
    #[arg(long)]
    pub strict: bool,
    /// Pictures in one shard of webdataset
    #[arg(long, value_name = "N", default_value = "10000", value_parser = positive)]
    pub shard_samples: usize,
    /// The certificate lists pairs down to this far below the threshold
    #[arg(long, value_name = "COSINE", default_value = "0.05")]
    pub margin: f32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FormatArg {
    /// One table, data.parquet
    Parquet,
    /// One object a line, data.jsonl
    Jsonl,
    /// One table, data.csv
    Csv,
    /// Pictures and metadata.jsonl, for Hugging Face datasets
    Imagefolder,
    /// Tar shards
    Webdataset,
    /// annotations.json; the payload value `label` is the class of the whole picture
    Coco,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FilesArg {
    /// Only their paths
    None,
    /// Copies
    Copy,
    /// Further names of the same files
    Hardlink,
    /// Links to where they are
    Symlink,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Folder of an export
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Only files, not the certificate against the collections
    #[arg(long)]
    pub files_only: bool,
}
