//! Products of the shapes of a ViT-S training step: our bf16 kernels against candle's f32 product.
//!
//!     cargo bench --bench matmul
#![expect(clippy::print_stdout, reason = "a bench prints")]

use std::hint::black_box;
use std::time::Instant;

use candle_core::{Device, Tensor};
use engine::kernels::{Backend, Operand, matmul_bf16_on};

const ROUNDS: usize = 7;

fn gflops(work: f64, seconds: &mut [f64]) -> f64 {
    seconds.sort_unstable_by(f64::total_cmp);
    work / seconds[seconds.len() / 2] * 1e-9
}

fn main() -> Result<(), candle_core::Error> {
    println!("medians of {ROUNDS} interleaved rounds, GFLOP/s");
    let backends: Vec<Backend> = [Backend::Amx, Backend::Avx512]
        .into_iter()
        .filter(|backend| backend.is_available())
        .collect();
    // Tokens x width times weights, and the gradient of weights (a long inner axis).
    for (m, k, n) in [(4112, 384, 1152), (4112, 384, 1536), (4112, 1536, 384), (1536, 4112, 384)] {
        let a = Tensor::randn(0f32, 1.0, (m, k), &Device::Cpu)?;
        let b = Tensor::randn(0f32, 1.0, (n, k), &Device::Cpu)?;
        let (a_values, b_values) =
            (a.flatten_all()?.to_vec1::<f32>()?, b.flatten_all()?.to_vec1::<f32>()?);
        let mut out = vec![0f32; m * n];
        let mut times = vec![Vec::new(); backends.len() + 1];
        for _ in 0..ROUNDS {
            for (backend, times) in backends.iter().zip(&mut times) {
                let (a, b) = (Operand::new(&a_values, m, k), Operand::new(&b_values, n, k).t());
                let start = Instant::now();
                matmul_bf16_on(*backend, a, b, black_box(&mut out));
                times.push(start.elapsed().as_secs_f64());
            }
            let start = Instant::now();
            black_box(a.matmul(&b.t()?)?);
            times[backends.len()].push(start.elapsed().as_secs_f64());
        }
        let work = 2.0 * (m * k * n) as f64;
        let names = backends.iter().map(|b| format!("{b:?} bf16")).chain(["candle f32".into()]);
        let line: Vec<String> = names
            .zip(&mut times)
            .map(|(name, times)| format!("{name} {:.0}", gflops(work, times)))
            .collect();
        println!("{m} x {k} x {n}: {}", line.join(", "));
    }
    Ok(())
}
