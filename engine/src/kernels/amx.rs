//! 32 x 32 blocks of a bf16 product on Intel AMX, in four tile registers.
#![expect(unsafe_code, reason = "machine instructions that have no safe form")]

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use super::block::Product;
use super::tiles::{SIDE, Tile};

/// Whether the processor has the instructions and the kernel lets this process use them. Asked
/// once.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        const AMX_BF16: u32 = 1 << 22;
        const AMX_TILE: u32 = 1 << 24;
        let instructions = __cpuid_count(7, 0).edx;
        instructions & (AMX_BF16 | AMX_TILE) == (AMX_BF16 | AMX_TILE)
            && super::avx512::is_available()
            && request_permission()
    })
}

/// Whether the tiles multiply bytes too, where they are [available](is_available).
pub(super) fn has_int8() -> bool {
    const AMX_INT8: u32 = 1 << 25;
    is_available() && __cpuid_count(7, 0).edx & AMX_INT8 != 0
}

/// Asks Linux for the tile registers, which it grants per process.
fn request_permission() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call with integer arguments that touches no memory of ours; on kernels
    // that do not know it, it returns an error.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Shapes of the eight tile registers, loaded for as long as this lives.
pub(super) struct TileConfig;

impl TileConfig {
    /// # Safety
    /// [`is_available`] has returned `true`.
    pub(super) unsafe fn load() -> Self {
        #[repr(C, align(64))]
        struct Palette([u8; 64]);
        let mut palette = Palette([0; 64]);
        palette.0[0] = 1;
        for tile in 0..8 {
            palette.0[16 + 2 * tile] = 64; // bytes a row, 16 bits little-endian
            palette.0[48 + tile] = SIDE as u8; // rows
        }
        // SAFETY: reads the 64 bytes given; the caller knows that the process may use tiles.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &palette, options(nostack, readonly)) };
        Self
    }
}

impl Drop for TileConfig {
    fn drop(&mut self) {
        // SAFETY: gives the registers back; nothing of ours lives in them between kernels.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// One 32 x 32 block: `a` and `b` hold two strips of `len / 2` tiles each.
///
/// # Safety
/// A [`TileConfig`] is loaded on this thread, and `out` points to 32 rows of 32 values, `stride`
/// values apart.
pub(super) unsafe fn multiply(
    a: &[Tile],
    b: &[Tile],
    accumulate: bool,
    out: *mut f32,
    stride: usize,
) {
    let depth = a.len() / 2;
    assert!(depth > 0 && a.len() == 2 * depth && b.len() == 2 * depth);
    let (a0, a1) = (a.as_ptr(), a[depth..].as_ptr());
    let (b0, b1) = (b.as_ptr(), b[depth..].as_ptr());
    let bytes = stride * size_of::<f32>();
    // SAFETY: the lower half starts 16 of the caller's 32 rows further on.
    let below = unsafe { out.add(SIDE * stride) };
    // SAFETY: the loop reads `depth` (at least one) tiles of 1,024 bytes from each of the four
    // strips, which is their length; loads and stores of the result stay inside the caller's block.
    unsafe {
        asm!(
            "test {accumulate:e}, {accumulate:e}",
            "jz 3f",
            "tileloadd tmm0, [{out} + {bytes}]",
            "tileloadd tmm1, [{out} + {bytes} + 64]",
            "tileloadd tmm2, [{below} + {bytes}]",
            "tileloadd tmm3, [{below} + {bytes} + 64]",
            "jmp 2f",
            "3:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm6, [{b0} + {row}]",
            "tileloadd tmm4, [{a0} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {row}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 1024",
            "add {a1}, 1024",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{out} + {bytes}], tmm0",
            "tilestored [{out} + {bytes} + 64], tmm1",
            "tilestored [{below} + {bytes}], tmm2",
            "tilestored [{below} + {bytes} + 64], tmm3",
            accumulate = in(reg) u32::from(accumulate),
            a0 = inout(reg) a0 => _,
            a1 = inout(reg) a1 => _,
            b0 = inout(reg) b0 => _,
            b1 = inout(reg) b1 => _,
            depth = inout(reg) depth => _,
            row = in(reg) 64usize,
            out = in(reg) out,
            below = in(reg) below,
            bytes = in(reg) bytes,
            options(nostack),
        );
    }
}

/// The loop along the inner axis: loads and products of one step, for as many tiles as the product
/// is deep.
macro_rules! multiply_along {
    ($p:expr, $($line:expr),* $(,)?) => {{
        let p: &Product = $p;
        asm!(
            "2:",
            $($line,)*
            "add {a0}, 1024",
            "add {a1}, 1024",
            "add {b}, {b_step}",
            "dec {depth}",
            "jnz 2b",
            a0 = inout(reg) p.a => _,
            a1 = inout(reg) p.a.wrapping_add(p.a_tile_row) => _,
            b = inout(reg) p.b => _,
            depth = inout(reg) p.depth => _,
            row = in(reg) 64usize,
            b_row = in(reg) p.b_stride * size_of::<f32>(),
            b_step = in(reg) p.b_stride * size_of::<f32>() * SIDE,
            options(nostack, readonly),
        )
    }};
}

/// The product of a kind of numbers, by its instruction.
macro_rules! multiply_by {
    ($p:expr, $dot:literal) => {{
        let p: &Product = $p;
        match (p.rows > SIDE, p.blocks > 1) {
            (true, true) => multiply_along!(
                p,
                "tileloadd tmm6, [{b} + {b_row}]",
                "tileloadd tmm4, [{a0} + {row}]",
                concat!($dot, " tmm0, tmm4, tmm6"),
                "tileloadd tmm7, [{b} + {b_row} + 64]",
                concat!($dot, " tmm1, tmm4, tmm7"),
                "tileloadd tmm5, [{a1} + {row}]",
                concat!($dot, " tmm2, tmm5, tmm6"),
                concat!($dot, " tmm3, tmm5, tmm7"),
            ),
            (true, false) => multiply_along!(
                p,
                "tileloadd tmm6, [{b} + {b_row}]",
                "tileloadd tmm4, [{a0} + {row}]",
                concat!($dot, " tmm0, tmm4, tmm6"),
                "tileloadd tmm5, [{a1} + {row}]",
                concat!($dot, " tmm2, tmm5, tmm6"),
            ),
            (false, true) => multiply_along!(
                p,
                "tileloadd tmm4, [{a0} + {row}]",
                "tileloadd tmm6, [{b} + {b_row}]",
                concat!($dot, " tmm0, tmm4, tmm6"),
                "tileloadd tmm7, [{b} + {b_row} + 64]",
                concat!($dot, " tmm1, tmm4, tmm7"),
            ),
            (false, false) => multiply_along!(
                p,
                "tileloadd tmm4, [{a0} + {row}]",
                "tileloadd tmm6, [{b} + {b_row}]",
                concat!($dot, " tmm0, tmm4, tmm6"),
            ),
        }
    }};
}

/// A product of tiles of bf16 and a panel: up to 32 rows and two column blocks, in four tiles of
/// sums that stay in registers along the inner axis.
///
/// # Safety
/// A [`TileConfig`] is loaded on this thread, and the product describes memory that may be read,
/// and written in `out` by whole groups of 16 rows.
pub(super) unsafe fn product(p: &Product) {
    debug_assert!(p.depth > 0 && (1..=2 * SIDE).contains(&p.rows) && (1..=2).contains(&p.blocks));
    let begin = if p.accumulate { Sums::Load } else { Sums::Zero };
    // SAFETY: the second row of tiles and column block are touched only where the product has them.
    unsafe {
        sums(p, begin);
        multiply_by!(p, "tdpbf16ps");
        sums(p, Sums::Store);
    }
}

/// [`product`] of bytes: sums are whole numbers, which are scaled at the end.
///
/// # Safety
/// As `product`, on a processor that [`has_int8`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn product_of_bytes(p: &Product) {
    debug_assert!(p.depth > 0 && (1..=2 * SIDE).contains(&p.rows) && (1..=2).contains(&p.blocks));
    // SAFETY: as in `product`; scales are there for each row and column.
    unsafe {
        sums(p, Sums::Start);
        // Left factor without sign, right one with it.
        multiply_by!(p, "tdpbusd");
        sums(p, Sums::Store);
        for row in 0..p.rows {
            let out = p.out.add(row / SIDE * p.out_tile_row + row % SIDE * p.out_row);
            let scale = _mm512_set1_ps(*p.scales.rows.add(row));
            for block in 0..p.blocks {
                let at = out.add(block * p.out_block);
                let sums = _mm512_cvtepi32_ps(_mm512_loadu_si512(at.cast()));
                let columns = _mm512_loadu_ps(p.scales.columns.add(block * SIDE));
                _mm512_storeu_ps(at, _mm512_mul_ps(_mm512_mul_ps(sums, scale), columns));
            }
        }
    }
}

