//! What this process has used so far, as the system tells; zero where it does not.

use std::time::Duration;

/// Memory of this process in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// In physical memory.
    pub resident: u64,
    /// Of it, what no file backs.
    pub anonymous: u64,
    /// The most that was resident so far.
    pub peak: u64,
}

/// Reads `/proc/self/status`.
pub fn memory() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    Memory { resident: field("VmRSS:"), anonymous: field("RssAnon:"), peak: field("VmHWM:") }
}

/// Processor time of all threads, in steps of 10 ms; from `/proc/self/stat`.
pub fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may hold anything.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = |nth: usize| fields.split(' ').nth(nth).and_then(|field| field.parse::<u64>().ok());
    // Fields 14 and 15 of the file, counted from 1: user and system. Linux counts 100 to the second.
    let ticks = ticks(11).unwrap_or(0) + ticks(12).unwrap_or(0);
    Duration::from_millis(ticks * 10)
}
