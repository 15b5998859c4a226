//! Asking for memory before it is needed.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "the instruction takes an address; see SAFETY")
)]

/// Bytes that one request brings.
const LINE: usize = 64;

/// Starts loading `bytes` into the cache nearest to the processor, and waits for nothing: worth it where many rows are
/// read from places all over memory. Does nothing where the machine has no such instruction.
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is inside a slice, and the instruction neither reads nor faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, LINE);
}
