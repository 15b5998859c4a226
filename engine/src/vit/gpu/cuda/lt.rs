//! Products through cuBLASLt: bias, GELU and the residual sum are part of the product. How a shape is
//! multiplied is asked once and remembered.
#![expect(unsafe_code, reason = "the library takes pointers; see SAFETY")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream};

use super::super::machine::Fault;
use super::address;
use super::fault::{of_blas, of_driver};

/// What NVIDIA recommends for Hopper; older devices take less of it.
const WORKSPACE: usize = 32 << 20;

/// What comes after the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Epilogue {
    Plain,
    Bias,
    BiasGelu,
}

/// A product `C = A B` of column-major matrices, once or for a batch: A is (m, k), B (k, n), C (m, n).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Whether A is stored as (k, m).
    pub(super) transposed: bool,
    /// Values from one column of A, B and C to the next.
    pub(super) columns: [usize; 3],
    pub(super) batch: usize,
    /// Values from one matrix of the batch to the next.
    pub(super) steps: [usize; 3],
    /// Type of A and B, and of C and the bias.
    pub(super) types: [sys::cudaDataType_t; 2],
    pub(super) epilogue: Epilogue,
    /// Whether the product is added to C.
    pub(super) add: bool,
}

impl Shape {
    /// `y = x W^T` for row-major x (rows, inputs), W (outputs, inputs) and y (rows, outputs).
    pub(super) fn linear(rows: usize, inputs: usize, outputs: usize) -> Self {
        Self {
            m: outputs,
            n: rows,
            k: inputs,
            transposed: true,
            columns: [inputs, inputs, outputs],
            batch: 1,
            steps: [0; 3],
            types: [sys::cudaDataType_t::CUDA_R_32F; 2],
            epilogue: Epilogue::Plain,
            add: false,
        }
    }
}

/// A, B, C and the bias, which is read only if the epilogue has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors {
    pub(super) a: CUdeviceptr,
    pub(super) b: CUdeviceptr,
    pub(super) c: CUdeviceptr,
    pub(super) bias: CUdeviceptr,
}

/// The library on one stream.
pub(super) struct Lt {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    stream: Arc<CudaStream>,
    plans: HashMap<Shape, Plan>,
}

impl Lt {
    pub(super) fn new(stream: &Arc<CudaStream>) -> Result<Self, Fault> {
        // SAFETY: the library writes its workspace before it reads it.
        let workspace = unsafe { stream.alloc(WORKSPACE) }.map_err(of_driver)?;
        let handle = result::create_handle().map_err(of_blas)?;
        Ok(Self { handle, workspace, stream: Arc::clone(stream), plans: HashMap::new() })
    }

