//! Attention over packed queries, keys and values: by candle's flash attention where it is built in and
//! knows the width of a head, else through scores in memory, a piece of one picture at a time.
#![expect(unsafe_code, reason = "kernels and libraries take pointers; see SAFETY")]

use candle_core::CudaStorage;
use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, LaunchConfig, PushKernelArg};

use super::super::machine::{Fault, Heads, Machine};
use super::super::plan::Pieces;
use super::element::Element;
use super::fault::of_driver;
use super::lt::{Epilogue, Factors, Shape};
use super::{BLOCKS, Cuda, address, holds, rows_of_threads, slice};

/// Width of heads for which flash attention is compiled: that of all released backbones. With the
/// program's usual build, kernels for other widths are left out and must not be called.
const FLASH_WIDTH: usize = 64;

/// Whether heads of this width go through flash attention.
pub(super) fn is_flash<T: Element>(width: usize) -> bool {
    cfg!(feature = "flash") && !T::EXACT && width == FLASH_WIDTH
}

impl<T: Element> Cuda<T> {
    pub(super) fn attend(&mut self, qkv: &CudaStorage, shape: Heads) -> Result<CudaStorage, Fault> {
        let Heads { batch, tokens, heads, width } = shape;
        let needed = batch * tokens * 3 * heads * width;
        holds("queries, keys and values", slice::<T>(qkv)?.len(), needed)?;
        #[cfg(feature = "flash")]
        if is_flash::<T>(width) {
            return flash(qkv, shape);
        }
        self.in_memory(qkv, shape)
    }

    fn in_memory(&mut self, qkv: &CudaStorage, shape: Heads) -> Result<CudaStorage, Fault> {
        let Heads { batch, tokens, heads, width } = shape;
        let dim = heads * width;
        let out = self.allocate(batch * tokens * dim)?;
        let pieces = Pieces::of(tokens, heads);
        self.make_scores(pieces.scores())?;
        let Some((scores, weights)) = self.scores.take() else { return Ok(out) };
        let start = address(slice::<T>(qkv)?, &self.stream);
        let to = address(slice::<T>(&out)?, &self.stream);
        let bytes = |values: usize| (values * size_of::<T>()) as CUdeviceptr;
        let mut run = || -> Result<(), Fault> {
            for picture in 0..batch {
                let row = |token: usize, part: usize| {
                    start + bytes(((picture * tokens + token) * 3 + part) * dim)
                };
                for queries in pieces.ranges() {
                    let first = queries.start;
                    let piece = Piece { shape, queries: queries.len(), stride: pieces.stride };
                    let factors = Factors {
                        a: row(0, 1),
                        b: row(first, 0),
                        c: address(&scores, &self.stream),
                        bias: 0,
                    };
                    // SAFETY: keys and queries lie within `qkv`, checked by the caller; scores have room
                    // for the largest piece.
                    unsafe { self.lt.multiply(piece.scores::<T>(), factors) }?;
                    self.softmax(&scores, &weights, piece)?;
                    let factors = Factors {
                        a: row(0, 2),
                        b: address(&weights, &self.stream),
                        c: to + bytes((picture * tokens + first) * dim),
                        bias: 0,
                    };
                    // SAFETY: as above; the rows of these queries lie within `out`.
                    unsafe { self.lt.multiply(piece.values::<T>(), factors) }?;
                }
            }
            Ok(())
        };
        let done = run();
        self.scores = Some((scores, weights));
        done.map(|()| out)
    }

    /// Room for the scores of a piece.
    fn make_scores(&mut self, values: usize) -> Result<(), Fault> {
        if self.scores.as_ref().is_some_and(|(scores, _)| scores.len() >= values) {
            return Ok(());
        }
        self.forget();
        self.scores = None;
        // SAFETY: written by the product and by `softmax_*` before they are read.
        let made = unsafe { (self.stream.alloc(values), self.stream.alloc(values)) };
        self.scores = Some((made.0.map_err(of_driver)?, made.1.map_err(of_driver)?));
        Ok(())
    }

