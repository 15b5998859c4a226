// What comes between products of the forward pass, for f32, bf16 and f16. Sums are f32 always. Each
// kernel's meaning is that of the loop of the same name in `plain.rs`; the grid is one block a row
// unless it says otherwise. Offsets are 64 bits wide.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#ifndef SHARED_ROW  // tools/check-kernels.cpp brings its own
#define SHARED_ROW extern __shared__ float row[]
#endif

typedef __nv_bfloat16 bf16;
typedef __half f16;

static __device__ __forceinline__ float widen(float v) { return v; }
static __device__ __forceinline__ float widen(bf16 v) { return __bfloat162float(v); }
static __device__ __forceinline__ float widen(f16 v) { return __half2float(v); }

template <typename T> __device__ __forceinline__ T narrow(float v);
template <> __device__ __forceinline__ float narrow<float>(float v) { return v; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float v) { return __float2bfloat16_rn(v); }
template <> __device__ __forceinline__ f16 narrow<f16>(float v) { return __float2half_rn(v); }

struct Sum {
    static __device__ __forceinline__ float of(float a, float b) { return a + b; }
    static __device__ __forceinline__ float none() { return 0.0f; }
};
struct Most {
    static __device__ __forceinline__ float of(float a, float b) { return fmaxf(a, b); }
    static __device__ __forceinline__ float none() { return -INFINITY; }
};

// One value of all threads of a block, whose size is a multiple of 32, given to each of them.
template <typename How> static __device__ float together(float value) {
    __shared__ float warps[32];
    __syncthreads();  // a former result has been read by all
    for (int far = 16; far > 0; far /= 2)
        value = How::of(value, __shfl_xor_sync(0xffffffffu, value, far));
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = threadIdx.x % 32 < blockDim.x / 32 ? warps[threadIdx.x % 32] : How::none();
    for (int far = 16; far > 0; far /= 2)
        value = How::of(value, __shfl_xor_sync(0xffffffffu, value, far));
    return value;
}

// A row is one patch: 588 values in the order channel, row, column, then zeros up to `width`.
// `pictures` are RGB8 with rows of 3 * side bytes, `table` has each byte's normalised value by channel.
template <typename T>
static __device__ void patches(const uint8_t* pictures, const float* table, T* out, int side, int width) {
    const int grid = side / 14;
    const int64_t row = blockIdx.x;
    const int64_t picture = row / ((int64_t)grid * grid);
    const int at = (int)(row % ((int64_t)grid * grid));
    const int top = at / grid * 14, left = at % grid * 14;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float value = 0.0f;
        if (column < 588) {
            const int channel = column / 196, y = top + column % 196 / 14, x = left + column % 14;
            value = table[channel * 256 + pictures[((picture * side + y) * side + x) * 3 + channel]];
        }
        out[row * width + column] = narrow<T>(value);
    }
}

// A row is one token: first those of `prefix`, then a patch's product plus its position.
extern "C" __global__ void tokens(const float* patches, const float* prefix, const float* positions,
                                  float* out, int before, int count, int dim) {
    const int64_t row = blockIdx.x, all = before + count;
    const int64_t picture = row / all;
    const int token = (int)(row % all);
    float* to = out + row * dim;
    if (token < before) {
        for (int i = threadIdx.x; i < dim; i += blockDim.x) to[i] = prefix[(int64_t)token * dim + i];
    } else {
        const int64_t patch = token - before;
        const float* from = patches + (picture * count + patch) * dim;
        for (int i = threadIdx.x; i < dim; i += blockDim.x) to[i] = from[i] + positions[patch * dim + i];
    }
}

// LayerNorm of every `step`-th row of `dim` values; the row is kept in shared memory meanwhile.
template <typename T>
static __device__ void norm(const float* x, const float* gain, const float* shift, T* out, int64_t step,
                            int dim, float eps) {
    SHARED_ROW;
    const float* from = x + (int64_t)blockIdx.x * step * dim;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        row[i] = from[i];
        sum += row[i];
    }
    const float mean = together<Sum>(sum) / dim;
    float squares = 0.0f;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) squares += (row[i] - mean) * (row[i] - mean);
    const float scale = rsqrtf(together<Sum>(squares) / dim + eps);
    T* to = out + (int64_t)blockIdx.x * dim;
    for (int i = threadIdx.x; i < dim; i += blockDim.x)
        to[i] = narrow<T>((row[i] - mean) * scale * gain[i] + shift[i]);
}

// silu(a) * b for rows that hold a, then b.
template <typename T> static __device__ void swiglu(const T* x, T* out, int hidden) {
    const T* a = x + (int64_t)blockIdx.x * 2 * hidden;
    T* to = out + (int64_t)blockIdx.x * hidden;
    for (int i = threadIdx.x; i < hidden; i += blockDim.x) {
        const float v = widen(a[i]);
        to[i] = narrow<T>(v / (1.0f + expf(-v)) * widen(a[hidden + i]));
    }
}

// Softmax of rows of `count` scores, `stride` apart, times `scale`; zeros in between.
template <typename T>
static __device__ void softmax(const float* scores, T* out, int count, int stride, float scale) {
    const float* from = scores + (int64_t)blockIdx.x * stride;
    T* to = out + (int64_t)blockIdx.x * stride;
    float most = -INFINITY;
    for (int i = threadIdx.x; i < count; i += blockDim.x) most = fmaxf(most, from[i]);
    most = together<Most>(most) * scale;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += expf(from[i] * scale - most);
    const float part = 1.0f / together<Sum>(sum);
    for (int i = threadIdx.x; i < stride; i += blockDim.x)
        to[i] = narrow<T>(i < count ? expf(from[i] * scale - most) * part : 0.0f);
}

// x * Phi(x), the exact form, in place; any grid.
extern "C" __global__ void gelu_f32(float* x, int64_t count) {
    const int64_t all = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += all)
        x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678f));
}

// The largest magnitude, as its bits, which are ordered as the numbers are: infinity and NaN above all.
template <typename T> static __device__ void largest(const T* x, int64_t count, unsigned* most) {
    const int64_t all = (int64_t)gridDim.x * blockDim.x;
    unsigned here = 0;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += all)
        here = max(here, __float_as_uint(fabsf(widen(x[i]))));
    atomicMax(most, here);
}

#define FOR(T)                                                                                          \
    extern "C" __global__ void patches_##T(const uint8_t* pictures, const float* table, T* out,         \
                                           int side, int width) {                                       \
        patches<T>(pictures, table, out, side, width);                                                  \
    }                                                                                                   \
    extern "C" __global__ void norm_##T(const float* x, const float* gain, const float* shift, T* out,  \
                                        int64_t step, int dim, float eps) {                             \
        norm<T>(x, gain, shift, out, step, dim, eps);                                                   \
    }                                                                                                   \
    extern "C" __global__ void swiglu_##T(const T* x, T* out, int hidden) { swiglu<T>(x, out, hidden); } \
    extern "C" __global__ void softmax_##T(const float* scores, T* out, int count, int stride,          \
                                           float scale) {                                               \
        softmax<T>(scores, out, count, stride, scale);                                                  \
    }                                                                                                   \
    extern "C" __global__ void largest_##T(const T* x, int64_t count, unsigned* most) {                 \
        largest<T>(x, count, most);                                                                     \
    }

typedef float f32;
FOR(f32)
FOR(bf16)
FOR(f16)
