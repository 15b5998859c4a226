//! Arguments of the commands that make and use classification heads.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{InputArgs, positive};

#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// File to write the head to, for `akin label`
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Length of tokens; of unit length, a head that reads CLS of the last block alone labels a
    /// collection from its stored vectors, others read the pictures again
    #[arg(long, value_enum, default_value = "unit")]
    pub scale: ScaleArg,
    #[command(flatten)]
    pub fit: FitArgs,
}

#[derive(Debug, Args)]
pub struct EvalLinearArgs {
    /// Length of tokens
    #[arg(long, value_enum, default_value = "raw")]
    pub scale: ScaleArg,
    #[command(flatten)]
    pub fit: FitArgs,
}

#[derive(Debug, Args)]
pub struct FitArgs {
    /// Pictures to train on: files and folders (searched recursively)
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
    /// Test the chosen head on these
    #[arg(long, value_name = "SOURCE")]
    pub queries: Vec<PathBuf>,
    /// Choose the head on these, instead of a part of the training pictures
    #[arg(long, value_name = "SOURCE")]
    pub val: Vec<PathBuf>,
    /// Part of each class's training pictures that is held out to choose the head on
    #[arg(long, value_name = "SHARE", default_value = "0.1", conflicts_with = "val")]
    pub val_share: f64,
    /// How heads are made
    #[arg(long, value_enum, default_value = "linear")]
    pub method: MethodArg,
    /// Last blocks whose CLS tokens heads read, each a part of the grid [default: 1,4]
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', value_parser = positive)]
    pub layers: Option<Vec<usize>>,
    /// Whether heads also read the mean patch token; both are parts of the grid [default: no,yes]
    #[arg(long, value_name = "no|yes,..", value_delimiter = ',', value_enum)]
    pub avg_pool: Option<Vec<YesNo>>,
    /// Learning rates of the grid, for a batch of 256; scaled in proportion to the batch [default:
    /// 1e-4,2e-4,5e-4,1e-3,2e-3,5e-3,1e-2,2e-2,5e-2,0.1,0.2,0.3,0.5]
    #[arg(long, value_name = "RATE,..", value_delimiter = ',')]
    pub lr: Option<Vec<f64>>,
    /// Steps of SGD [default: 12500]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub iterations: Option<usize>,
    /// Pictures in a step [default: 128]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch: Option<usize>,
    /// Random crops and flips of each training picture, taken in turns, one for each epoch [default:
    /// none; the evaluation crop]
    #[arg(long, value_name = "N")]
    pub views: Option<u64>,
    /// Seed of the held-out part, initial weights, order and views
    #[arg(long, value_name = "N", default_value = "0")]
    pub seed: u64,
    #[command(flatten)]
    pub input: InputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodArg {
    /// A grid of linear heads (layers x avg-pool x lr), trained at once by SGD
    Linear,
    /// Logistic regression on CLS of the last block, strength chosen from 45
    Logistic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    No,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScaleArg {
    /// As they leave the model's final norm: the published protocol
    Raw,
    /// Brought to a root mean square of 1, which stored vectors can be too
    Unit,
}

#[derive(Debug, Args)]
pub struct LabelArgs {
    /// Collection
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    pub collection: String,
    /// Head made by `akin train probe`
    #[arg(long, value_name = "FILE")]
    pub head: PathBuf,
    /// Give no label, and take away an earlier one, where the best class is less probable than this
    #[arg(long, value_name = "P", default_value = "0", value_parser = probability)]
    pub min_confidence: f64,
    /// Only count
    #[arg(long)]
    pub dry_run: bool,
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(p) if (0.0..=1.0).contains(&p) => Ok(p),
        _ => Err("it must be a number from 0 to 1".to_owned()),
    }
}
