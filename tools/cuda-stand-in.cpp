// Stands in for NVIDIA's libraries where there is no GPU: the functions that Akin calls, computed on the CPU,
// slowly. It shows that calls are right as far as a stand-in can tell: arguments, sizes, strides, types, order between
// streams, memory that runs out. It shows nothing of speed, nor what the real libraries accept.
//
//     tools/cuda-stand-in.sh TARGET/akin ...     builds it and runs a program with it
//
// Work on a stream is put off until somebody waits for it, so that what is not ordered shows; new and freed memory
// is filled with NaN. Settings: STAND_IN_GPUS (default 2), STAND_IN_MEMORY (bytes, default 1 GiB), STAND_IN_LATER (bytes
// of memory from the first product on, as if others had taken the rest), STAND_IN_LOG=1 (launches, products and memory
// that ran out, on stderr).

#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <tuple>

#include "kernels-on-cpu.h"

typedef unsigned long long Address;
typedef std::function<void()> Work;
enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, BLAS_INVALID = 7, BLAS_UNSUPPORTED = 15,
       NO_DEVICE = 100, INVALID_DEVICE = 101, NOT_FOUND = 500, NOT_READY = 600 };

static std::recursive_mutex gate;
#define LOCK std::lock_guard<std::recursive_mutex> lock(gate)
static size_t setting(const char* name, size_t otherwise) {
    const char* text = getenv(name);
    return text && *text ? strtoull(text, nullptr, 10) : otherwise;
}
#define LOG(...) do { if (setting("STAND_IN_LOG", 0)) fprintf(stderr, __VA_ARGS__); } while (0)

struct Stream {
    std::deque<Work> work;
    std::vector<Work>* recording = nullptr;
    void put(Work what) {
        if (recording) recording->push_back(std::move(what));
        else work.push_back(std::move(what));
    }
    bool step() {
        if (work.empty()) return false;
        Work next = std::move(work.front());
        work.pop_front();
        next();
        return true;
    }
    void finish() { while (step()) {} }
};
struct Event { Stream* on = nullptr; size_t recorded = 0, done = 0; };
struct Device { size_t used = 0; std::map<Address, size_t> memory; };
struct Graph { std::vector<Work> work; };

static std::map<int, Device> devices;
static thread_local Device* context = nullptr;
static thread_local Stream own;  // the stream of each thread, known as 2
static std::set<Stream*> streams;
static std::map<const char*, size_t> pinned;
static Stream& at(void* stream) {
    if (stream == (void*)2) { streams.insert(&own); return own; }
    if (!stream) { fprintf(stderr, "stand-in: the default stream is not for Akin\n"); abort(); }
    return *(Stream*)stream;
}
static bool is_pinned(const void* from) {
    auto after = pinned.upper_bound((const char*)from);
    if (after == pinned.begin()) return false;
    --after;
    return (const char*)from < after->first + after->second;
}
// Whether bytes lie within one piece of the device's memory.
static bool inside(Address from, size_t bytes) {
    auto& memory = context->memory;
    auto after = memory.upper_bound(from);
    if (after == memory.begin()) return false;
    --after;
    return from + bytes <= after->first + after->second;
}
static int outside(const char* what, Address from, size_t bytes) {
    fprintf(stderr, "stand-in: %s reaches outside of its memory (%zu bytes at %llx)\n", what, bytes, from);
    return 700;
}

static bool later = false;
static size_t room() {
    const size_t all = setting("STAND_IN_MEMORY", (size_t)1 << 30);
    return later ? setting("STAND_IN_LATER", all) : all;
}

