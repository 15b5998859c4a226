//! Products of bytes (W8A8): weights with one scale a column, made when a model is loaded, times
//! rows with a scale each, made on the way.
//!
//! A row's values are stored as bytes without sign, as the instructions want them: signed ones plus
//! 128, which is taken away again where the sums of a column start; those of GELU, which is never
//! below -0.17, as what they are above that, which goes into the bias. Sums are 32-bit whole numbers
//! and exact, so that a product has the same bits on every instruction set.

mod rows;
mod tables;
#[cfg(test)]
mod tests;

use super::block::Product;
use super::isa::Isa;
use super::rows::Normalise;
#[cfg(target_arch = "x86_64")]
use super::simd::{avx2, avx512};
pub(crate) use rows::Quantise;

/// What is taken from GELU's values before they are stored: its least one, -0.16997, and a little
/// for the polynomial.
pub(crate) const GELU_LEAST: f32 = -0.1701;

/// Most that a signed value is stored as.
pub(super) const LARGEST: f32 = 127.0;

/// Products of bytes and the way into them, for one instruction set; all else is done by the
/// [`Kernel`](super::Kernel) of bf16 beside it.
///
/// # Safety
/// As of a [`Kernel`](super::Kernel).
pub(crate) struct Int8 {
    /// Column blocks of 16 in a panel of weights.
    pub panel: usize,
    pub multiply: unsafe fn(&Product),
    /// Rows, normalised and multiplied with a factor for each value, to bytes, and the rows' scales.
    pub normalise: unsafe fn(&Normalise, *const f32, *mut f32),
    pub quantise: unsafe fn(&Quantise),
}

impl std::fmt::Debug for Int8 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Int8").field("panel", &self.panel).finish_non_exhaustive()
    }
}

impl Int8 {
    /// Values of the inner axis in a lane of 32 bits.
    pub(crate) const PER_LANE: usize = 4;

    /// The fastest products within an instruction set; `None` where this machine lacks it.
    pub(crate) fn of(isa: Isa) -> Option<&'static Self> {
        Self::all(isa).pop()
    }

    /// Everything an instruction set can do on this machine, the fastest last.
    fn all(isa: Isa) -> Vec<&'static Self> {
        if !isa.is_available() {
            return Vec::new();
        }
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                let vnni = avx2::has_vnni().then_some(&tables::avx2_vnni::INT8);
                [Some(&tables::avx2::INT8), vnni].into_iter().flatten().collect()
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                let vnni = avx512::has_vnni().then_some(&tables::avx512_vnni::INT8);
                [Some(&tables::avx512::INT8), vnni].into_iter().flatten().collect()
            }
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Isa::Amx => {
                let amx = super::amx::has_int8().then_some(&tables::amx::INT8);
                Self::all(Isa::Avx512).into_iter().chain(amx).collect()
            }
            _ => vec![&tables::portable::INT8],
        }
    }
}
