// kernels.cu as functions that a CPU runs: the threads of a block take turns between the points where they
// wait for each other. For tools/check-kernels.cpp and tools/cuda-stand-in.cpp.

#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <ucontext.h>
#include <vector>

// What a block shares is what all its threads see; blocks run one after the other.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#undef __shared__
#define __shared__ static thread_local
#define SHARED_ROW static thread_local float row[8192]

struct Index { unsigned x = 0; };
static thread_local Index threadIdx, blockIdx, blockDim, gridDim;

// A block whose threads are coroutines.
struct Block {
    static constexpr size_t STACK = 64 << 10;
    ucontext_t outside;
    std::vector<ucontext_t> threads;
    std::vector<std::unique_ptr<char[]>> stacks;
    std::vector<bool> ended;
    unsigned current = 0;
    float exchanged[1024];
    const std::function<void()>* kernel = nullptr;

    static thread_local Block* running;

    static void entry() {
        (*running->kernel)();
        running->ended[running->current] = true;
    }
    // Ends the turn of the current thread.
    void wait() { swapcontext(&threads[current], &outside); }

    void run(unsigned count, const std::function<void()>& what) {
        running = this;
        kernel = &what;
        ended.assign(count, false);
        threads.resize(count);
        while (stacks.size() < count) stacks.push_back(std::make_unique<char[]>(STACK));
        for (unsigned i = 0; i < count; i++) {
            getcontext(&threads[i]);
            threads[i].uc_stack.ss_sp = stacks[i].get();
            threads[i].uc_stack.ss_size = STACK;
            threads[i].uc_link = &outside;
            makecontext(&threads[i], entry, 0);
        }
        for (unsigned left = count; left > 0;) {
            left = 0;
            for (current = 0; current < count; current++) {
                if (ended[current]) continue;
                threadIdx.x = current;
                swapcontext(&outside, &threads[current]);
                left += !ended[current];
            }
        }
    }
};
thread_local Block* Block::running = nullptr;

static inline void __syncthreads() { Block::running->wait(); }
static inline float __shfl_xor_sync(unsigned, float value, int far) {
    Block& block = *Block::running;
    const unsigned me = threadIdx.x;
    block.exchanged[me] = value;
    block.wait();
    const float theirs = block.exchanged[me ^ far];
    block.wait();
    return theirs;
}
static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    __builtin_memcpy(&bits, &value, 4);
    return bits;
}
static inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
static inline void atomicMax(unsigned* most, unsigned value) { *most = max(*most, value); }
static inline float rsqrtf(float value) { return 1.0f / std::sqrt(value); }

#include "../engine/src/vit/gpu/cuda/kernels.cu"

// Runs a grid of blocks.
static inline void launch(unsigned blocks, unsigned threads, const std::function<void()>& kernel) {
    static thread_local Block block;
    gridDim.x = blocks;
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) block.run(threads, kernel);
}