#define API extern "C" __attribute__((visibility("default")))
API int cuInit(unsigned) { return setting("STAND_IN_GPUS", 2) ? OK : NO_DEVICE; }
API int cuDeviceGetCount(int* count) { *count = (int)setting("STAND_IN_GPUS", 2); return OK; }
API int cuDeviceGet(int* device, int number) {
    *device = number;
    return number < (int)setting("STAND_IN_GPUS", 2) ? OK : INVALID_DEVICE;
}
API int cuDeviceGetAttribute(int* value, int which, int) { *value = which == 75 ? 9 : which == 76 ? 0 : 1; return OK; }
API int cuDevicePrimaryCtxRetain(void** made, int device) { LOCK; *made = &devices[device]; return OK; }
API int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
API int cuCtxGetCurrent(void** now) { *now = context; return OK; }
API int cuCtxSetCurrent(void* now) { context = (Device*)now; return OK; }
API int cuCtxSynchronize() { LOCK; for (Stream* stream : streams) stream->finish(); return OK; }
API int cuGetErrorString(int code, const char** text) { *text = code == OUT_OF_MEMORY ? "out of memory" : "stand-in error"; return OK; }
API int cuGetErrorName(int code, const char** text) { return cuGetErrorString(code, text); }

API int cuStreamCreate(void** stream, unsigned) { LOCK; auto* made = new Stream; streams.insert(made); *stream = made; return OK; }
API int cuStreamDestroy_v2(void* stream) { LOCK; at(stream).finish(); streams.erase(&at(stream)); delete (Stream*)stream; return OK; }
API int cuStreamSynchronize(void* stream) { LOCK; if (at(stream).recording) return 900; at(stream).finish(); return OK; }
API int cuEventCreate(void** event, unsigned) { *event = new Event; return OK; }
API int cuEventDestroy_v2(void*) { return OK; }  // work that is put off may still name it
API int cuEventRecord(void* event, void* stream) {
    LOCK;
    auto* e = (Event*)event;
    if (at(stream).recording) return 900;
    e->on = &at(stream);
    const size_t number = ++e->recorded;
    at(stream).put([=] { e->done = number; });
    return OK;
}
static void reach(Event* e, size_t number) { while (e->done < number && e->on->step()) {} }
API int cuEventSynchronize(void* event) { LOCK; reach((Event*)event, ((Event*)event)->recorded); return OK; }
API int cuEventQuery(void* event) { LOCK; auto* e = (Event*)event; return e->done == e->recorded ? OK : NOT_READY; }
API int cuStreamWaitEvent(void* stream, void* event, unsigned) {
    LOCK;
    auto* e = (Event*)event;
    if (at(stream).recording) return 900;
    const size_t number = e->recorded;
    at(stream).put([=] { reach(e, number); });
    return OK;
}

API int cuMemAllocAsync(Address* to, size_t bytes, void* stream) {
    LOCK;
    if (context->used + bytes > room() && !at(stream).recording) at(stream).finish();
    if (context->used + bytes > room()) {
        LOG("no memory for %zu bytes\n", bytes);
        return OUT_OF_MEMORY;
    }
    char* memory = (char*)aligned_alloc(256, (bytes + 511) / 256 * 256);
    memset(memory, 0xff, bytes);
    context->used += bytes;
    context->memory[(Address)memory] = bytes;
    *to = (Address)memory;
    return OK;
}
API int cuMemFreeAsync(Address memory, void* stream) {
    LOCK;
    Device* device = context;
    if (!device->memory.count(memory)) return INVALID;
    if (at(stream).recording) return OK;  // part of the graph for as long as it lives
    at(stream).put([=] {
        const size_t bytes = device->memory[memory];
        memset((void*)memory, 0xff, bytes);
        device->used -= bytes;
        device->memory.erase(memory);
        free((void*)memory);
    });
    return OK;
}
API int cuMemGetInfo_v2(size_t* left, size_t* all) {
    LOCK;
    *all = room();
    *left = *all > context->used ? *all - context->used : 0;
    return OK;
}
API int cuDeviceGetDefaultMemPool(void** pool, int) { *pool = (void*)1; return OK; }
API int cuMemPoolSetAttribute(void*, int which, void* value) { return which == 4 && *(uint64_t*)value ? OK : INVALID; }
API int cuMemPoolTrimTo(void*, size_t) { return OK; }
API int cuMemHostAlloc(void** memory, size_t bytes, unsigned) { LOCK; *memory = malloc(bytes); pinned[(char*)*memory] = bytes; return OK; }
API int cuMemFreeHost(void* memory) { LOCK; pinned.erase((char*)memory); free(memory); return OK; }
API int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void* stream) {
    LOCK;
    if (!inside(to, bytes)) return outside("a copy to the device", to, bytes);
    if (is_pinned(from)) {  // read when the copy is made
        at(stream).put([=] { memcpy((void*)to, from, bytes); });
    } else {
        if (at(stream).recording) return 900;
        std::string copy((const char*)from, bytes);
        at(stream).put([=] { memcpy((void*)to, copy.data(), bytes); });
    }
    return OK;
}
API int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* stream) {
    LOCK;
    if (at(stream).recording) return 900;
    if (!inside(from, bytes)) return outside("a copy from the device", from, bytes);
    at(stream).finish();
    memcpy(to, (void*)from, bytes);
    return OK;
}
API int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void* stream) {
    LOCK;
    if (!inside(to, bytes)) return outside("a fill", to, bytes);
    at(stream).put([=] { memset((void*)to, value, bytes); });
    return OK;
}

