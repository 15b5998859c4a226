//! Which instructions the forward pass runs on: a table of kernels for each set, chosen at run
//! time.

mod tables;

use serde::{Deserialize, Serialize};

use super::block::Product;
use super::rows::{Normalise, PackValues, Scatter, Softmax, Sums, Tiles};
#[cfg(target_arch = "x86_64")]
use super::simd::{avx2, avx512};

/// Numbers that are multiplied; sums, normalisation and the residual stream are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit brain floats: 8 bits of precision, the range of f32.
    Bf16,
    /// 16-bit floats: 11 bits of precision, up to 65,504. On GPUs only.
    F16,
    /// Bytes between the attentions, with a scale for each row of either factor; bf16 within them
    /// and for the patches.
    Int8,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        })
    }
}

/// Instruction sets that kernels exist for, the fastest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain loops, anywhere.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL, with BF16 where the processor has it.
    Avx512,
    /// Intel AMX tiles for bf16 (Sapphire Rapids and later, Linux); f32 as AVX-512.
    Amx,
}

impl Isa {
    /// All of them, the fastest last.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Amx];

    /// The fastest this machine has.
    pub fn best() -> Self {
        let fastest = Self::ALL.into_iter().rev().find(|isa| isa.is_available());
        fastest.unwrap_or(Self::Portable)
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::is_available(),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => avx512::has_bf16() && super::amx::is_available(),
            #[allow(unreachable_patterns, reason = "other machines lack the sets named above")]
            _ => false,
        }
    }

    /// Name by which it is chosen and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }
}

/// Work between products, and the products, for one instruction set and precision.
///
/// # Safety
/// Each function needs arguments that describe memory which may be read and written as its
/// document (`block`, `rows`) says. That the processor has the instructions is known: a table is
/// handed out only then. Products of AMX need a [`Session`].
pub(crate) struct Kernel {
    /// Values of the inner axis in a lane of 32 bits.
    pub per_lane: usize,
    /// Column blocks of 16 in a panel of weights.
    pub panel: usize,
    /// Longest inner axis, in tiles, that is multiplied at once.
    pub depth: usize,
    tiles: bool,
    pub multiply: unsafe fn(&Product),
    pub normalise: unsafe fn(&Normalise),
    pub convert: unsafe fn(*const f32, usize, *mut f32),
    pub activate: unsafe fn(&Sums, &Tiles),
    pub gate: unsafe fn(&Sums, &Tiles),
    pub residual: unsafe fn(&Sums, *mut f32, usize),
    pub replace: unsafe fn(&Sums, *mut f32, usize),
    pub scatter: unsafe fn(&Sums, &Scatter),
    pub softmax: unsafe fn(&Softmax),
    pub rescale: unsafe fn(*mut f32, usize, usize, usize, *const f32),
    pub finish: unsafe fn(&Sums, &Tiles, usize),
    pub pack_values: unsafe fn(&PackValues),
    pub transpose: unsafe fn(*const f32, usize, *mut f32, usize),
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("per_lane", &self.per_lane)
            .field("panel", &self.panel)
            .field("tiles", &self.tiles)
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// The kernels of an instruction set; `None` where this machine lacks it. For int8 those of
    /// bf16, beside which [`Int8`](super::Int8) has the rest.
    pub(crate) fn of(isa: Isa, precision: Precision) -> Option<&'static Self> {
        if !isa.is_available() {
            return None;
        }
        Some(match (isa, precision) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::F32) => &tables::avx2_f32::KERNEL,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, _) => &tables::avx2_bf16::KERNEL,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Amx, Precision::F32) => &tables::avx512_f32::KERNEL,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, _) if avx512::has_bf16() => &tables::avx512_pairs::KERNEL,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, _) => &tables::avx512_bf16::KERNEL,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            (Isa::Amx, _) => &tables::amx_bf16::KERNEL,
            (_, Precision::F32) => &tables::portable_f32::KERNEL,
            (_, _) => &tables::portable_bf16::KERNEL,
        })
    }

    /// Prepares this thread for products, as long as the session lives.
    pub(crate) fn session(&self) -> Session {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.tiles {
            // SAFETY: tables with tiles are handed out only where AMX is available.
            #[expect(unsafe_code, reason = "tile registers have no safe form")]
            let config = unsafe { super::amx::TileConfig::load() };
            return Session(Some(config));
        }
        Session(None)
    }
}

/// A thread's right to the tile registers, where the kernels use them.
pub(crate) struct Session(
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[expect(dead_code, reason = "held for its drop")]
    Option<super::amx::TileConfig>,
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    #[expect(dead_code, reason = "there are no tiles here")]
    Option<()>,
);
