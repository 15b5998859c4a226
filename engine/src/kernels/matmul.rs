//! Matrix products of f32 data with bf16 factors and f32 sums.

use half::bf16;
use rayon::prelude::*;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::tiles::Kernel;

/// Rows of the result computed by one task.
pub(super) const PANEL_ROWS: usize = 128;

/// One factor of a product: a row-major matrix (f32 or f64), perhaps read transposed.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a, T = f32> {
    pub(super) values: &'a [T],
    /// Length of a stored row.
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) transposed: bool,
}

impl<'a, T: Copy> Operand<'a, T> {
    /// A (rows, columns) matrix stored row by row.
    ///
    /// # Panics
    /// `values` does not hold `rows * columns` values.
    pub fn new(values: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "a {rows} x {columns} matrix");
        Self { values, stride: columns, rows, columns, transposed: false }
    }

    /// The transpose, without moving anything.
    #[must_use]
    pub fn t(self) -> Self {
        let Self { rows, columns, transposed, .. } = self;
        Self { rows: columns, columns: rows, transposed: !transposed, ..self }
    }

    fn at(&self, row: usize, column: usize) -> T {
        let (row, column) = if self.transposed { (column, row) } else { (row, column) };
        self.values[row * self.stride + column]
    }
}

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Plain loops, anywhere.
    Portable,
    /// Dot products of bf16 pairs (AVX-512 BF16, Linux).
    Avx512,
    /// Intel AMX tiles (Sapphire Rapids and later, Linux).
    Amx,
}

