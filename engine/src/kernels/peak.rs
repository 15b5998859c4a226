//! What the processor can do at most: products that never leave its first caches.
#![expect(unsafe_code, reason = "the kernels take pointers")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::block::{Product, Scales};
use super::int8::Int8;
use super::isa::{Isa, Kernel, Precision};
use super::packed::{Lanes, TILE};
use super::simd::BLOCK;
use super::team::Team;

/// Rows and tiles of the inner axis of the product that is repeated: factors of 36 KiB.
const ROWS: usize = 32;
const DEPTH: usize = 8;

/// Operations a second (two for each product and sum) of all threads together, repeating one small
/// product for `time`; `None` where this machine lacks the instructions.
pub fn peak(isa: Isa, precision: Precision, time: Duration) -> Option<f64> {
    let kernel = Kernel::of(isa, precision)?;
    let team = Team::global();
    let (multiply, panel, per_lane) = match precision {
        Precision::Int8 => Int8::of(isa).map(|int8| (int8.multiply, int8.panel, Int8::PER_LANE))?,
        _ => (kernel.multiply, kernel.panel, kernel.per_lane),
    };
    let width = panel * BLOCK;
    let operations = (2 * ROWS * DEPTH * BLOCK * per_lane * width) as u64;
    let total = AtomicU64::new(0);
    let start = Instant::now();
    team.run(&|_| {
        let _session = kernel.session();
        let a = Lanes::new(2 * DEPTH * TILE);
        let b = Lanes::new(DEPTH * BLOCK * width);
        let mut out = Lanes::new(ROWS * width);
        let scales = Lanes::new(ROWS + 2 * width);
        let scales = scales.as_ptr();
        let product = Product {
            a: a.as_ptr(),
            a_tile_row: DEPTH * TILE,
            rows: ROWS,
            b: b.as_ptr(),
            b_stride: width,
            depth: DEPTH,
            blocks: panel,
            out: out.as_mut_ptr(),
            out_row: width,
            out_tile_row: BLOCK * width,
            out_block: BLOCK,
            accumulate: false,
            scales: Scales {
                start: scales,
                rows: scales.wrapping_add(width),
                columns: scales.wrapping_add(width + ROWS),
            },
        };
        while start.elapsed() < time {
            // SAFETY: the buffers hold what the product describes.
            (0..32).for_each(|_| unsafe { multiply(&product) });
            total.fetch_add(32 * operations, Ordering::Relaxed);
        }
    });
    Some(total.into_inner() as f64 / start.elapsed().as_secs_f64())
}
