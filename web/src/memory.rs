//! Memory of what is over goes back to the system.

/// From this size on, memory is asked of the system for each use alone.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ALONE_FROM: i32 = 1 << 20;

/// Makes large pieces of memory, such as decoded pictures, go back to the system as soon as they are
/// let go of, and threads share what the allocator keeps; for the whole process, from now on.
///
/// Left alone, glibc takes the largest piece that was ever given back as the size up to which it keeps
/// pieces, in as many as eight arenas for each core: after some large pictures it holds several for
/// good. Other allocators are left as they are.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let arenas = i32::try_from(cores.max(2)).unwrap_or(i32::MAX);
        for (what, value) in [(libc::M_MMAP_THRESHOLD, ALONE_FROM), (libc::M_ARENA_MAX, arenas)] {
            #[expect(unsafe_code, reason = "there is no other way to tell the allocator")]
            // SAFETY: it takes two numbers, and may be called at any time by any thread.
            let is_set = unsafe { libc::mallopt(what, value) };
            if is_set != 1 {
                tracing::debug!("the allocator keeps its own rules");
            }
        }
    }
}
