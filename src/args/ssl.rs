//! `akin train ssl`, as typed.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{StoreArg, TrainMatmulArg, positive};

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ArchArg {
    /// 192 wide, 12 blocks, 3 heads
    Ti,
    /// 256 wide, 12 blocks, 4 heads
    Xs,
    /// 384 wide, 12 blocks, 6 heads
    S,
    /// 768 wide, 12 blocks, 12 heads
    B,
    /// 1024 wide, 24 blocks, 16 heads
    L,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CentringArg {
    /// Balance every batch over the prototypes
    SinkhornKnopp,
    /// Softmax of what exceeds the moving average
    Softmax,
}

/// Ctrl-C ends a run after the current step; the same command goes on from there.
///
/// With `--teacher`, this is distillation as published: the same loop, with a teacher that stays as
/// it is, no hidden patches and no stochastic depth.
#[derive(Debug, Args)]
pub struct SslArgs {
    /// Pictures to train on: files, folders (searched recursively), WebDataset shards (.tar),
    /// lists (.txt), curated runs (folders with a manifest.jsonl)
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
    /// Folder of the run: checkpoint.safetensors, metrics.jsonl, metrics.svg, model.safetensors
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub backbone: BackboneArgs,
    /// Side of the two global crops in pixels, a multiple of 14
    #[arg(long, value_name = "PX", default_value = "224")]
    pub size: u32,
    /// Side of local crops in pixels, a multiple of 14
    #[arg(long, value_name = "PX", default_value = "98")]
    pub local_size: u32,
    /// Local crops of each picture
    #[arg(long, value_name = "N", default_value = "8")]
    pub locals: usize,
    /// Optimizer steps
    #[arg(long, value_name = "N", default_value = "10000")]
    pub steps: usize,
    /// Pictures in one pass
    #[arg(long, value_name = "N", default_value = "32", value_parser = positive)]
    pub batch: usize,
    /// Passes in one step
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive)]
    pub accumulate: usize,
    /// Peak learning rate [default: 2e-4 x sqrt(pictures in a step / 1024)]
    #[arg(long, value_name = "RATE")]
    pub lr: Option<f64>,
    /// Prototypes of each head
    #[arg(long, value_name = "N", default_value = "4096", value_parser = positive)]
    pub prototypes: usize,
    /// Inner width of the heads
    #[arg(long, value_name = "N", default_value = "2048", value_parser = positive)]
    pub hidden: usize,
    /// Width in which tokens meet prototypes
    #[arg(long, value_name = "N", default_value = "256", value_parser = positive)]
    pub bottleneck: usize,
    /// One head for CLS and patches, instead of one each
    #[arg(long)]
    pub shared_head: bool,
    /// Distil this model: a name of `akin model list`, or a path
    #[arg(long, value_name = "NAME|PATH")]
    pub teacher: Option<String>,
    /// Heads of the teacher: checkpoint.safetensors of the run that made it [default: random ones]
    #[arg(long, value_name = "FILE", requires = "teacher")]
    pub teacher_heads: Option<PathBuf>,
    /// Share of crops that each branch of each block skips
    #[arg(long, value_name = "SHARE", default_value = "0.3", conflicts_with = "teacher")]
    pub drop_path: f64,
    /// How the teacher is kept from collapsing
    #[arg(long, value_enum, default_value = "sinkhorn-knopp")]
    pub centring: CentringArg,
    /// Share of the teacher kept at each step, rising to 1
    #[arg(long, value_name = "SHARE", default_value = "0.994")]
    pub momentum: f64,
    /// Factor on the learning rate from each block to the one below
    #[arg(long, value_name = "FACTOR", default_value = "0.9")]
    pub layer_decay: f64,
    /// Steps of rising learning rate [default: a tenth of all]
    #[arg(long, value_name = "N")]
    pub warmup: Option<usize>,
    /// Steps of rising teacher temperature, 0.04 to 0.07 [default: three tenths of all]
    #[arg(long, value_name = "N")]
    pub temperature_warmup: Option<usize>,
    /// Steps at the start with prototypes held still [default: a hundredth of all]
    #[arg(long, value_name = "N")]
    pub freeze_last_layer: Option<usize>,
    /// Steps at the end with larger global crops
    #[arg(long, value_name = "N")]
    pub high_res_steps: Option<usize>,
    /// Side of global crops in those steps
    #[arg(long, value_name = "PX", default_value = "518", requires = "high_res_steps")]
    pub high_res_size: u32,
    /// Measure k-NN accuracy on these pictures, whose class is the name of their folder
    #[arg(long, value_name = "DIR")]
    pub eval: Option<PathBuf>,
    /// Steps between measurements; there is one before the first step and one after the last
    #[arg(long, value_name = "N", default_value = "1000", value_parser = positive, requires = "eval")]
    pub eval_every: usize,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value = "0")]
    pub seed: u64,
    /// Matrix products in bf16 (sums and all else in f32), or in f32
    #[arg(long, value_enum, default_value = "bf16")]
    pub matmul: TrainMatmulArg,
    /// Keep less in memory and compute it again: the same result, a third slower
    #[arg(long)]
    pub checkpointing: bool,
    /// Steps between checkpoints
    #[arg(long, value_name = "N", default_value = "200", value_parser = positive)]
    pub save_every: usize,
    /// Name that the model goes by [default: that of the folder]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How model.safetensors is stored
    #[arg(long, value_enum, default_value = "f16")]
    pub store: StoreArg,
}

/// What is trained.
#[derive(Debug, Args)]
#[command(next_help_heading = "Backbone")]
pub struct BackboneArgs {
    /// Shape of a new backbone
    #[arg(long, value_enum, default_value = "ti", conflicts_with = "init")]
    pub arch: ArchArg,
    /// Width, instead of the shape's
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "init")]
    pub width: Option<usize>,
    /// Blocks, instead of the shape's
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "init")]
    pub depth: Option<usize>,
    /// Attention heads, instead of one for each 64 of the width
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "init")]
    pub heads: Option<usize>,
    /// Register tokens
    #[arg(long, value_name = "N", default_value = "0", conflicts_with = "init")]
    pub registers: usize,
    /// LayerScale at the start; larger values make short runs faster
    #[arg(long, value_name = "FACTOR", default_value = "1e-5", conflicts_with = "init")]
    pub layer_scale: f64,
    /// Go on from weights instead: a name of `akin model list`, or a path
    #[arg(long, value_name = "NAME|PATH")]
    pub init: Option<String>,
}