/// What happens to the tiles of sums before a product or after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sums {
    Zero,
    Load,
    /// Every row starts from the same whole numbers.
    Start,
    Store,
}

/// Sets or stores the tiles of sums: tmm0 and tmm1 are the first 16 rows, tmm2 and tmm3 the second.
#[inline(always)]
unsafe fn sums(p: &Product, what: Sums) {
    let (lower, right) = (p.rows > SIDE, p.blocks > 1);
    /// One instruction on a tile of the result, or of what all its rows start from.
    macro_rules! at {
        ($instruction:literal, $out:expr, $stride:expr) => {
            asm!($instruction, out = in(reg) $out, stride = in(reg) $stride, options(nostack))
        };
    }
    let out = |rows: usize, blocks: usize| {
        p.out.wrapping_add(rows * p.out_tile_row + blocks * p.out_block)
    };
    let stride = p.out_row * size_of::<f32>();
    // SAFETY: only the tiles of the product's rows and columns are touched, in memory its caller
    // vouches for.
    unsafe {
        match what {
            Sums::Store => {
                at!("tilestored [{out} + {stride}], tmm0", out(0, 0), stride);
                if right {
                    at!("tilestored [{out} + {stride}], tmm1", out(0, 1), stride);
                }
                if lower {
                    at!("tilestored [{out} + {stride}], tmm2", out(1, 0), stride);
                }
                if lower && right {
                    at!("tilestored [{out} + {stride}], tmm3", out(1, 1), stride);
                }
            }
            Sums::Load => {
                at!("tileloadd tmm0, [{out} + {stride}]", out(0, 0), stride);
                if right {
                    at!("tileloadd tmm1, [{out} + {stride}]", out(0, 1), stride);
                }
                if lower {
                    at!("tileloadd tmm2, [{out} + {stride}]", out(1, 0), stride);
                }
                if lower && right {
                    at!("tileloadd tmm3, [{out} + {stride}]", out(1, 1), stride);
                }
            }
            Sums::Start => {
                let start = |blocks: usize| p.scales.start.wrapping_add(blocks * SIDE);
                at!("tileloadd tmm0, [{out} + {stride}]", start(0), 0usize);
                at!("tileloadd tmm2, [{out} + {stride}]", start(0), 0usize);
                if right {
                    at!("tileloadd tmm1, [{out} + {stride}]", start(1), 0usize);
                    at!("tileloadd tmm3, [{out} + {stride}]", start(1), 0usize);
                }
            }
            Sums::Zero => asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, nomem)
            ),
        }
    }
}
