//! The tables of kernels: what is written once, compiled for each instruction set.

use super::super::block::{self, Product};
use super::super::rows::Normalise;
use super::super::simd::{Bytes, Portable};
#[cfg(target_arch = "x86_64")]
use super::super::simd::{
    avx2::{Avx2, Avx2Vnni},
    avx512::{Avx512, Avx512Vnni},
};
use super::{Int8, Quantise, rows};

/// A module with the functions of one table and the table, `INT8`. Products are so many rows and
/// vectors of columns at a time, or another function's.
macro_rules! int8 {
    (
        $(#[$gate:meta])* $name:ident: $simd:ty, $rows:literal x $vectors:literal, $(#[$features:meta])*
        { panel: $panel:literal $(, multiply: $multiply:expr)? }
    ) => {
        $(#[$gate])*
        #[expect(unsafe_code, reason = "pointers and instructions behind a table")]
        pub(super) mod $name {
            use super::*;

            $(#[$features])*
            unsafe fn normalise(n: &Normalise, factors: *const f32, scales: *mut f32) {
                // SAFETY: the contract of a table.
                unsafe { rows::normalise::<$simd>(n, factors, scales) }
            }

            $(#[$features])*
            unsafe fn quantise(q: &Quantise) {
                // SAFETY: the contract of a table.
                unsafe { rows::quantise::<$simd>(q) }
            }

            int8!(@product $simd, $rows x $vectors, [$(#[$features])*] $($multiply)?);

            pub(in super::super) static INT8: Int8 =
                Int8 { panel: $panel, multiply: MULTIPLY, normalise, quantise };
        }
    };
    (@product $simd:ty, $rows:literal x $vectors:literal, [$(#[$features:meta])*]) => {
        $(#[$features])*
        unsafe fn product(p: &Product) {
            // SAFETY: the contract of a table.
            unsafe { block::multiply::<$simd, Bytes, $rows, $vectors>(p) }
        }

        const MULTIPLY: unsafe fn(&Product) = product;
    };
    (@product $simd:ty, $rows:literal x $vectors:literal, [$(#[$features:meta])*] $multiply:expr) => {
        const MULTIPLY: unsafe fn(&Product) = $multiply;
    };
}

int8!(portable: Portable, 4 x 1, { panel: 3 });
int8!(#[cfg(target_arch = "x86_64")] avx2: Avx2, 4 x 2, #[target_feature(enable = "avx2,fma")] { panel: 3 });
int8!(#[cfg(target_arch = "x86_64")] avx2_vnni: Avx2Vnni, 4 x 3, #[target_feature(enable = "avx2,fma,avxvnni")] { panel: 3 });
int8!(#[cfg(target_arch = "x86_64")] avx512: Avx512, 8 x 2, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")] { panel: 3 });
int8!(#[cfg(target_arch = "x86_64")] avx512_vnni: Avx512Vnni, 8 x 3, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")] { panel: 3 });
int8!(#[cfg(all(target_arch = "x86_64", target_os = "linux"))] amx: Avx512, 8 x 2, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")] { panel: 2, multiply: crate::kernels::amx::product_of_bytes });
