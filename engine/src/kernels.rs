//! Our own CPU kernels, chosen at run time: the only place with hand-written machine code.
//!
//! Every kernel has a portable twin that defines its result; tests compare the two on odd sizes.

pub(crate) mod elementwise;
pub(crate) mod blend;
mod matmul;
mod half;
mod bytes;
mod prefetch;
mod simd;
mod block;
mod rows;
mod packed;
mod team;
mod peak;
mod isa;
mod int8;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod avx512;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles;

pub(crate) use block::{Product, Scales};
pub(crate) use int8::{Int8, Quantise};
pub(crate) use isa::Kernel;
pub(crate) use packed::{ALIGN, Lanes, Left, Matrix, Plan, Stored, TILE};
pub(crate) use rows::{Normalise, PackValues, Scatter, Softmax, Sums, Tiles};
pub(crate) use simd::BLOCK;
pub(crate) use team::{Barrier, Team};

pub use self::bytes::dot_i8;
pub use self::half::dot_f16;
pub use isa::{Isa, Precision};
pub use matmul::{Backend, Operand, matmul_bf16, matmul_bf16_on, matmul_f32, matmul_f64};
pub use peak::peak;
pub use prefetch::prefetch;

/// Sum of products of two vectors (the shorter one counts), f32. The same bits on every machine.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    elementwise::dot(a, b)
}