    /// Queues a product.
    ///
    /// # Safety
    /// The factors are memory of this device that holds what the shape describes, 16-byte aligned, and
    /// nothing else uses C meanwhile.
    pub(super) unsafe fn multiply(&mut self, shape: Shape, by: Factors) -> Result<(), Fault> {
        if !self.plans.contains_key(&shape) {
            // SAFETY: the handle is live.
            let plan =
                unsafe { Plan::new(self.handle, &shape, by.bias) }.map_err(
                    |error| match of_blas(error) {
                        Fault::Broken(reason) => {
                            Fault::Broken(format!("no way to compute {shape:?}: {reason}"))
                        }
                        other => other,
                    },
                )?;
            self.plans.insert(shape, plan);
        }
        let Some(plan) = self.plans.get(&shape) else { return Ok(()) };
        let (alpha, beta) = (1f32, if shape.add { 1f32 } else { 0f32 });
        // SAFETY: descriptors are live and describe the factors, as the caller promises; the workspace is
        // used by this stream alone.
        unsafe {
            plan.set_bias(by.bias).map_err(of_blas)?;
            result::matmul(
                self.handle,
                plan.operation,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                by.a as *const c_void,
                plan.layouts[0],
                by.b as *const c_void,
                plan.layouts[1],
                by.c as *const c_void,
                plan.layouts[2],
                by.c as *mut c_void,
                plan.layouts[2],
                &plan.algorithm,
                address(&self.workspace, &self.stream) as *mut c_void,
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        }
        .map_err(of_blas)
    }
}

impl Drop for Lt {
    fn drop(&mut self) {
        self.plans.clear();
        // SAFETY: it is not used again. What it says to that interests nobody.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// How one shape is multiplied.
struct Plan {
    operation: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
    has_bias: bool,
}

impl Plan {
    /// # Safety
    /// The handle is live.
    unsafe fn new(
        handle: sys::cublasLtHandle_t,
        shape: &Shape,
        bias: CUdeviceptr,
    ) -> Result<Self, result::CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let f32_type = sys::cudaDataType_t::CUDA_R_32F;
        let operation =
            result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, f32_type)?;
        // Owns the descriptor from here on.
        let mut plan = Self {
            operation,
            layouts: [std::ptr::null_mut(); 3],
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
            has_bias: shape.epilogue != Epilogue::Plain,
        };
        let epilogue = match shape.epilogue {
            Epilogue::Plain => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            Epilogue::Bias => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            Epilogue::BiasGelu => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS,
        };
        let stored = match shape.transposed {
            true => (shape.k, shape.m),
            false => (shape.m, shape.k),
        };
        let sizes = [stored, (shape.k, shape.n), (shape.m, shape.n)];
        let types = [shape.types[0], shape.types[0], shape.types[1]];
        // SAFETY: attributes are read by the calls, with the types that the library documents.
        unsafe {
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &i32::from(shape.transposed))?;
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &0i32)?;
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            plan.set_bias(bias)?;
            for (at, (rows, columns)) in sizes.into_iter().enumerate() {
                plan.layouts[at] = result::create_matrix_layout(
                    types[at],
                    rows as u64,
                    columns as u64,
                    shape.columns[at] as i64,
                )?;
                if shape.batch > 1 {
                    batched(plan.layouts[at], shape.batch, shape.steps[at])?;
                }
            }
            let wish = Wish(result::create_matmul_pref()?);
            let bytes = WORKSPACE as u64;
            result::set_matmul_pref_attribute(
                wish.0,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const bytes).cast(),
                size_of::<u64>(),
            )?;
            let [a, b, c] = plan.layouts;
            let found =
                result::get_matmul_algo_heuristic(handle, plan.operation, a, b, c, c, wish.0)?;
            plan.algorithm = found.algo;
        }
        Ok(plan)
    }

    /// # Safety
    /// The value has the type of the attribute.
    unsafe fn set<V>(
        &self,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: &V,
    ) -> Result<(), result::CublasError> {
        let value: *const V = value;
        // SAFETY: the descriptor is live, the value as large as said.
        unsafe {
            result::set_matmul_desc_attribute(
                self.operation,
                attribute,
                value.cast(),
                size_of::<V>(),
            )
        }
    }

    /// # Safety
    /// As for [`Lt::multiply`].
    unsafe fn set_bias(&self, bias: CUdeviceptr) -> Result<(), result::CublasError> {
        let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        // SAFETY: an address is what the attribute takes.
        if self.has_bias { unsafe { self.set(attribute, &bias) } } else { Ok(()) }
    }
}

/// # Safety
/// The layout is live.
unsafe fn batched(
    layout: sys::cublasLtMatrixLayout_t,
    count: usize,
    step: usize,
) -> Result<(), result::CublasError> {
    use sys::cublasLtMatrixLayoutAttribute_t as Attribute;
    let (count, step) = (count as i32, step as i64);
    // SAFETY: both attributes have these types.
    unsafe {
        result::set_matrix_layout_attribute(
            layout,
            Attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
            (&raw const count).cast(),
            size_of::<i32>(),
        )?;
        result::set_matrix_layout_attribute(
            layout,
            Attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
            (&raw const step).cast(),
            size_of::<i64>(),
        )
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: made by the library, and not used again.
        unsafe {
            for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
                let _ = result::destroy_matrix_layout(layout);
            }
            let _ = result::destroy_matmul_desc(self.operation);
        }
    }
}

/// What is asked of an algorithm.
struct Wish(sys::cublasLtMatmulPreference_t);

impl Drop for Wish {
    fn drop(&mut self) {
        // SAFETY: made by the library, and not used again.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