API int cuStreamBeginCapture_v2(void* stream, int) { LOCK; at(stream).recording = new std::vector<Work>; return OK; }
API int cuStreamIsCapturing(void* stream, int* status) { LOCK; *status = at(stream).recording ? 1 : 0; return OK; }
API int cuStreamEndCapture(void* stream, void** graph) {
    LOCK;
    *graph = new Graph{std::move(*at(stream).recording)};
    at(stream).recording = nullptr;
    return OK;
}
API int cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long) { *exec = new Graph(*(Graph*)graph); return OK; }
API int cuGraphDestroy(void*) { return OK; }
API int cuGraphExecDestroy(void* exec) { LOCK; ((Graph*)exec)->work.clear(); return OK; }
API int cuGraphLaunch(void* exec, void* stream) {
    LOCK;
    LOG("replay of %zu pieces of work\n", ((Graph*)exec)->work.size());
    for (auto& work : ((Graph*)exec)->work) at(stream).put(work);
    return OK;
}

// What a kernel is given, taken from its arguments at once.
struct Given {
    void** params;
    int next = 0;
    template <typename T> T take() { return *(T*)params[next++]; }
};
template <typename... Args> static std::function<Work(Given&)> of(void (*kernel)(Args...)) {
    return [=](Given& given) -> Work {
        std::tuple<Args...> args{given.take<Args>()...};  // braces: from left to right
        return [=] { std::apply(kernel, args); };
    };
}
static const std::map<std::string, std::function<Work(Given&)>> kernels = {
#define ALL(T) {"patches_" #T, of(patches_##T)}, {"norm_" #T, of(norm_##T)}, {"swiglu_" #T, of(swiglu_##T)}, \
               {"softmax_" #T, of(softmax_##T)}, {"largest_" #T, of(largest_##T)}
    ALL(f32), ALL(bf16), ALL(f16), {"tokens", of(tokens)}, {"gelu_f32", of(gelu_f32)},
};
API int cuModuleLoadData(void** module, const void* image) { *module = (void*)image; return strstr((const char*)image, ".entry") ? OK : INVALID; }
API int cuModuleUnload(void*) { return OK; }
API int cuModuleGetFunction(void** function, void*, const char* name) {
    const auto found = kernels.find(name);
    if (found == kernels.end()) return NOT_FOUND;
    *function = (void*)&*found;
    return OK;
}
API int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                       unsigned shared, void* stream, void** params, void**) {
    LOCK;
    if (!x || y != 1 || z != 1 || threads % 32 || threads > 1024 || shared > 48 << 10) return INVALID;
    const auto& [name, make] = *(decltype(kernels)::value_type*)function;
    LOG("%s: %u blocks of %u\n", name.c_str(), x, threads);
    Given given{params};
    const Work thread = make(given);
    at(stream).put([=] { launch(x, threads, thread); });
    return OK;
}

