//! Finding GPUs and making them ready.
#![expect(unsafe_code, reason = "settings of the driver have no safe form; see SAFETY")]

use std::sync::Arc;

use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::{CudaStream, DriverError, sys};
use half::{bf16, f16};

use super::super::folded::Folded;
use super::super::machine::Fault;
use super::super::{Choices, GpuVit};
use super::element::Element;
use super::fault::{of_candle, of_driver};
use super::lt::Lt;
use super::{Cuda, Kernels};
use crate::error::{EngineError, Result};
use crate::kernels::Precision;
use crate::preprocess::normalisation_table;

/// What `build.rs` compiled `kernels.cu` to.
const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// Brings a backbone to GPUs, by number.
///
/// # Errors
/// [`EngineError::Device`] names the one that cannot be used, and why.
pub(crate) fn start(gpus: &[usize], from: Folded, choices: Choices) -> Result<GpuVit> {
    let names: Vec<String> = gpus.iter().map(|gpu| format!("cuda:{gpu}")).collect();
    let gpus = gpus.to_vec();
    match choices.precision {
        Precision::F32 => GpuVit::load(names, move |n| Cuda::<f32>::open(gpus[n]), from, choices),
        Precision::Bf16 => GpuVit::load(names, move |n| Cuda::<bf16>::open(gpus[n]), from, choices),
        Precision::F16 => GpuVit::load(names, move |n| Cuda::<f16>::open(gpus[n]), from, choices),
        Precision::Int8 => Err(EngineError::Device {
            name: names.join(","),
            reason: "int8 is for CPUs; use --matmul bf16 or f32, or --device cpu".to_owned(),
        }),
    }
}

impl<T: Element> Cuda<T> {
    /// Opens the GPU of this number, for the thread that calls.
    fn open(gpu: usize) -> Result<Self, Fault> {
        // The stream is this thread's own.
        let device = Device::new_cuda(gpu).map_err(|error| of_candle(&error))?;
        let device = device.as_cuda_device().map_err(|error| of_candle(&error))?.clone();
        let stream = device.cuda_stream();
        let context = Arc::clone(stream.context());
        let (major, minor) = context.compute_capability().map_err(of_driver)?;
        if major < 8 {
            return Err(Fault::Refused(format!(
                "it is of compute capability {major}.{minor}, and this program's kernels need 8.0 \
                 (Ampere) or newer; use --device cpu"
            )));
        }
        // SAFETY: this thread alone uses the device's memory, all on one stream; the other stream's copies
        // are ordered by `Slot`.
        unsafe { device.disable_event_tracking() };
        keep_pool(&stream).map_err(of_driver)?;
        let copies = context.new_stream().map_err(of_driver)?;
        let table: Vec<f32> = (0..3).flat_map(normalisation_table).collect();
        Ok(Self {
            lt: Lt::new(&stream)?,
            kernels: Kernels::load::<T>(&device)?,
            table: stream.clone_htod(&table).map_err(of_driver)?,
            slots: [None, None],
            scores: None,
            largest: None,
            graphs: std::collections::HashMap::new(),
            copies,
            stream,
            device,
        })
    }
}

impl Kernels {
    fn load<T: Element>(device: &candle_core::CudaDevice) -> Result<Self, Fault> {
        let load = |name: &str| {
            let function = device.get_or_load_custom_func(name, "akin", PTX);
            function.map(|f| f.into_cuda_function()).map_err(|error| of_candle(&error))
        };
        let own = |name: &str| load(&format!("{name}_{}", T::NAME));
        Ok(Self {
            patches: own("patches")?,
            tokens: load("tokens")?,
            norm: own("norm")?,
            norm_wide: load("norm_f32")?,
            swiglu: own("swiglu")?,
            softmax: own("softmax")?,
            gelu: load("gelu_f32")?,
            largest: own("largest")?,
        })
    }
}

/// Has the driver keep freed memory for what comes next: by default every synchronisation gives it back.
fn keep_pool(stream: &CudaStream) -> Result<(), DriverError> {
    if !stream.context().has_async_alloc() {
        return Ok(());
    }
    let pool = pool(stream)?;
    let mut most = u64::MAX;
    let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool is the device's own, and the attribute is 64 bits wide.
    unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut most).cast()) }.result()
}

/// Gives memory that nobody uses back to the system; what cannot be given back stays.
pub(super) fn trim_pool(stream: &CudaStream) {
    if let (true, Ok(pool)) = (stream.context().has_async_alloc(), pool(stream)) {
        // SAFETY: the pool is the device's own.
        let _ = unsafe { sys::cuMemPoolTrimTo(pool, 0) }.result();
    }
}

fn pool(stream: &CudaStream) -> Result<sys::CUmemoryPool, DriverError> {
    let mut pool = std::ptr::null_mut();
    // SAFETY: the device is live, and the pool is written on success.
    unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, stream.context().cu_device()) }.result()?;
    Ok(pool)
}
