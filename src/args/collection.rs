//! `akin collection`, as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::InputArgs;

#[derive(Debug, Subcommand)]
pub enum CollectionCommand {
    /// List collections
    List,
    /// Show what is known of a collection, or of a snapshot
    Info(CollectionInfoArgs),
    /// Look at everything in a collection, and say what is wrong and what to run
    ///
    /// Exit code 0 when all is sound (after `--repair`: sound again), 1 otherwise.
    Check(CheckArgs),
    /// Give back the space of images that were removed or changed
    Compact(CompactArgs),
    /// Compute all embeddings again with another model or other settings, then swap
    ///
    /// Reads every picture again from where it was found. The collection can be searched meanwhile
    /// and stays as it is until the end. After an interruption the same command goes on. Choices that
    /// need no picture (`--precision f16`, `--ann-from`) are made from the vectors there are.
    Reindex(Box<ReindexArgs>),
    /// Remove images from a collection; their files are not touched
    Remove(RemoveArgs),
    /// Delete a whole collection; the files it was made of are not touched
    Delete(DeleteArgs),
    /// Write a collection into one file, to keep or to move it
    Snapshot(SnapshotArgs),
    /// Make a collection of a snapshot, after verifying all of it
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub struct CollectionInfoArgs {
    /// Collection
    #[arg(default_value = "default")]
    pub name: String,
    /// List the files that were skipped, with reasons
    #[arg(long)]
    pub failures: bool,
    /// Show what is in a snapshot instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "failures"])]
    pub archive: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Collection
    #[arg(default_value = "default")]
    pub name: String,
    /// Make what is derived again, and remove images that are damaged, so that `akin index` reads
    /// their files again
    #[arg(long)]
    pub repair: bool,
}

#[derive(Debug, Args)]
pub struct CompactArgs {
    /// Collection
    #[arg(default_value = "default")]
    pub name: String,
    /// Even where no embedding is to go: the records may take less space too
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct ReindexArgs {
    /// Collection
    #[arg(default_value = "default")]
    pub name: String,
    /// How exactly vectors are kept; f32 needs the pictures where they are f16 now
    #[arg(long, value_enum)]
    pub precision: Option<PrecisionArg>,
    /// From this many images on, search goes through a graph
    #[arg(long, value_name = "N")]
    pub ann_from: Option<u64>,
    /// Begin anew, dropping an unfinished reindex
    #[arg(long)]
    pub restart: bool,
    /// Go on though whole folders of pictures are missing: their images are removed
    #[arg(long)]
    pub prune: bool,
    /// Refused: vectors of two models cannot be in one collection
    #[arg(long, hide = true)]
    pub keep_missing: bool,
    /// Only drop an unfinished reindex
    #[arg(long, conflicts_with_all = ["restart", "prune", "precision", "ann_from"])]
    pub abandon: bool,
    #[command(flatten)]
    pub input: InputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// Half precision
    F16,
    /// As computed
    F32,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Collection
    #[arg(default_value = "default")]
    pub name: String,
    /// Image with this id
    #[arg(
        long = "id",
        value_name = "N",
        num_args = 1..,
        required_unless_present_any = ["paths", "under"]
    )]
    pub ids: Vec<u64>,
    /// Image of this file, which may be gone
    #[arg(long = "path", value_name = "FILE", num_args = 1..)]
    pub paths: Vec<PathBuf>,
    /// All images below this folder, which may be gone
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub under: Vec<PathBuf>,
    /// Only list what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Collection; there is no default
    pub name: String,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// Collection
    #[arg(default_value = "default")]
    pub name: String,
    /// File to write, such as photos.akin
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Replace a file of that name
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Snapshot
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Name of the collection [default: the one it had]
    #[arg(long = "as", value_name = "NAME")]
    pub name: Option<String>,
    /// Replace a collection of that name
    #[arg(long)]
    pub replace: bool,
}
