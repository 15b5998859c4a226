//! The command line, as typed.

mod bench;
mod collection;
mod curate;
mod dedup;
mod export;
mod index;
mod input;
mod key;
mod probe;
mod search;
mod serve;
mod ssl;

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use self::bench::{
    BenchCommand, BenchEmbedArgs, BenchIndexArgs, BenchPipelineArgs, BenchSearchArgs, IsaArg,
};
pub use self::collection::{
    CheckArgs, CollectionCommand, CollectionInfoArgs, CompactArgs, DeleteArgs, PrecisionArg,
    ReindexArgs, RemoveArgs, RestoreArgs, SnapshotArgs,
};
pub use self::curate::{
    CurateArgs, CurateCommand, CurateMethod, CurateRunArgs, ExplainArgs, ReviewArgs, SpreadArg,
};
pub use self::dedup::DedupArgs;
pub use self::export::{
    ExportArgs, ExportCommand, ExportWriteArgs, FilesArg, FormatArg, VerifyArgs,
};
pub use self::index::IndexArgs;
pub use self::input::{DecodeArg, InputArgs};
pub use self::key::{KeyCommand, KeyCreateArgs, RoleArg};
pub use self::probe::{EvalLinearArgs, FitArgs, LabelArgs, MethodArg, ProbeArgs, ScaleArg, YesNo};
pub use self::search::{ScoringArg, SearchArgs};
pub use self::serve::ServeArgs;
pub use self::ssl::{ArchArg, BackboneArgs, CentringArg, SslArgs};

/// Reads the command line, or ends with what is wrong with it. An environment variable that is empty
/// is one that is not set, as in `AKIN_HOME= akin ...`; an empty flag is a mistake.
pub fn parse() -> Cli {
    let mut matches = without_empty(Cli::command()).get_matches();
    Cli::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit())
}

fn without_empty(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_env() {
        Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => {
            // The parser cannot be told to forget a variable, but to look at one that cannot be:
            // names have no `=`. The help shows the right name then, too.
            let never: &'static str = format!("{}=", name.display()).leak();
            arg.env(never).hide_env_values(true)
        }
        _ => arg,
    });
    command.mut_subcommands(without_empty)
}

/// Visual search on frozen DINOv2 features: index folders of pictures, find a picture's kin.
#[derive(Debug, Parser)]
#[command(name = "akin", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished but some files \
                        were skipped (they are listed).")]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Folder of collections and models [default: akin in the platform's data folder]
    #[arg(long, global = true, env = "AKIN_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// TOML file with defaults for `home`, `model`, `device`, `threads`, `decode` and `cache`
    #[arg(long, global = true, env = "AKIN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Model: a name known to `akin model list`, or the path of a weights file or folder
    /// [default: akin-ti14, which is part of the program]
    #[arg(long, global = true, env = "AKIN_MODEL", value_name = "NAME|PATH")]
    pub model: Option<String>,
    /// Where to compute: auto, cpu, cuda, cuda:N, cuda:N,M,.. or cuda:all [default: auto]
    #[arg(long, global = true, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Record the pass over a small batch on a GPU as a CUDA graph and replay it (not proven)
    #[arg(long, global = true, env = "AKIN_CUDA_GRAPHS", hide = !cfg!(feature = "cuda"))]
    #[arg(value_parser = FalseyValueParser::new())]
    pub cuda_graphs: bool,
    /// Number of threads [default: one per core]
    #[arg(long, global = true, value_name = "N", value_parser = positive)]
    pub threads: Option<usize>,
    /// Machine-readable output on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress and no hints
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// More detail on stderr; twice for the libraries' too
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// See it work: draw a gallery, index it, find a picture's kin, copies and leaks
    Demo(DemoArgs),
    /// Bring a collection up to date with folders, archives, tables of URLs, embeddings
    Index(IndexArgs),
    /// Find the pictures most similar to one
    Search(Box<SearchArgs>),
    /// Search in the browser and over HTTP: the page, the API, indexing in the background
    Serve(Box<ServeArgs>),
    /// Give every image of a collection the class that a head finds in it
    Label(LabelArgs),
    /// Grow a dataset out of a pool from examples, without duplicates and without leaks
    Curate(Box<CurateArgs>),
    /// Write a curated run, or a whole collection, as files other programs load
    Export(ExportArgs),
    /// Find duplicates: equal files, edited copies, look-alikes
    Dedup(Box<DedupArgs>),
    /// Write embeddings to a Parquet or NumPy file
    Embed(EmbedArgs),
    /// Measure a model on labelled pictures
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Make a model
    #[command(subcommand)]
    Train(TrainCommand),
    /// Get and check models
    #[command(subcommand)]
    Model(ModelCommand),
    /// Measure speed on this machine
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Make and end keys for `akin serve`
    #[command(subcommand)]
    Key(KeyCommand),
    /// Look at collections and take care of them
    #[command(subcommand)]
    Collection(CollectionCommand),
}

