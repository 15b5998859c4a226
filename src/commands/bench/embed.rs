//! `akin bench embed`: the speed of the model.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::time::{Duration, Instant};

use engine::vit::{FfnKind, VitConfig, config::PATCH_SIZE};
use engine::{DinoEmbedder, Embedder, Isa, ModelOptions, Pixels, Precision, RgbImage, shipped};
use serde_json::json;

use crate::args::{BenchEmbedArgs, InputArgs, IsaArg};
use crate::embedder;
use crate::outcome::{Failure, Outcome, Success, print, print_json};
use crate::settings::Settings;
use crate::usage::memory;

/// How long the processor's own limit is measured.
const PEAK_TIME: Duration = Duration::from_millis(300);

pub fn run(settings: &Settings, args: &BenchEmbedArgs) -> Outcome {
    if args.batch.contains(&0) {
        return Err(Failure::Usage("a batch of 0 pictures cannot be timed; use 1 or more".into()));
    }
    let bench = Bench::open(settings, args)?;
    if args.serve {
        return bench.serve();
    }
    let first = Instant::now();
    bench.time(1, 1)?;
    let first = first.elapsed();
    let suits = bench.on_gpu.then(|| bench.model.batch());
    let sizes = match (args.batch.is_empty(), suits) {
        (false, _) => args.batch.clone(),
        (true, Some(batch)) => vec![1, batch],
        (true, None) => vec![1, 16],
    };
    let mut results = BTreeMap::new();
    for batch in sizes {
        bench.time(batch, 1)?;
        let before = bench.stages();
        let mut times = bench.time(batch, args.rounds)?;
        let stages = shares(&before, &bench.stages());
        times.sort_by(f64::total_cmp);
        results.insert(batch, Figures { times, stages });
    }
    bench.report(settings, (first, suits), &results)
}

struct Bench {
    model: DinoEmbedder,
    pixels: Pixels,
    load: Duration,
    patch_tokens: bool,
    on_gpu: bool,
}

/// Seconds a batch, in order, and the share of each stage in all threads' time.
struct Figures {
    times: Vec<f64>,
    stages: Vec<(&'static str, f64)>,
}

impl Figures {
    fn median(&self) -> f64 {
        self.times[self.times.len() / 2]
    }
}

impl Bench {
    fn open(settings: &Settings, args: &BenchEmbedArgs) -> Outcome<Self> {
        let start = Instant::now();
        let source = settings.model.as_deref().unwrap_or(shipped::NAME);
        let weights = embedder::weights(settings, source)?;
        let input = InputArgs { size: args.size, matmul: args.matmul, ..InputArgs::NONE };
        let options = input
            .to_options(&weights.preprocess()?.unwrap_or_default())
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let isa = args.isa.map(|isa| match isa {
            IsaArg::Portable => Isa::Portable,
            IsaArg::Avx2 => Isa::Avx2,
            IsaArg::Avx512 => Isa::Avx512,
            IsaArg::Amx => Isa::Amx,
        });
        let devices = embedder::devices(settings)?;
        let precision = args.matmul.map_or(embedder::default_precision(&devices), Precision::from);
        // As it would be opened for work, unless another set is only tried out.
        let packed_weights = settings.packed_weights().filter(|_| isa.is_none());
        let cuda_graphs = settings.cuda_graphs;
        let options = ModelOptions { isa, precision, packed_weights, cuda_graphs, ..options };
        let model = DinoEmbedder::from_weights(&weights, &options, &devices)?;
        // Any picture will do: the time does not depend on what it shows.
        let values = (0..512 * 512 * 3).map(|i: u32| (i.wrapping_mul(i) >> 7) as u8).collect();
        let picture = RgbImage::from_raw(512, 512, values)
            .ok_or_else(|| Failure::Failed("a picture to time with cannot be made".into()))?;
        let pixels = model.prepare(&picture)?;
        let patch_tokens = args.patch_tokens;
        let on_gpu = !devices.is_cpu();
        Ok(Self { model, pixels, load: start.elapsed(), patch_tokens, on_gpu })
    }

    /// Seconds of each of some batches.
    fn time(&self, batch: usize, rounds: usize) -> Outcome<Vec<f64>> {
        let batch = vec![self.pixels.clone(); batch];
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let start = Instant::now();
            if self.patch_tokens {
                self.model.embed_dense(&batch)?;
            } else {
                self.model.embed(&batch)?;
            }
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(times)
    }

    fn stages(&self) -> Vec<(&'static str, Duration)> {
        self.model.usage().map(|(stages, _)| stages).unwrap_or_default()
    }

    /// Answers commands until there are no more.
    fn serve(&self) -> Outcome {
        print(&format!("ready {:.6}", self.load.as_secs_f64()))?;
        for line in std::io::stdin().lock().lines() {
            let line = line.map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| words.get(at).and_then(|n| n.parse::<usize>().ok());
            match (words.first(), number(1), number(2)) {
                (Some(&"run"), Some(batch @ 1..), Some(rounds)) => {
                    let times = self.time(batch, rounds)?;
                    let times: Vec<_> = times.iter().map(|t| format!("{t:.6}")).collect();
                    print(&times.join(" "))?;
                }
                (Some(&"rss"), ..) => print(&format!("{}", memory().resident))?,
                (Some(&"batch"), ..) => print(&format!("{}", self.model.batch()))?,
                (Some(&"quit"), ..) => break,
                _ => {
                    let asked =
                        format!("`{line}` is not `run BATCH ROUNDS`, `batch`, `rss` or `quit`");
                    return Err(Failure::Usage(asked));
                }
            }
        }
        Ok(Success::Done)
    }

