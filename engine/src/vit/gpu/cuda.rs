//! A [`Machine`] that is an NVIDIA GPU: cuBLASLt for products, flash attention where it is built in,
//! kernels of our own for what is in between.
//!
//! Everything is queued on one stream by the one thread that owns the device, so candle's and cudarc's
//! event tracking is off; the one other stream, for copies, is ordered by events of our own.
#![expect(unsafe_code, reason = "kernels and libraries take pointers; see SAFETY")]

mod attention;
mod element;
mod fault;
mod lt;
mod open;
mod staging;

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::sys::{
    CUdeviceptr, CUgraphInstantiate_flags, CUstreamCaptureMode,
};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaGraph, CudaSlice, CudaStream, DevicePtr, LaunchConfig, PushKernelArg,
};
use candle_core::{CudaDevice, CudaStorage};

use self::element::Element;
use self::fault::{of_candle, of_driver};
use self::lt::{Epilogue, Factors, Lt, Shape};
use self::staging::Slot;
use super::super::config::{LAYER_NORM_EPS, PATCH_SIZE};
use super::folded::Dense;
use super::machine::{
    Activation, Affine, Fault, Heads, Machine, Pictures, Recording, Rows, SLOTS, TokenShape,
};
use super::plan::PATCH_ROW;

pub(crate) use self::open::start;

/// Threads of a block that has one row.
const THREADS: u32 = 128;
/// Blocks of a kernel that goes over a whole buffer, and their threads.
const BLOCKS: (u32, u32) = (1024, 256);

/// A GPU that multiplies numbers of type `T`.
pub(super) struct Cuda<T> {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    copies: Arc<CudaStream>,
    lt: Lt,
    kernels: Kernels,
    /// Normalised values of bytes, (3, 256).
    table: CudaSlice<f32>,
    slots: [Option<Slot>; SLOTS],
    /// Scores and weights of attention in pieces.
    scores: Option<(CudaSlice<f32>, CudaSlice<T>)>,
    /// The largest magnitude stored, as bits, while it is watched.
    largest: Option<CudaSlice<u32>>,
    graphs: HashMap<Recording, CudaGraph>,
}

struct Kernels {
    patches: CudaFunction,
    tokens: CudaFunction,
    norm: CudaFunction,
    norm_wide: CudaFunction,
    swiglu: CudaFunction,
    softmax: CudaFunction,
    gelu: CudaFunction,
    largest: CudaFunction,
}

/// A weight on the device, (outputs, inputs), with its bias in both precisions: products store in one of
/// them.
pub(super) struct Matrix<T> {
    weight: CudaSlice<T>,
    bias: Option<(CudaSlice<T>, CudaSlice<f32>)>,
    inputs: usize,
    outputs: usize,
}

/// Where a buffer lies.
fn address<V>(buffer: &CudaSlice<V>, stream: &CudaStream) -> CUdeviceptr {
    // The guard would note the use for other streams; here they are ordered by other means.
    buffer.device_ptr(stream).0
}

fn rows_of_threads(rows: usize, shared: usize) -> Result<LaunchConfig, Fault> {
    let rows = i32::try_from(rows).map_err(|_| {
        Fault::Refused(format!(
            "{rows} rows are more than a GPU takes at a time; use smaller batches"
        ))
    })?;
    Ok(LaunchConfig {
        grid_dim: (rows.unsigned_abs(), 1, 1),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: shared as u32,
    })
}

/// A buffer has room for what a call writes or reads: without it the device would fail as a whole.
fn holds(what: &str, has: usize, needed: usize) -> Result<(), Fault> {
    match has >= needed {
        true => Ok(()),
        false => Err(Fault::Refused(format!("{what} has {has} values, and {needed} are needed"))),
    }
}

impl<T: Element> Cuda<T> {
    fn allocate(&self, values: usize) -> Result<CudaStorage, Fault> {
        // SAFETY: the pass writes every buffer before it reads it.
        let slice = unsafe { self.device.alloc::<T>(values) }.map_err(|e| of_candle(&e))?;
        Ok(CudaStorage::wrap_cuda_slice(slice, self.device.clone()))
    }