impl Backend {
    /// The fastest one this machine has.
    pub fn best() -> Self {
        [Self::Amx, Self::Avx512].into_iter().find(|b| b.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        return self.kernel().is_none_or(Kernel::is_available);
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        return self == Self::Portable;
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn kernel(self) -> Option<Kernel> {
        match self {
            Self::Portable => None,
            Self::Avx512 => Some(Kernel::Avx512),
            Self::Amx => Some(Kernel::Amx),
        }
    }
}

/// `out = a b`: factors rounded to bf16 (to nearest, ties to even), products and sums in f32.
///
/// `a` is (M, K), `b` (K, N), `out` (M, N) row-major and overwritten. The order of summation is
/// the backend's own, but fixed: the result does not depend on the number of threads.
///
/// # Panics
/// The shapes do not fit.
pub fn matmul_bf16(a: Operand<'_>, b: Operand<'_>, out: &mut [f32]) {
    matmul_bf16_on(Backend::best(), a, b, out);
}

/// [`matmul_bf16`] on a chosen backend; one that is not there is replaced by the portable one.
///
/// # Panics
/// The shapes do not fit.
pub fn matmul_bf16_on(backend: Backend, a: Operand<'_>, b: Operand<'_>, out: &mut [f32]) {
    assert_eq!(a.columns, b.rows, "the factors share their inner length");
    assert_eq!(out.len(), a.rows * b.columns, "the result is {} x {}", a.rows, b.columns);
    if out.is_empty() {
        return;
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if backend.kernel().is_some_and(|kernel| super::tiles::matmul(kernel, a, b, out)) {
        return;
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    let _ = backend;
    portable(a, b, out);
}

/// `out = a b` in f32 throughout, on the calling thread: for products inside parallel work.
///
/// # Panics
/// The shapes do not fit.
pub fn matmul_f32(a: Operand<'_>, b: Operand<'_>, out: &mut [f32]) {
    product(a, b, out, 0.0, 1.0);
}

/// [`matmul_f32`] in f64.
///
/// # Panics
/// The shapes do not fit.
pub fn matmul_f64(a: Operand<'_, f64>, b: Operand<'_, f64>, out: &mut [f64]) {
    product(a, b, out, 0.0, 1.0);
}

#[expect(unsafe_code, reason = "the library takes pointers")]
fn product<T: Copy + 'static>(
    a: Operand<'_, T>,
    b: Operand<'_, T>,
    out: &mut [T],
    zero: T,
    one: T,
) {
    assert_eq!(a.columns, b.rows, "the factors share their inner length");
    assert_eq!(out.len(), a.rows * b.columns, "the result is {} x {}", a.rows, b.columns);
    let strides = |operand: Operand<'_, T>| match operand.transposed {
        false => (1, operand.stride as isize),
        true => (operand.stride as isize, 1),
    };
    let ((a_column, a_row), (b_column, b_row)) = (strides(a), strides(b));
    let (m, n, k) = (a.rows, b.columns, a.columns);
    // SAFETY: an operand holds rows x columns values at these strides (`Operand::new`), and `out`
    // m x n; `out` is not read, and is no part of the factors, being borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.values.as_ptr(),
            a_column,
            a_row,
            b.values.as_ptr(),
            b_column,
            b_row,
            zero,
            one,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

fn portable(a: Operand<'_>, b: Operand<'_>, out: &mut [f32]) {
    let width = b.columns;
    let round = |x: f32| bf16::from_f32(x).to_f32();
    let b_rows: Vec<f32> =
        (0..b.rows).flat_map(|k| (0..width).map(move |n| round(b.at(k, n)))).collect();
    out.par_chunks_mut(width).enumerate().for_each(|(m, row)| {
        row.fill(0.0);
        for (k, b_row) in b_rows.chunks_exact(width).enumerate() {
            let factor = round(a.at(m, k));
            row.iter_mut().zip(b_row).for_each(|(sum, b)| *sum += factor * b);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, mut state: u64) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn portable_agrees_with_a_product_in_f64() {
        let (a, b) = (noise(5 * 7, 1), noise(7 * 3, 2));
        let mut out = vec![f32::NAN; 15];
        let (a, b) = (Operand::new(&a, 5, 7), Operand::new(&b, 3, 7).t());
        matmul_bf16_on(Backend::Portable, a, b, &mut out);
        for (i, got) in out.iter().enumerate() {
            let want: f64 = (0..7)
                .map(|k| {
                    let (x, y) = (bf16::from_f32(a.at(i / 3, k)), bf16::from_f32(b.at(k, i % 3)));
                    x.to_f64() * y.to_f64()
                })
                .sum();
            assert!((f64::from(*got) - want).abs() < 1e-5, "{i}: {got} {want}");
        }
    }

    #[test]
    fn amx_agrees_with_the_portable_kernel() {
        compare(Backend::Amx);
    }

    #[test]
    fn avx512_agrees_with_the_portable_kernel() {
        compare(Backend::Avx512);
    }

    /// Odd sizes, every transposition.
    fn compare(backend: Backend) {
        if !backend.is_available() {
            skip(backend);
            return;
        }
        let sizes = [1, 2, 15, 16, 17, 31, 33, 64, 131, 257, 384, 1100];
        let shapes = sizes
            .iter()
            .flat_map(|&s| [(s, 33, 65), (40, s, 17), (129, 48, s), (s, s.min(70), s.min(90))]);
        for (m, n, k) in shapes {
            let (a, b) = (noise(m * k, 3), noise(k * n, 4));
            for (at, bt) in [(false, false), (false, true), (true, false), (true, true)] {
                let a = if at { Operand::new(&a, k, m).t() } else { Operand::new(&a, m, k) };
                let b = if bt { Operand::new(&b, n, k).t() } else { Operand::new(&b, k, n) };
                let (mut want, mut got) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
                matmul_bf16_on(Backend::Portable, a, b, &mut want);
                matmul_bf16_on(backend, a, b, &mut got);
                let limit = 2e-6 * k as f32 + 1e-6;
                for (i, (w, g)) in want.iter().zip(&got).enumerate() {
                    assert!((w - g).abs() <= limit, "{m}x{n}x{k} {at}{bt} at {i}: {g} not {w}");
                }
            }
        }
    }

    fn skip(backend: Backend) {
        eprintln!("skipped: this machine has no {backend:?}");
    }
}