    fn softmax(
        &self,
        scores: &CudaSlice<f32>,
        weights: &CudaSlice<T>,
        piece: Piece,
    ) -> Result<(), Fault> {
        let Piece { shape, queries, stride } = piece;
        let rows = shape.heads * queries;
        holds("scores", scores.len().min(weights.len()), rows * stride)?;
        let (count, stride) = (shape.tokens as i32, stride as i32);
        let scale = (shape.width as f32).powf(-0.5);
        let mut launch = self.stream.launch_builder(&self.kernels.softmax);
        launch.arg(scores).arg(weights).arg(&count).arg(&stride).arg(&scale);
        // SAFETY: `softmax_*` reads and writes `rows` rows of `stride` values, checked above; the weights
        // belong to this call alone.
        unsafe { launch.launch(rows_of_threads(rows, 0)?) }.map(drop).map_err(of_driver)
    }

    /// The exact GELU, in place.
    pub(super) fn gelu(&self, x: &CudaStorage, values: usize) -> Result<(), Fault> {
        let (x, count) = (slice::<f32>(x)?, values as i64);
        holds("a buffer", x.len(), values)?;
        let (blocks, threads) = BLOCKS;
        let config = LaunchConfig {
            grid_dim: (blocks, 1, 1),
            block_dim: (threads, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut launch = self.stream.launch_builder(&self.kernels.gelu);
        launch.arg(x).arg(&count);
        // SAFETY: `gelu_f32` reads and writes `count` values; the caller holds them mutably.
        unsafe { launch.launch(config) }.map(drop).map_err(of_driver)
    }
}

/// Some queries of all heads of a picture, against all its keys.
#[derive(Clone, Copy)]
struct Piece {
    shape: Heads,
    queries: usize,
    stride: usize,
}

impl Piece {
    /// `S = Q K^T` for every head: row-major (queries, stride), f32.
    fn scores<T: Element>(self) -> Shape {
        let Heads { tokens, heads, width, .. } = self.shape;
        let packed = 3 * heads * width;
        Shape {
            m: tokens,
            n: self.queries,
            k: width,
            transposed: true,
            columns: [packed, packed, self.stride],
            batch: heads,
            steps: [width, width, self.queries * self.stride],
            types: [T::KIND, f32::KIND],
            epilogue: Epilogue::Plain,
            add: false,
        }
    }

    /// `O = P V` for every head, each to its own columns of the output's rows.
    fn values<T: Element>(self) -> Shape {
        let Heads { tokens, heads, width, .. } = self.shape;
        let dim = heads * width;
        Shape {
            m: width,
            n: self.queries,
            k: tokens,
            transposed: false,
            columns: [3 * dim, self.stride, dim],
            batch: heads,
            steps: [width, self.queries * self.stride, width],
            types: [T::KIND; 2],
            epilogue: Epilogue::Plain,
            add: false,
        }
    }
}

/// On strided views of the packed buffer: nothing is copied.
#[cfg(feature = "flash")]
fn flash(qkv: &CudaStorage, shape: Heads) -> Result<CudaStorage, Fault> {
    use candle_core::{CustomOp3, Layout, Shape};

    let Heads { batch, tokens, heads, width } = shape;
    let dim = heads * width;
    let view = |part: usize| {
        let strides = vec![tokens * 3 * dim, 3 * dim, width, 1];
        Layout::new(Shape::from((batch, tokens, heads, width)), strides, part * dim)
    };
    let attention = candle_flash_attn::FlashAttn {
        softmax_scale: (width as f32).powf(-0.5),
        alibi_slopes: None,
        window_size_left: None,
        window_size_right: None,
        softcap: None,
    };
    let out = attention.cuda_fwd(qkv, &view(0), qkv, &view(1), qkv, &view(2));
    out.map(|(out, _)| out).map_err(|error| super::of_candle(&error))
}
