//! What CUDA's libraries report, in words.

use candle_core::cuda_backend::cudarc::cublaslt::result::CublasError;
use candle_core::cuda_backend::cudarc::cublaslt::sys::cublasStatus_t;
use candle_core::cuda_backend::cudarc::driver::DriverError;
use candle_core::cuda_backend::cudarc::driver::sys::cudaError_enum as Code;

use super::super::machine::Fault;
use crate::error::first_line;

pub(super) fn of_driver(error: DriverError) -> Fault {
    match error.0 {
        Code::CUDA_ERROR_OUT_OF_MEMORY => Fault::OutOfMemory,
        code => {
            let words = error.error_string().map(|text| text.to_string_lossy().into_owned());
            let words = words.unwrap_or_else(|_| "no description".to_owned());
            Fault::Broken(format!("{words} ({code:?})"))
        }
    }
}

pub(super) fn of_blas(error: CublasError) -> Fault {
    match error.0 {
        cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => Fault::OutOfMemory,
        status => Fault::Broken(format!("cuBLAS reports {status:?}")),
    }
}

pub(super) fn of_candle(error: &candle_core::Error) -> Fault {
    let words = first_line(error);
    if words.contains("OUT_OF_MEMORY") {
        return Fault::OutOfMemory;
    }
    // That is how a library answers that is not there.
    let missing = ["CUBLAS_STATUS_NOT_INITIALIZED", "CURAND_STATUS_INITIALIZATION_FAILED"];
    Fault::Broken(match missing.into_iter().any(|status| words.contains(status)) {
        true => format!(
            "a CUDA library does not start ({words}); libcublas.so.13, libcublasLt.so.13, \
             libcurand.so.10 and libnvrtc.so.13 must be where libraries are looked for, or in \
             CUDA_LIBRARY_DIRS (docs/gpu.md)"
        ),
        false => words,
    })
}