    /// Notes the largest of what was just stored, if it is watched.
    fn look(&mut self, stored: &CudaStorage, values: usize) -> Result<(), Fault> {
        let Some(largest) = &mut self.largest else { return Ok(()) };
        let (stored, count) = (slice::<T>(stored)?, values as i64);
        holds("a buffer", stored.len(), values)?;
        let (blocks, threads) = BLOCKS;
        let config = LaunchConfig {
            grid_dim: (blocks, 1, 1),
            block_dim: (threads, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut launch = self.stream.launch_builder(&self.kernels.largest);
        launch.arg(stored).arg(&count).arg(largest);
        // SAFETY: `largest_*` reads `count` values, which are there, and writes one.
        unsafe { launch.launch(config) }.map(drop).map_err(of_driver)
    }

    fn layer_norm<V>(
        &self,
        kernel: &CudaFunction,
        x: &CudaSlice<f32>,
        rows: Rows,
        by: &Affine<CudaSlice<f32>>,
        out: &mut CudaSlice<V>,
    ) -> Result<(), Fault> {
        let dim = by.gain.len();
        holds("the residual stream", x.len(), (rows.count.max(1) - 1) * rows.step * dim + dim)?;
        holds("normed rows", out.len(), rows.count * dim)?;
        holds("a shift", by.shift.len(), dim)?;
        let (step, width, eps) = (rows.step as i64, dim as i32, LAYER_NORM_EPS as f32);
        let mut launch = self.stream.launch_builder(kernel);
        launch.arg(x).arg(&by.gain).arg(&by.shift).arg(out).arg(&step).arg(&width).arg(&eps);
        let config = rows_of_threads(rows.count, dim * size_of::<f32>())?;
        // SAFETY: `norm_*` reads rows up to the last one and writes `count` of them, all checked above,
        // and keeps one in the shared memory it is given.
        unsafe { launch.launch(config) }.map(drop).map_err(of_driver)
    }

    /// Checks a product and says how it is computed.
    fn linear(
        &self,
        x: &CudaStorage,
        rows: usize,
        by: &Matrix<T>,
        room: usize,
    ) -> Result<(Shape, CUdeviceptr), Fault> {
        let x = slice::<T>(x)?;
        holds("the rows of a product", x.len(), rows * by.inputs)?;
        holds("the result of a product", room, rows * by.outputs)?;
        Ok((Shape::linear(rows, by.inputs, by.outputs), address(x, &self.stream)))
    }
}

/// The values of a storage.
fn slice<T: Element>(storage: &CudaStorage) -> Result<&CudaSlice<T>, Fault> {
    storage.as_cuda_slice::<T>().map_err(|error| of_candle(&error))
}

fn slice_mut<T: Element>(storage: &mut CudaStorage) -> Result<&mut CudaSlice<T>, Fault> {
    storage.as_cuda_slice_mut::<T>().map_err(|error| of_candle(&error))
}

impl<T: Element> Machine for Cuda<T> {
    type Narrow = CudaStorage;
    type Wide = CudaSlice<f32>;
    type Matrix = Matrix<T>;

    fn matrix(&mut self, from: &Dense) -> Result<Matrix<T>, Fault> {
        let narrow = |values: &[f32]| values.iter().map(|&value| T::of(value)).collect::<Vec<_>>();
        let up = |values: &[T]| self.stream.clone_htod(values).map_err(of_driver);
        Ok(Matrix {
            weight: up(&narrow(&from.weight))?,
            bias: match from.bias.is_empty() {
                true => None,
                false => {
                    let wide = self.stream.clone_htod(&from.bias).map_err(of_driver)?;
                    Some((up(&narrow(&from.bias))?, wide))
                }
            },
            inputs: from.inputs,
            outputs: from.outputs(),
        })
    }

    fn upload(&mut self, values: &[f32]) -> Result<CudaSlice<f32>, Fault> {
        self.stream.clone_htod(values).map_err(of_driver)
    }

    fn narrow(&mut self, values: usize) -> Result<CudaStorage, Fault> {
        self.allocate(values)
    }

    fn wide(&mut self, values: usize) -> Result<CudaSlice<f32>, Fault> {
        // SAFETY: the pass writes every buffer before it reads it.
        unsafe { self.stream.alloc(values) }.map_err(of_driver)
    }

    fn stage(&mut self, slot: usize, pictures: &[&[u8]]) -> Result<(), Fault> {
        let bytes = pictures.iter().map(|picture| picture.len()).sum();
        if !self.slots[slot].as_ref().is_some_and(|place| place.holds(bytes)) {
            self.forget();
            // The old one first: there may not be room for both.
            self.slots[slot] = None;
            self.slots[slot] = Some(Slot::new(&self.stream, bytes).map_err(of_driver)?);
        }
        match &mut self.slots[slot] {
            Some(place) => place.fill(&self.copies, pictures).map_err(of_driver),
            None => Ok(()),
        }
    }

    fn await_slot(&mut self, slot: usize) -> Result<(), Fault> {
        filled(&self.slots, slot)?.await_copy(&self.stream).map_err(of_driver)
    }

    fn free_slot(&mut self, slot: usize) -> Result<(), Fault> {
        filled(&self.slots, slot)?.note_read(&self.stream).map_err(of_driver)
    }

    fn patches(
        &mut self,
        slot: usize,
        Pictures { batch, side }: Pictures,
        out: &mut CudaStorage,
    ) -> Result<(), Fault> {
        let bytes = filled(&self.slots, slot)?.bytes();
        let rows = batch * (side / PATCH_SIZE).pow(2);
        let out = slice_mut::<T>(out)?;
        holds("pictures", bytes.len(), batch * side * side * 3)?;
        holds("patches", out.len(), rows * PATCH_ROW)?;
        let (side, width) = (side as i32, PATCH_ROW as i32);
        let mut launch = self.stream.launch_builder(&self.kernels.patches);
        launch.arg(bytes).arg(&self.table).arg(out).arg(&side).arg(&width);
        // SAFETY: `patches_*` reads whole pictures and a table of 3 x 256, and writes `rows` rows.
        unsafe { launch.launch(rows_of_threads(rows, 0)?) }.map(drop).map_err(of_driver)
    }

    fn tokens(
        &mut self,
        patches: &CudaSlice<f32>,
        prefix: &CudaSlice<f32>,
        positions: &CudaSlice<f32>,
        shape: TokenShape,
        out: &mut CudaSlice<f32>,
    ) -> Result<(), Fault> {
        let TokenShape { batch, prefix: before, patches: count, dim } = shape;
        let rows = batch * (before + count);
        holds("products of patches", patches.len(), batch * count * dim)?;
        holds("prefix tokens", prefix.len(), before * dim)?;
        holds("positions", positions.len(), count * dim)?;
        holds("the residual stream", out.len(), rows * dim)?;
        let (before, count, dim) = (before as i32, count as i32, dim as i32);
        let mut launch = self.stream.launch_builder(&self.kernels.tokens);
        launch.arg(patches).arg(prefix).arg(positions).arg(out).arg(&before).arg(&count).arg(&dim);
        // SAFETY: `tokens` reads and writes what was checked above.
        unsafe { launch.launch(rows_of_threads(rows, 0)?) }.map(drop).map_err(of_driver)
    }

    fn product(
        &mut self,
        x: &CudaStorage,
        rows: usize,
        by: &Matrix<T>,
        act: Activation,
        out: &mut CudaStorage,
    ) -> Result<(), Fault> {
        let (plain, a) = self.linear(x, rows, by, slice::<T>(out)?.len())?;
        // The library's GELU is an approximation that f32 is too fine for.
        let apart = act == Activation::Gelu && T::EXACT;
        let epilogue = match (&by.bias, act) {
            (None, _) => Epilogue::Plain,
            (Some(_), Activation::Gelu) if !apart => Epilogue::BiasGelu,
            (Some(_), _) => Epilogue::Bias,
        };
        let shape = Shape { types: [T::KIND; 2], epilogue, ..plain };
        let c = address(slice_mut::<T>(out)?, &self.stream);
        let bias = by.bias.as_ref().map_or(0, |(bias, _)| address(bias, &self.stream));
        let factors = Factors { a: address(&by.weight, &self.stream), b: a, c, bias };
        // SAFETY: lengths were checked; the result is borrowed mutably.
        unsafe { self.lt.multiply(shape, factors) }?;
        if apart {
            self.gelu(out, rows * by.outputs)?;
        }
        self.look(out, rows * by.outputs)
    }

    fn product_wide(
        &mut self,
        x: &CudaStorage,
        rows: usize,
        by: &Matrix<T>,
        add: bool,
        out: &mut CudaSlice<f32>,
    ) -> Result<(), Fault> {
        let (plain, b) = self.linear(x, rows, by, out.len())?;
        let shape = Shape {
            types: [T::KIND, f32::KIND],
            epilogue: if by.bias.is_some() { Epilogue::Bias } else { Epilogue::Plain },
            add,
            ..plain
        };
        let bias = by.bias.as_ref().map_or(0, |(_, bias)| address(bias, &self.stream));
        let (a, c) = (address(&by.weight, &self.stream), address(out, &self.stream));
        // SAFETY: lengths were checked; the result is borrowed mutably.
        unsafe { self.lt.multiply(shape, Factors { a, b, c, bias }) }
    }

    fn norm(
        &mut self,
        x: &CudaSlice<f32>,
        rows: Rows,
        by: &Affine<CudaSlice<f32>>,
        out: &mut CudaStorage,
    ) -> Result<(), Fault> {
        self.layer_norm(&self.kernels.norm, x, rows, by, slice_mut::<T>(out)?)?;
        self.look(out, rows.count * by.gain.len())
    }

    fn norm_wide(
        &mut self,
        x: &CudaSlice<f32>,
        rows: Rows,
        by: &Affine<CudaSlice<f32>>,
        out: &mut CudaSlice<f32>,
    ) -> Result<(), Fault> {
        self.layer_norm(&self.kernels.norm_wide, x, rows, by, out)
    }

    fn attention(&mut self, qkv: &CudaStorage, shape: Heads) -> Result<CudaStorage, Fault> {
        let out = self.attend(qkv, shape)?;
        self.look(&out, shape.batch * shape.tokens * shape.heads * shape.width)?;
        Ok(out)
    }

    fn swiglu(
        &mut self,
        x: &CudaStorage,
        rows: usize,
        hidden: usize,
        out: &mut CudaStorage,
    ) -> Result<(), Fault> {
        let (from, to) = (slice::<T>(x)?, slice_mut::<T>(out)?);
        holds("gates", from.len(), rows * 2 * hidden)?;
        holds("gated rows", to.len(), rows * hidden)?;
        let width = hidden as i32;
        let mut launch = self.stream.launch_builder(&self.kernels.swiglu);
        launch.arg(from).arg(to).arg(&width);
        // SAFETY: `swiglu_*` reads and writes `rows` rows, checked above.
        unsafe { launch.launch(rows_of_threads(rows, 0)?) }.map(drop).map_err(of_driver)?;
        self.look(out, rows * hidden)
    }

    fn download(
        &mut self,
        from: &CudaSlice<f32>,
        values: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), Fault> {
        holds("a result", from.len(), values)?;
        let start = out.len();
        out.resize(start + values, 0.0);
        let (view, to) = (from.slice(..values), &mut out[start..]);
        self.stream.memcpy_dtoh(&view, to).map_err(of_driver)?;
        self.stream.synchronize().map_err(of_driver)
    }

    fn narrow_bytes(&self) -> usize {
        size_of::<T>()
    }

    fn in_pieces(&self, width: usize) -> bool {
        !attention::is_flash::<T>(width)
    }

    fn memory(&mut self) -> Result<(u64, u64), Fault> {
        self.stream.synchronize().map_err(of_driver)?;
        // What the pool keeps for later is free to us.
        open::trim_pool(&self.stream);
        let (free, total) = self.stream.context().mem_get_info().map_err(of_driver)?;
        Ok((free as u64, total as u64))
    }

    fn watch(&mut self) -> Result<(), Fault> {
        self.largest = Some(self.stream.alloc_zeros(1).map_err(of_driver)?);
        Ok(())
    }

    fn watched(&mut self) -> Result<f32, Fault> {
        let Some(largest) = self.largest.take() else { return Ok(0.0) };
        let bits = self.stream.clone_dtoh(&largest).map_err(of_driver)?;
        self.stream.synchronize().map_err(of_driver)?;
        Ok(f32::from_bits(bits.first().copied().unwrap_or(0)))
    }

    fn record(&mut self) -> Result<bool, Fault> {
        // Memory that attention takes on the way must be part of the recording.
        if !self.stream.context().has_async_alloc() || self.largest.is_some() {
            return Ok(false);
        }
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map(|()| true).map_err(of_driver)
    }

    fn keep(&mut self, key: Recording) -> Result<(), Fault> {
        let graph = self.stream.end_capture(CUgraphInstantiate_flags(0)).map_err(of_driver)?;
        let graph = graph.ok_or_else(|| Fault::Broken("a recording is empty".to_owned()))?;
        self.graphs.insert(key, graph);
        Ok(())
    }

    fn replay(&mut self, key: Recording) -> Result<bool, Fault> {
        let Some(graph) = self.graphs.get(&key) else { return Ok(false) };
        graph.launch().map(|()| true).map_err(of_driver)
    }

    fn forget(&mut self) {
        // One may be running. Should this fail, the next call says why.
        let _ = self.stream.synchronize();
        self.graphs.clear();
    }
}

fn filled(slots: &[Option<Slot>; SLOTS], slot: usize) -> Result<&Slot, Fault> {
    slots[slot].as_ref().ok_or_else(|| Fault::Refused("no pictures were staged".to_owned()))
}
