//! Memory of what is over goes back to the system.

/// From this size on, memory is asked of the system for each use alone.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ALONE_FROM: i32 = 1 << 20;

/// Makes large pieces of memory, such as decoded pictures, go back to the system as soon as they are
/// let go of; for the whole process, from now on.
///
/// Left alone, glibc takes the largest piece that was ever given back as the size up to which it keeps
/// pieces: after one large picture it holds several in every thread's arena, for good. Other
/// allocators are left as they are.
pub fn give_back_large() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "there is no other way to tell the allocator")]
        // SAFETY: it takes two numbers, and may be called at any time by any thread.
        let is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, ALONE_FROM) };
        if is_set != 1 {
            tracing::debug!("the allocator keeps its own rules");
        }
    }
}