API int cublasCreate_v2(void** handle) { *handle = (void*)1; return OK; }
API int cublasDestroy_v2(void*) { return OK; }
API int cublasSetStream_v2(void*, void*) { return OK; }
API int curandCreateGenerator(void** made, int) { *made = (void*)1; return OK; }
API int curandSetStream(void*, void*) { return OK; }
API int curandSetPseudoRandomGeneratorSeed(void*, unsigned long long) { return OK; }
API int curandSetGeneratorOffset(void*, unsigned long long) { return OK; }
API int curandDestroyGenerator(void*) { return OK; }

// Products. Types are those of cudaDataType: 0 f32, 2 f16, 14 bf16.
struct Layout { int type; uint64_t rows, columns; int64_t step; int count = 1; int64_t apart = 0; };
struct Operation { int compute, scale; int transposed[2] = {0, 0}; int epilogue = 1; Address bias = 0; };
struct Found { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; };

static size_t width(int type) { return type == 0 ? 4 : 2; }
static float value(Address from, int64_t index, int type) {
    switch (type) {
        case 0: return ((float*)from)[index];
        case 2: return widen(((f16*)from)[index]);
        default: return widen(((bf16*)from)[index]);
    }
}
static void store(Address to, int64_t index, int type, float what) {
    switch (type) {
        case 0: ((float*)to)[index] = what; break;
        case 2: ((f16*)to)[index] = narrow<f16>(what); break;
        default: ((bf16*)to)[index] = narrow<bf16>(what);
    }
}
// Bytes from the first value to the last.
static size_t reach(const Layout& l) {
    return (((l.count - 1) * l.apart + (l.columns - 1) * l.step + l.rows)) * width(l.type);
}
API int cublasLtCreate(void** handle) { *handle = (void*)1; return OK; }
API int cublasLtDestroy(void*) { return OK; }
API int cublasLtMatrixLayoutCreate(void** made, int type, uint64_t rows, uint64_t columns, int64_t step) { *made = new Layout{type, rows, columns, step}; return OK; }
API int cublasLtMatrixLayoutDestroy(void* layout) { delete (Layout*)layout; return OK; }
API int cublasLtMatrixLayoutSetAttribute(void* layout, int which, const void* to, size_t bytes) {
    auto& l = *(Layout*)layout;
    if (which == 5 && bytes == 4) l.count = *(int*)to;
    else if (which == 6 && bytes == 8) l.apart = *(int64_t*)to;
    else return BLAS_INVALID;
    return OK;
}
API int cublasLtMatmulDescCreate(void** made, int compute, int scale) { *made = new Operation{compute, scale}; return OK; }
API int cublasLtMatmulDescDestroy(void* operation) { delete (Operation*)operation; return OK; }
API int cublasLtMatmulDescSetAttribute(void* operation, int which, const void* to, size_t bytes) {
    auto& o = *(Operation*)operation;
    if ((which == 3 || which == 4) && bytes == 4) o.transposed[which - 3] = *(int*)to;
    else if (which == 7 && bytes == 4) o.epilogue = *(int*)to;
    else if (which == 8 && bytes == 8) o.bias = *(Address*)to;
    else return BLAS_INVALID;
    return OK;
}
API int cublasLtMatmulPreferenceCreate(void** made) { *made = (void*)1; return OK; }
API int cublasLtMatmulPreferenceDestroy(void*) { return OK; }
API int cublasLtMatmulPreferenceSetAttribute(void*, int which, const void*, size_t bytes) { return which == 1 && bytes == 8 ? OK : BLAS_INVALID; }

