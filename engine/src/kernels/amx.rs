//! 32 x 32 blocks of a bf16 product on Intel AMX, in four tile registers.
#![expect(unsafe_code, reason = "machine instructions that have no safe form")]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

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
