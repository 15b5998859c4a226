//! The tables of kernels: what is written once, compiled for each instruction set.

use super::super::block::{self, Product};
use super::super::rows::{self, Normalise, PackValues, Scatter, Softmax, Sums, Tiles};
use super::super::simd::{Bf16, F32, Format, Portable, Simd};
#[cfg(target_arch = "x86_64")]
use super::super::simd::{avx2::Avx2, avx512::Avx512, avx512::Avx512Bf16};
use super::Kernel;

/// A module with the functions of one table and the table, `KERNEL`.
macro_rules! kernel {
    (
        $(#[$gate:meta])* $name:ident: $simd:ty, $format:ty, $(#[$features:meta])*
        { panel: $panel:literal, depth: $depth:literal, tiles: $tiles:literal, multiply: $multiply:expr }
    ) => {
        $(#[$gate])*
        #[expect(unsafe_code, reason = "pointers and instructions behind a table")]
        pub(super) mod $name {
            use super::*;

            $(#[$features])*
            unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
                // SAFETY: the contract of a table.
                unsafe { <$simd>::transpose(from, stride, to, to_stride) }
            }

            $(#[$features])*
            unsafe fn normalise(n: &Normalise) {
                // SAFETY: the contract of a table.
                unsafe { rows::normalise::<$simd, $format>(n) }
            }

            $(#[$features])*
            unsafe fn convert(from: *const f32, width: usize, to: *mut f32) {
                // SAFETY: the contract of a table.
                unsafe { rows::convert::<$simd, $format>(from, width, to) }
            }

            $(#[$features])*
            unsafe fn activate(s: &Sums, t: &Tiles) {
                // SAFETY: the contract of a table.
                unsafe { rows::activate::<$simd, $format>(s, t) }
            }

            $(#[$features])*
            unsafe fn gate(s: &Sums, t: &Tiles) {
                // SAFETY: the contract of a table.
                unsafe { rows::gate::<$simd, $format>(s, t) }
            }

            $(#[$features])*
            unsafe fn residual(s: &Sums, x: *mut f32, stride: usize) {
                // SAFETY: the contract of a table.
                unsafe { rows::residual::<$simd, $format>(s, x, stride) }
            }

            $(#[$features])*
            unsafe fn replace(s: &Sums, x: *mut f32, stride: usize) {
                // SAFETY: the contract of a table.
                unsafe { rows::replace::<$simd, $format>(s, x, stride) }
            }

            $(#[$features])*
            unsafe fn scatter(s: &Sums, t: &Scatter) {
                // SAFETY: the contract of a table.
                unsafe { rows::scatter::<$simd, $format>(s, t) }
            }

            $(#[$features])*
            unsafe fn softmax(s: &Softmax) {
                // SAFETY: the contract of a table.
                unsafe { rows::softmax::<$simd, $format>(s) }
            }

            $(#[$features])*
            unsafe fn rescale(x: *mut f32, stride: usize, rows: usize, width: usize, factors: *const f32) {
                // SAFETY: the contract of a table.
                unsafe { rows::rescale::<$simd, $format>(x, stride, rows, width, factors) }
            }

            $(#[$features])*
            unsafe fn finish(s: &Sums, t: &Tiles, first: usize) {
                // SAFETY: the contract of a table.
                unsafe { rows::finish::<$simd, $format>(s, t, first) }
            }

            $(#[$features])*
            unsafe fn pack_values(p: &PackValues) {
                // SAFETY: the contract of a table.
                unsafe { rows::pack_values::<$simd, $format>(p) }
            }

            pub(in super::super) static KERNEL: Kernel = Kernel {
                per_lane: <$format>::PER_LANE,
                panel: $panel,
                depth: $depth,
                tiles: $tiles,
                multiply: $multiply,
                transpose,
                normalise,
                convert,
                activate,
                gate,
                residual,
                replace,
                scatter,
                softmax,
                rescale,
                finish,
                pack_values,
            };
        }
    };
}

/// The product of one instruction set, so many rows and vectors of columns at a time.
macro_rules! product {
    ($(#[$gate:meta])* $name:ident: $simd:ty, $format:ty, $rows:literal x $vectors:literal, $(#[$features:meta])*) => {
        $(#[$gate])*
        $(#[$features])*
        #[expect(unsafe_code, reason = "pointers and instructions behind a table")]
        unsafe fn $name(p: &Product) {
            // SAFETY: the contract of a table.
            unsafe { block::multiply::<$simd, $format, $rows, $vectors>(p) }
        }
    };
}

product!( portable_f32_product: Portable, F32, 4 x 1, );
product!( portable_bf16_product: Portable, Bf16, 4 x 1, );
product!(#[cfg(target_arch = "x86_64")] avx2_bf16_product: Avx2, Bf16, 2 x 3, #[target_feature(enable = "avx2,fma")]);
product!(#[cfg(target_arch = "x86_64")] avx512_f32_product: Avx512, F32, 8 x 3, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]);
product!(#[cfg(target_arch = "x86_64")] avx512_bf16_product: Avx512, Bf16, 8 x 2, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]);
product!(#[cfg(target_arch = "x86_64")] avx512_pairs_product: Avx512Bf16, Bf16, 8 x 3, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]);

kernel!( portable_f32: Portable, F32,  { panel: 3, depth: 64, tiles: false, multiply: portable_f32_product });
kernel!( portable_bf16: Portable, Bf16,  { panel: 2, depth: 64, tiles: false, multiply: portable_bf16_product });
kernel!(#[cfg(target_arch = "x86_64")] avx2_f32: Avx2, F32, #[target_feature(enable = "avx2,fma")] { panel: 3, depth: 8, tiles: false, multiply: crate::kernels::avx2::product });
kernel!(#[cfg(target_arch = "x86_64")] avx2_bf16: Avx2, Bf16, #[target_feature(enable = "avx2,fma")] { panel: 3, depth: 64, tiles: false, multiply: avx2_bf16_product });
kernel!(#[cfg(target_arch = "x86_64")] avx512_f32: Avx512, F32, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")] { panel: 3, depth: 64, tiles: false, multiply: avx512_f32_product });
kernel!(#[cfg(target_arch = "x86_64")] avx512_bf16: Avx512, Bf16, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")] { panel: 3, depth: 64, tiles: false, multiply: avx512_bf16_product });
kernel!(#[cfg(target_arch = "x86_64")] avx512_pairs: Avx512Bf16, Bf16, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")] { panel: 3, depth: 64, tiles: false, multiply: avx512_pairs_product });
kernel!(#[cfg(all(target_arch = "x86_64", target_os = "linux"))] amx_bf16: Avx512Bf16, Bf16, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")] { panel: 2, depth: 32, tiles: true, multiply: crate::kernels::amx::product });
