//! What a warm forward pass asks of the allocator: nothing. One test, in a program of its own, since the
//! allocator that counts is the program's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use candle_core::Device;
use engine::{DinoEmbedder, Embedder, ModelOptions, Pixels, Precision, Preprocess, RgbImage};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

static COUNTING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Sizes of the first ones.
static SIZES: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];

struct Counting;

fn count(size: usize) {
    if COUNTING.load(Ordering::Relaxed) {
        let index = COUNT.fetch_add(1, Ordering::Relaxed);
        if let Some(place) = SIZES.get(index) {
            place.store(size, Ordering::Relaxed);
        }
    }
}

#[expect(unsafe_code, reason = "an allocator has no safe form")]
// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sizes of what all threads ask for while `work` runs, in bytes.
fn allocations<T>(work: impl FnOnce() -> T) -> (T, Vec<usize>) {
    COUNT.store(0, Ordering::Relaxed);
    COUNTING.store(true, Ordering::SeqCst);
    let result = work();
    COUNTING.store(false, Ordering::SeqCst);
    let count = COUNT.load(Ordering::Relaxed);
    assert!(count <= SIZES.len(), "{count} allocations");
    let mut sizes: Vec<_> =
        SIZES[..count].iter().map(|size| size.load(Ordering::Relaxed)).collect();
    sizes.sort_unstable();
    (result, sizes)
}

#[test]
fn a_warm_pass_asks_for_nothing_but_what_it_returns() -> Result {
    // The count is of something.
    let (made, sizes) = allocations(|| vec![1u8; 1000]);
    assert_eq!((made.len(), sizes), (1000, vec![1000]));

    let Some(weights) = engine::shipped::weights()? else {
        println!("skipped: a build without the model");
        return Ok(());
    };
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let preprocess = Preprocess::new(112, 98)?;
        let options = ModelOptions { preprocess, precision, ..ModelOptions::default() };
        let model = DinoEmbedder::from_weights(&weights, &options, &Device::Cpu)?;
        let picture = RgbImage::from_fn(120, 130, |x, y| {
            image::Rgb([(x * 3) as u8, (y * 5) as u8, (x * y) as u8])
        });
        let pixels: Vec<Pixels> = vec![model.prepare(&picture)?; 16];
        for batch in [1, 16] {
            let first = model.embed(&pixels[..batch])?;
            let (again, sizes) = allocations(|| model.embed(&pixels[..batch]));
            assert_eq!(again?, first, "{precision}, {batch}");
            // What `embed` is given as a list of inputs, of their values, and of slices of these, the
            // CLS tokens that the pass writes, the list of embeddings, and each of them.
            let token = size_of::<f32>() * model.config().embed_dim;
            let mut expected = vec![token; batch];
            expected.push(batch * size_of::<&u8>());
            expected.push(batch * size_of::<std::borrow::Cow<'_, [f32]>>());
            expected.push(batch * size_of::<&[f32]>());
            expected.push(batch * token);
            expected.push(batch * size_of::<engine::Embedding>());
            expected.sort_unstable();
            assert_eq!(sizes, expected, "{precision}, {batch} pictures: bytes asked for");
        }
    }
    Ok(())
}