#[derive(Debug, Subcommand)]
pub enum TrainCommand {
    /// Train a backbone on unlabelled pictures, as DINOv2 was trained
    Ssl(Box<SslArgs>),
    /// Distil the model of `--model` into a smaller or faster one by feature matching
    ///
    /// The published recipe, with prototypes, is `akin train ssl --teacher`.
    Distill(DistillArgs),
    /// Train a classification head on frozen features of labelled pictures
    ///
    /// A picture's class is the name of its folder. Pictures are prepared as for evaluation and
    /// computed once each, where the published protocol draws a random crop and flip at every step:
    /// `--views` draws that many of each. The head is chosen on pictures held out of training; what
    /// it gets right there is no test result, for which `--queries` names pictures of their own. Of
    /// heads with as many right, that with the lowest loss is taken (`akin eval linear` takes the
    /// first, as published), for its confidence to mean something.
    Probe(ProbeArgs),
}

/// Ctrl-C ends a run after the current step; the same command goes on from there.
#[derive(Debug, Args)]
pub struct DistillArgs {
    /// Pictures to train on: files, folders (searched recursively), WebDataset shards (.tar),
    /// lists (.txt), curated runs (folders with a manifest.jsonl)
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
    /// Folder of the run: checkpoint.safetensors, metrics.jsonl, model.safetensors
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Blocks of the teacher that the student starts from, such as 0,2,4 [default: all]
    #[arg(long, value_name = "N,N,..", value_delimiter = ',')]
    pub blocks: Option<Vec<usize>>,
    /// Start from random weights of this shape instead
    #[arg(long, value_enum, conflicts_with = "blocks")]
    pub arch: Option<ArchArg>,
    /// Width of the new student, instead of the shape's
    #[arg(long, value_name = "N", value_parser = positive, requires = "arch")]
    pub width: Option<usize>,
    /// Blocks of the new student, instead of the shape's
    #[arg(long, value_name = "N", value_parser = positive, requires = "arch")]
    pub depth: Option<usize>,
    /// Side of the student's input in pixels, a multiple of 14
    #[arg(long, value_name = "PX", default_value = "126")]
    pub size: u32,
    /// Side of the teacher's input in pixels, a multiple of 14
    #[arg(long, value_name = "PX", default_value = "224")]
    pub teacher_size: u32,
    /// Small views of each picture, beside the whole one
    #[arg(long, value_name = "N", default_value = "0")]
    pub locals: usize,
    /// Side of small views for the student, a multiple of 14; the teacher's are larger in proportion
    #[arg(long, value_name = "PX", default_value = "56")]
    pub local_size: u32,
    /// Optimizer steps
    #[arg(long, value_name = "N", default_value = "10000")]
    pub steps: usize,
    /// Pictures in one forward pass
    #[arg(long, value_name = "N", default_value = "16", value_parser = positive)]
    pub batch: usize,
    /// Forward passes in one step
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive)]
    pub accumulate: usize,
    /// Peak learning rate [default: 2e-5, or 5e-4 from random weights]
    #[arg(long, value_name = "RATE")]
    pub lr: Option<f64>,
    /// Steps of rising learning rate
    #[arg(long, value_name = "N", default_value = "100")]
    pub warmup: usize,
    /// Views of each picture, taken in turns; 0 draws a new one every time
    #[arg(long, value_name = "N", default_value = "0")]
    pub views: u64,
    /// Keep the teacher's outputs here; needs `--views`
    #[arg(long, value_name = "DIR", requires = "views")]
    pub cache: Option<PathBuf>,
    /// Seed of order and views
    #[arg(long, value_name = "N", default_value = "0")]
    pub seed: u64,
    /// Matrix products in bf16 (sums and all else in f32), or in f32
    #[arg(long, value_enum, default_value = "bf16")]
    pub matmul: TrainMatmulArg,
    /// Steps between checkpoints
    #[arg(long, value_name = "N", default_value = "200", value_parser = positive)]
    pub save_every: usize,
    /// Name that the model goes by [default: that of the folder]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How model.safetensors is stored
    #[arg(long, value_enum, default_value = "int8")]
    pub store: StoreArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TrainMatmulArg {
    /// Single precision
    F32,
    /// Factors rounded to bf16, sums in f32
    Bf16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum StoreArg {
    /// Single precision
    F32,
    /// Half precision
    F16,
    /// Matrices as bytes with one scale for each row
    Int8,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder of the gallery, new or empty or drawn before [default: demo/gallery in the home
    /// folder]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Collection of the gallery's pool; that of its test set has `-test` added
    #[arg(short, long, default_value = "demo", value_name = "NAME")]
    pub collection: String,
    /// Decides every pixel
    #[arg(long, value_name = "N", default_value = "0")]
    pub seed: u64,
    /// Pictures in the pool, copies not counted
    #[arg(long, value_name = "N", default_value = "288", value_parser = positive)]
    pub pictures: usize,
}

#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// Files and folders (searched recursively)
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
    /// Output, ending in .parquet, or in .npy (paths then go to a .jsonl beside it)
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Write the patch tokens too
    #[arg(long)]
    pub patch_tokens: bool,
    #[command(flatten)]
    pub input: InputArgs,
}

#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Weighted k-NN accuracy; a picture's class is the name of its folder
    Knn(KnnArgs),
    /// Accuracy of a linear or logistic probe trained on frozen features of labelled pictures
    ///
    /// The published protocol in all but one thing: training pictures are prepared as for evaluation
    /// and computed once each, where the original draws a random crop and flip at every step;
    /// `--views` draws that many of each. A picture's class is the name of its folder.
    Linear(EvalLinearArgs),
    /// Mean average precision of retrieving a picture's class; the class is its folder's name
    Retrieval(EvalSource),
    /// How often an edited copy's nearest picture is its original
    Copies(CopiesArgs),
    /// How many of the nearest images a collection's index finds, against comparing all of them
    Recall(RecallArgs),
}

