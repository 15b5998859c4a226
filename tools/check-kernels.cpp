// The GPU kernels of engine/src/vit/gpu/cuda/kernels.cu, run on the CPU and compared with plain sums in double
// precision. It shows that indices, sums across threads and rounding are right; it does not show that a
// GPU runs them.
//
//     g++ -std=c++20 -O1 -I"$CUDA_HOME/include" tools/check-kernels.cpp -o /tmp/check && /tmp/check
//
// CUDA_HOME is a toolkit, such as the one that tools/build-cuda.sh makes in ~/.cache/cuda13/cuda.

#include <cstdio>

#include "kernels-on-cpu.h"

static unsigned state = 1;
static float noise(float scale) {
    state = state * 1664525u + 1013904223u;
    return ((state >> 8) / 8388608.0f - 1.0f) * scale;
}
static std::vector<float> noises(size_t count, float scale) {
    std::vector<float> values(count);
    for (auto& value : values) value = noise(scale);
    return values;
}

static double worst;
static void compare(double got, double wanted, double step) {
    const double off = std::fabs(got - wanted) / (step * std::fmax(1.0, std::fabs(wanted)));
    if (!(off <= worst)) worst = off;
}
static void report(const char* what, const char* type, int columns) {
    std::printf("%-8s %-4s %5d columns: off by %.2f of what is allowed\n", what, type, columns, worst);
    if (!(worst <= 1.0)) std::exit(1);
    worst = 0;
}

// `step` is what rounding alone may be off by, relative to the value.
template <typename T> static void check(const char* type, double step) {
    for (int dim : {32, 100, 384, 1536}) {
        const int rows = 3, every = 2;
        auto x = noises((size_t)rows * every * dim, 3.0f), gain = noises(dim, 2.0f), shift = noises(dim, 1.0f);
        for (int i = 0; i < dim; i++) x[i] += 100.0f;  // a mean that is far from zero
        std::vector<T> out(rows * dim);
        launch(rows, 128, [&] { norm<T>(x.data(), gain.data(), shift.data(), out.data(), every, dim, 1e-6f); });
        for (int r = 0; r < rows; r++) {
            const float* from = &x[(size_t)r * every * dim];
            double mean = 0, squares = 0;
            for (int i = 0; i < dim; i++) mean += from[i] / (double)dim;
            for (int i = 0; i < dim; i++) squares += (from[i] - mean) * (from[i] - mean) / dim;
            for (int i = 0; i < dim; i++)
                compare(widen(out[r * dim + i]),
                        (from[i] - mean) / std::sqrt(squares + 1e-6) * gain[i] + shift[i], step);
        }
        report("norm", type, dim);

        std::vector<T> pairs(2 * 2 * dim), gated(2 * dim);
        for (auto& value : pairs) value = narrow<T>(noise(8.0f));
        launch(2, 128, [&] { swiglu<T>(pairs.data(), gated.data(), dim); });
        for (int r = 0; r < 2; r++)
            for (int i = 0; i < dim; i++) {
                const double a = widen(pairs[r * 2 * dim + i]), b = widen(pairs[r * 2 * dim + dim + i]);
                compare(widen(gated[r * dim + i]), a / (1 + std::exp(-a)) * b, step);
            }
        report("swiglu", type, dim);

        const int stride = (dim + 7) / 8 * 8 + 8;
        auto scores = noises(2 * stride, 60.0f);
        std::vector<T> weights(2 * stride);
        launch(2, 128, [&] { softmax<T>(scores.data(), weights.data(), dim, stride, 0.125f); });
        for (int r = 0; r < 2; r++) {
            double sum = 0;
            for (int i = 0; i < dim; i++) sum += std::exp(scores[r * stride + i] * 0.125);
            for (int i = 0; i < stride; i++) {
                const double wanted = i < dim ? std::exp(scores[r * stride + i] * 0.125) / sum : 0;
                compare(widen(weights[r * stride + i]) * dim, wanted * dim, step);
            }
        }
        report("softmax", type, dim);
    }

    const int side = 42, grid = 3, pictures = 2, width = 592;
    std::vector<uint8_t> bytes(pictures * side * side * 3);
    for (auto& byte : bytes) byte = (uint8_t)(noise(127.0f) + 128.0f);
    auto table = noises(768, 2.0f);
    std::vector<T> patch(pictures * grid * grid * width, narrow<T>(9.0f));
    launch(pictures * grid * grid, 128, [&] { patches<T>(bytes.data(), table.data(), patch.data(), side, width); });
    size_t at = 0;
    for (int p = 0; p < pictures; p++)
        for (int gy = 0; gy < grid; gy++)
            for (int gx = 0; gx < grid; gx++) {
                for (int c = 0; c < 3; c++)
                    for (int y = 0; y < 14; y++)
                        for (int x = 0; x < 14; x++) {
                            const int byte = bytes[((p * side + gy * 14 + y) * side + gx * 14 + x) * 3 + c];
                            compare(widen(patch[at++]), table[c * 256 + byte], step);
                        }
                for (int i = 588; i < width; i++) compare(widen(patch[at++]), 0, 1e-30);
            }
    report("patches", type, width);

    std::vector<T> values(1000);
    for (auto& value : values) value = narrow<T>(noise(5.0f));
    values[777] = narrow<T>(-6.5f);
    unsigned bits = 0;
    launch(3, 64, [&] { largest<T>(values.data(), 1000, &bits); });
    float most;
    __builtin_memcpy(&most, &bits, 4);
    compare(most, 6.5, 1e-30);
    values[3] = narrow<T>(NAN);
    launch(3, 64, [&] { largest<T>(values.data(), 1000, &bits); });
    __builtin_memcpy(&most, &bits, 4);
    if (!std::isnan(most)) worst = 9;
    report("largest", type, 1000);
}

int main() {
    check<float>("f32", 1e-5);
    check<bf16>("bf16", 1.0 / 256);
    check<f16>("f16", 1.0 / 2048);

    const int before = 5, count = 9, dim = 40, pictures = 2;
    auto patch = noises(pictures * count * dim, 1.0f), prefix = noises(before * dim, 1.0f);
    auto positions = noises(count * dim, 1.0f);
    std::vector<float> out(pictures * (before + count) * dim);
    launch(pictures * (before + count), 128,
           [&] { tokens(patch.data(), prefix.data(), positions.data(), out.data(), before, count, dim); });
    for (int p = 0; p < pictures; p++)
        for (int t = 0; t < before + count; t++)
            for (int i = 0; i < dim; i++)
                compare(out[(p * (before + count) + t) * dim + i],
                        t < before ? prefix[t * dim + i]
                                   : patch[(p * count + t - before) * dim + i] + positions[(t - before) * dim + i],
                        1e-30);
    report("tokens", "f32", dim);

    auto x = noises(1000, 6.0f), y = x;
    launch(2, 64, [&] { gelu_f32(y.data(), 1000); });
    for (int i = 0; i < 1000; i++) compare(y[i], 0.5 * x[i] * (1 + std::erf(x[i] / std::sqrt(2.0))), 2e-6);
    report("gelu", "f32", 1000);
    std::puts("all kernels agree");
}
