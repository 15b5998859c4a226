//! `akin bench`, as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::input::MatmulArg;
use super::{InputArgs, positive};

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Time the model: images a second, arithmetic a second, where the time goes
    Embed(BenchEmbedArgs),
    /// Time indexing files, from reading to the last commit, and how much of it is the model
    Pipeline(BenchPipelineArgs),
    /// Time making a collection of given vectors
    Index(BenchIndexArgs),
    /// Time searching a collection with given vectors, from query to records
    Search(BenchSearchArgs),
}

#[derive(Debug, Args)]
pub struct BenchPipelineArgs {
    /// Pictures, or folders of them; some thousand, different from each other
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
    /// Timed repetitions; each makes a collection in the home folder and removes it again
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive)]
    pub rounds: usize,
    /// Seconds for which the model alone is timed, before and after each repetition
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive)]
    pub model_seconds: usize,
    #[command(flatten)]
    pub input: InputArgs,
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

#[derive(Debug, Args)]
pub struct BenchEmbedArgs {
    /// Pictures that are embedded at a time; several sizes are timed one after the other [default: 1,16;
    /// on a GPU 1 and what suits it best]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub batch: Vec<usize>,
    /// Side of the model's input in pixels, a multiple of 14 [default: the model's own]
    #[arg(long, value_name = "PX")]
    pub size: Option<u32>,
    /// Precision of matrix products [default: f32 on a CPU, bf16 on a GPU]
    #[arg(long, visible_alias = "precision", value_enum)]
    pub matmul: Option<MatmulArg>,
    /// Instructions of the processor to use [default: the fastest it has]
    #[arg(long, value_enum)]
    pub isa: Option<IsaArg>,
    /// Compute patch tokens too; without, the last block is computed for CLS alone
    #[arg(long)]
    pub patch_tokens: bool,
    /// Timed repetitions of each batch size, after one that is not counted
    #[arg(long, value_name = "N", default_value = "9", value_parser = positive)]
    pub rounds: usize,
    /// Read commands from standard input instead (`run BATCH ROUNDS`, `quit`) and answer each with
    /// a line of seconds, for a program that times several engines in turn
    #[arg(long)]
    pub serve: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum IsaArg {
    /// Plain loops
    Portable,
    /// AVX2 and FMA
    Avx2,
    /// AVX-512
    Avx512,
    /// Intel AMX
    Amx,
}