#[derive(Debug, Args)]
pub struct RecallArgs {
    /// Collection to check
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    pub collection: String,
    /// Stored vectors to search with, drawn by lot
    #[arg(long, default_value = "1000", value_name = "N", value_parser = positive)]
    pub queries: usize,
    /// Neighbours of each
    #[arg(short, long, default_value = "10", value_name = "K", value_parser = positive)]
    pub k: usize,
    /// Seed of the draw
    #[arg(long, default_value = "0", value_name = "N")]
    pub seed: u64,
}

#[derive(Debug, Args)]
pub struct EvalSource {
    /// Files and folders; with a collection, those of its images to use [default: all]
    #[arg(value_name = "SOURCE", required_unless_present = "collection")]
    pub sources: Vec<PathBuf>,
    /// Take embeddings from a collection instead of computing them
    #[arg(short, long, value_name = "NAME")]
    pub collection: Option<String>,
    #[command(flatten)]
    pub input: InputArgs,
}

#[derive(Debug, Args)]
pub struct KnnArgs {
    #[command(flatten)]
    pub source: EvalSource,
    /// Classify these by the others, instead of each picture by all the rest
    #[arg(long, value_name = "SOURCE")]
    pub queries: Vec<PathBuf>,
    /// Neighbours that vote; several numbers, such as the published 10,20,100,200, share one pass
    #[arg(
        short,
        default_value = "10",
        value_name = "K,..",
        value_delimiter = ',',
        value_parser = positive
    )]
    pub k: Vec<usize>,
    /// Softness of the votes
    #[arg(long, default_value = "0.07", value_name = "T")]
    pub temperature: f64,
}

#[derive(Debug, Args)]
pub struct CopiesArgs {
    /// CSV with columns `original` and `copy` (files beside it), and optionally `source` (a
    /// distractor to leave out, being the same picture as the original)
    #[arg(long, value_name = "FILE")]
    pub truth: PathBuf,
    /// Pictures to hide the originals among
    #[command(flatten)]
    pub distractors: EvalSource,
}

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Show the models that can be pulled and those that are here
    List,
    /// Download a model, or go on with a download
    Pull(PullArgs),
    /// Check the files of a model against their recorded hashes, and its tensors
    Verify(ModelName),
    /// Show what is known of a model
    Info(ModelName),
}

#[derive(Debug, Args)]
pub struct PullArgs {
    /// Name, such as vits14_reg
    pub name: String,
    /// Download again what is here already
    #[arg(long)]
    pub force: bool,
    /// Make no request: only say what is missing
    #[arg(long, env = "AKIN_OFFLINE", value_parser = FalseyValueParser::new())]
    pub offline: bool,
    /// Where the hub is
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// Access token of the hub
    #[arg(long, env = "HF_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Branch, tag or commit
    #[arg(long, default_value = "main", value_name = "REV")]
    pub revision: String,
}

#[derive(Debug, Args)]
pub struct ModelName {
    /// Name or path [default: that of --model]
    pub name: Option<String>,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("it must be a whole number of at least 1".to_owned()),
    }
}