// Whether the real library documents such a product: types, leading dimensions, epilogues.
static bool documented(const Operation& o, const Layout& a, const Layout& b, const Layout& c) {
    const uint64_t m = o.transposed[0] ? a.columns : a.rows, k = o.transposed[0] ? a.rows : a.columns;
    const uint64_t n = o.transposed[1] ? b.rows : b.columns;
    if (k != (o.transposed[1] ? b.columns : b.rows) || c.rows != m || c.columns != n) return false;
    if (a.type != b.type || (c.type != a.type && c.type != 0) || o.compute != 68 || o.scale != 0) return false;
    for (const Layout* l : {&a, &b, &c})
        if (l->step < (int64_t)l->rows || l->count != c.count || l->step * width(l->type) % 16) return false;
    return o.epilogue == 1 || ((o.epilogue == 4 || o.epilogue == 36) && o.bias && c.count == 1);
}
API int cublasLtMatmulAlgoGetHeuristic(void*, void* operation, void* a, void* b, void* c, void* d, void*, int asked, Found* found, int* count) {
    const bool can = c == d && asked == 1 && documented(*(Operation*)operation, *(Layout*)a, *(Layout*)b, *(Layout*)c);
    *count = can;
    if (can) *found = Found{};
    return can ? OK : BLAS_UNSUPPORTED;
}
API int cublasLtMatmul(void*, void* operation, const float* alpha, Address a, void* al, Address b, void* bl, const float* beta,
                       Address c, void* cl, Address d, void* dl, const void*, Address, size_t, void* stream) {
    LOCK;
    const Operation o = *(Operation*)operation;
    const Layout la = *(Layout*)al, lb = *(Layout*)bl, lc = *(Layout*)cl;
    if (c != d || cl != dl || !documented(o, la, lb, lc) || a % 16 || b % 16 || c % 16) return BLAS_INVALID;
    if (!inside(a, reach(la)) || !inside(b, reach(lb)) || !inside(c, reach(lc))) return outside("a product", c, reach(lc));
    if (o.epilogue != 1 && !inside(o.bias, lc.rows * width(lc.type))) return outside("a bias", o.bias, lc.rows);
    const float scale = *alpha, keep = *beta;
    later = true;
    const int64_t depth = o.transposed[0] ? la.rows : la.columns;
    LOG("product %lu x %lu x %ld, %d times, epilogue %d, keep %g\n", lc.rows, lc.columns, depth, lc.count, o.epilogue, keep);
    at(stream).put([=] {
        std::vector<float> row(depth), column(depth);
        for (int batch = 0; batch < lc.count; batch++) {
            std::vector<float> all(lc.rows * depth);
            for (int64_t i = 0; i < (int64_t)lc.rows; i++)
                for (int64_t k = 0; k < depth; k++)
                    all[i * depth + k] = value(a, batch * la.apart + (o.transposed[0] ? i * la.step + k : k * la.step + i), la.type);
            for (int64_t j = 0; j < (int64_t)lc.columns; j++) {
                for (int64_t k = 0; k < depth; k++)
                    column[k] = value(b, batch * lb.apart + (o.transposed[1] ? k * lb.step + j : j * lb.step + k), lb.type);
                for (int64_t i = 0; i < (int64_t)lc.rows; i++) {
                    double sum = 0;
                    for (int64_t k = 0; k < depth; k++) sum += (double)all[i * depth + k] * column[k];
                    const int64_t place = batch * lc.apart + j * lc.step + i;
                    float x = scale * (float)sum + (keep ? keep * value(c, place, lc.type) : 0.0f);
                    if (o.epilogue != 1) x += value(o.bias, i, lc.type);
                    if (o.epilogue == 36) x = 0.5f * x * (1 + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));
                    store(c, place, lc.type, x);
                }
            }
        }
    });
    return OK;
}
