//! Numbers that a GPU multiplies.

use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::cublaslt::sys::cudaDataType_t;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, ValidAsZeroBits};
use half::{bf16, f16};

/// A type of factors.
pub(in super::super) trait Element:
    CudaDType + DeviceRepr + ValidAsZeroBits + Copy + 'static
{
    /// Ending of the names of its kernels.
    const NAME: &'static str;
    const KIND: cudaDataType_t;
    /// Whether approximations that half precision hides would show.
    const EXACT: bool;

    fn of(value: f32) -> Self;
}

impl Element for f32 {
    const NAME: &'static str = "f32";
    const KIND: cudaDataType_t = cudaDataType_t::CUDA_R_32F;
    const EXACT: bool = true;

    fn of(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";
    const KIND: cudaDataType_t = cudaDataType_t::CUDA_R_16BF;
    const EXACT: bool = false;

    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Element for f16 {
    const NAME: &'static str = "f16";
    const KIND: cudaDataType_t = cudaDataType_t::CUDA_R_16F;
    const EXACT: bool = false;

    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
}
