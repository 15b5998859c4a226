//! One step of self-supervised training, ViT-S/14, 2 crops of 224 px and 8 of 98 px, drop path 0.4:
//! packing, skipping and memory-efficient attention against separate passes, masked drop path and
//! attention weights that are kept. Each way runs in a process of its own, whose peak memory is
//! read from /proc (Linux). The same in PyTorch: fixtures/reference/bench_ssl_step.py.
//!
//!     cargo bench --bench ssl_step -- [BATCH] [ROUNDS]
#![expect(clippy::print_stdout, reason = "a bench prints")]

use std::time::Instant;

use candle_core::{Device, Tensor};
use engine::train::augment::generator;
use engine::train::head::HeadConfig;
use engine::train::ops::MatmulPrecision;
use engine::train::ssl::{Execution, SslBatch, SslConfig, SslTrainer};
use engine::train::{DropPlan, Student};
use engine::vit::{PosEmbedRule, VitConfig};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const WAYS: [&str; 5] =
    ["plain f32", "ours f32", "ours f32 checkpointed", "plain bf16", "ours bf16"];

fn main() -> Result {
    // cargo passes --bench.
    let words: Vec<String> = std::env::args().skip(1).filter(|w| !w.starts_with("--")).collect();
    let number = |i: usize, default| words.get(i).and_then(|w| w.parse().ok()).unwrap_or(default);
    let (batch, rounds) = (number(0, 2), number(1, 3));
    if let Some(way) = words.get(2) {
        return measure(way, batch, rounds);
    }
    println!("ViT-S/14, {batch} pictures x (2 x 224 + 8 x 98 px), drop path 0.4, 4096 prototypes");
    for way in WAYS {
        let arguments = [batch.to_string(), rounds.to_string(), way.to_owned()];
        let done = std::process::Command::new(std::env::current_exe()?).args(arguments).status()?;
        if !done.success() {
            return Err(format!("{way} failed").into());
        }
    }
    Ok(())
}

/// A value of /proc/self/status, in MiB.
fn memory(key: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().ok()? / 1024)
}

fn measure(way: &str, count: usize, rounds: usize) -> Result {
    let cpu = Device::Cpu;
    let precision = match way.contains("bf16") {
        true => MatmulPrecision::Bf16,
        false => MatmulPrecision::F32,
    };
    let execution =
        Execution { plain: way.starts_with("plain"), checkpointing: way.ends_with("checkpointed") };
    let config = SslConfig {
        head: HeadConfig { prototypes: 4096, ..HeadConfig::default() },
        drop_path: 0.4,
        warmup: 0,
        ..SslConfig::published(1000, count)
    };
    let shape = VitConfig::mlp(384, 12, 6, 16);
    let backbone = Student::random(shape, PosEmbedRule::Published, precision, &cpu, 0)?;
    let mut run = SslTrainer::new(config.clone(), execution, backbone, precision)?;
    let mut rng = generator(0, "bench", [0, 0]);
    let groups = [2 * count, 8 * count];
    let batch = SslBatch {
        globals: Tensor::randn(0f32, 1.0, (groups[0], 3, 224, 224), &cpu)?,
        locals: Some(Tensor::randn(0f32, 1.0, (groups[1], 3, 98, 98), &cpu)?),
        masks: config.masking.draw(groups[0], (16, 16), &mut rng),
        drop_path: Some(DropPlan::draw(&mut rng, 12, &groups, config.drop_path)),
    };
    let before = memory("VmRSS:");
    let mut times = Vec::new();
    for _ in 0..=rounds {
        let start = Instant::now();
        run.step_on(std::slice::from_ref(&batch))?;
        times.push(start.elapsed().as_secs_f64());
    }
    // The first is warm-up.
    times.remove(0);
    times.sort_unstable_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
    let peak = match (memory("VmHWM:"), before) {
        (Some(peak), Some(before)) => {
            format!("peak {peak} MiB, {} of them for the step", peak - before)
        }
        _ => "peak memory unknown".to_owned(),
    };
    println!("{way:22} {median:7.2} s a step (median of {rounds}), {peak}");
    Ok(())
}