    fn report(
        &self,
        settings: &Settings,
        (first, suits): (Duration, Option<usize>),
        results: &BTreeMap<usize, Figures>,
    ) -> Outcome {
        let identity = self.model.identity();
        let side = identity.preprocess.crop as usize;
        let operations = operations(self.model.config(), side) as f64;
        let isa = self.model.isa();
        let gpu = self.model.gpu_peak()?;
        let peak = match &gpu {
            Some((_, peak)) => Some(*peak),
            None => isa.and_then(|isa| engine::kernels::peak(isa, identity.precision, PEAK_TIME)),
        };
        let gpus = gpu.map(|(names, _)| names);
        let device = gpus.as_deref().or(isa.map(Isa::name)).unwrap_or("candle");
        let speed = |batch: usize, figures: &Figures| batch as f64 / figures.median();
        let weights_bytes = self.model.usage().map(|(_, bytes)| bytes);
        let resident = memory().resident;
        if settings.json {
            let keyed = |value: &dyn Fn(usize, &Figures) -> serde_json::Value| {
                results
                    .iter()
                    .map(|(&b, f)| (b.to_string(), value(b, f)))
                    .collect::<BTreeMap<_, _>>()
            };
            print_json(&json!({
                "model": identity.name,
                "size": side,
                "precision": identity.precision,
                "isa": isa.map(Isa::name),
                "device": device,
                "fastest_batch": suits,
                "threads": rayon::current_num_threads(),
                "load_ms": self.load.as_secs_f64() * 1e3,
                "first_ms": first.as_secs_f64() * 1e3,
                "gflop_per_image": operations / 1e9,
                "peak_gflops": peak.map(|peak| peak / 1e9),
                "images_per_second": keyed(&|b, f| speed(b, f).into()),
                "gflops": keyed(&|b, f| (speed(b, f) * operations / 1e9).into()),
                "seconds": keyed(&|_, f| json!(f.times)),
                "stages": keyed(&|_, f| json!(f.stages.iter().copied().collect::<BTreeMap<_, _>>())),
                "weights_bytes": weights_bytes,
                "rss_bytes": resident,
            }))?;
            return Ok(Success::Done);
        }
        print(&format!(
            "{} at {side} px, {} on {}, {} threads: {:.1} GFLOP a picture",
            identity.name,
            identity.precision,
            device,
            rayon::current_num_threads(),
            operations / 1e9,
        ))?;
        print(&format!(
            "loaded in {:.0} ms, first picture after {:.0} ms more; {} MiB resident",
            self.load.as_secs_f64() * 1e3,
            first.as_secs_f64() * 1e3,
            resident >> 20
        ))?;
        if let Some(batch) = suits {
            print(&format!("fastest batch: {batch}"))?;
        }
        if let Some(peak) = peak {
            let (precision, peak) = (identity.precision, peak / 1e9);
            let what = match self.on_gpu {
                true => "products of large square matrices",
                false => "products that stay in the first caches",
            };
            print(&format!("{precision} {what}: {peak:.0} GFLOP/s"))?;
        }
        for (&batch, figures) in results {
            let speed = speed(batch, figures);
            let share = peak.map_or(String::new(), |peak| {
                let share = 100.0 * speed * operations / peak;
                format!(", {share:.0} % of what the processor can do")
            });
            print(&format!(
                "batch {batch}: {speed:.1} pictures/s, {:.0} GFLOP/s{share}",
                speed * operations / 1e9
            ))?;
            let stages: Vec<_> = figures
                .stages
                .iter()
                .map(|(name, share)| format!("{name} {:.1} %", 100.0 * share))
                .collect();
            if !stages.is_empty() {
                print(&format!("  {}", stages.join(", ")))?;
            }
        }
        Ok(Success::Done)
    }
}

/// Share of each stage in the time between two readings.
fn shares(
    before: &[(&'static str, Duration)],
    after: &[(&'static str, Duration)],
) -> Vec<(&'static str, f64)> {
    let spent = |(before, after): (&(_, Duration), &(&'static str, Duration))| {
        (after.0, after.1.saturating_sub(before.1).as_secs_f64())
    };
    let spent: Vec<_> = before.iter().zip(after).map(spent).collect();
    let total: f64 = spent.iter().map(|(_, seconds)| seconds).sum();
    spent
        .into_iter()
        .map(|(name, seconds)| (name, seconds / total.max(f64::MIN_POSITIVE)))
        .collect()
}

/// Operations of one picture, two for each product and sum, counted for all tokens of all blocks.
fn operations(config: &VitConfig, side: usize) -> u64 {
    let (dim, hidden) = (config.embed_dim as u64, config.ffn_hidden_dim as u64);
    let patches = ((side / PATCH_SIZE) as u64).pow(2);
    let tokens = patches + config.num_prefix_tokens() as u64;
    let matrices = 4 * dim * dim
        + match config.ffn {
            FfnKind::Mlp => 2 * dim * hidden,
            FfnKind::SwiGlu => 3 * dim * hidden,
        };
    let block = 2 * tokens * matrices + 4 * tokens * tokens * dim;
    let pixels = 3 * (PATCH_SIZE * PATCH_SIZE) as u64;
    config.depth as u64 * block + 2 * patches * pixels * dim
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_counted_by_hand() {
        let small = engine::vit::VARIANTS[0].config();
        // 12 x (24 N d^2 + 4 N^2 d) + 2 x 256 x 588 d, N = 257, d = 384.
        assert_eq!(operations(&small, 224), 12 * (909_508_608 + 101_451_264) + 115_605_504);
    }
}
