//! The limits of one picture, and a reader that keeps to the clock.

use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom};
use std::time::Instant;

use super::{DecodeError, DecodeLimits, Measure};

/// Calls of the reader between two looks at the clock; a look costs as much as a short read.
const CALLS_PER_LOOK: u32 = 64;

/// [`DecodeLimits`] with a started clock.
pub(super) struct Budget<'a> {
    limits: &'a DecodeLimits,
    started: Instant,
}

impl<'a> Budget<'a> {
    pub fn start(limits: &'a DecodeLimits) -> Self {
        Self { limits, started: Instant::now() }
    }

    pub fn check_bytes(&self, length: usize) -> Result<(), DecodeError> {
        Self::check(Measure::Bytes, length as u64, self.limits.max_bytes)
    }

    pub fn check_pixels(&self, width: u32, height: u32) -> Result<(), DecodeError> {
        let pixels = u64::from(width) * u64::from(height);
        Self::check(Measure::Pixels { width, height }, pixels, self.limits.max_pixels)
    }

    pub fn check_memory(&self, bytes: u64) -> Result<(), DecodeError> {
        Self::check(Measure::Memory, bytes, self.limits.max_alloc)
    }

    pub fn check_time(&self) -> Result<(), DecodeError> {
        if self.expired() { Err(self.too_slow()) } else { Ok(()) }
    }

    pub fn expired(&self) -> bool {
        self.started.elapsed() > self.limits.max_duration
    }

    pub fn too_slow(&self) -> DecodeError {
        DecodeError::TooSlow { limit: self.limits.max_duration }
    }

    /// The error for a decoder that stopped at the limits it was given.
    pub fn decoder_limit(&self) -> DecodeError {
        let limit = self.limits.max_alloc;
        DecodeError::TooLarge { what: Measure::Memory, value: limit, limit }
    }

    /// The same limits in the terms of the `image` crate.
    pub fn image_limits(&self) -> image::Limits {
        let mut limits = image::Limits::no_limits();
        limits.max_alloc = Some(self.limits.max_alloc);
        limits
    }

    /// The pixels that may be decoded at `bytes_per_pixel` of memory.
    #[cfg(feature = "heic")]
    pub fn max_pixels(&self, bytes_per_pixel: u64) -> u64 {
        // 0 would mean the decoder's default.
        self.limits.max_pixels.min(self.limits.max_alloc / bytes_per_pixel).max(1)
    }

    fn check(what: Measure, value: u64, limit: u64) -> Result<(), DecodeError> {
        if value > limit { Err(DecodeError::TooLarge { what, value, limit }) } else { Ok(()) }
    }
}

/// Looks at the clock every so often.
pub(super) struct Ticker<'a> {
    budget: &'a Budget<'a>,
    calls: u32,
}

impl<'a> Ticker<'a> {
    pub fn new(budget: &'a Budget<'a>) -> Self {
        Self { budget, calls: 0 }
    }

    /// Counts a call; `TimedOut` when the time is up.
    pub fn tick(&mut self) -> io::Result<()> {
        self.calls += 1;
        if self.calls < CALLS_PER_LOOK {
            return Ok(());
        }
        self.calls = 0;
        if self.budget.expired() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

/// A file in memory that fails with `TimedOut` once the time is up.
pub(super) struct TimedReader<'a> {
    cursor: Cursor<&'a [u8]>,
    ticker: Ticker<'a>,
}

impl<'a> TimedReader<'a> {
    pub fn new(bytes: &'a [u8], budget: &'a Budget<'a>) -> Self {
        Self { cursor: Cursor::new(bytes), ticker: Ticker::new(budget) }
    }
}

impl Read for TimedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ticker.tick()?;
        self.cursor.read(buffer)
    }
}

impl BufRead for TimedReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.ticker.tick()?;
        self.cursor.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.cursor.consume(amount);
    }
}

impl Seek for TimedReader<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.ticker.tick()?;
        self.cursor.seek(position)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn reader_stops_when_the_time_is_up() {
        let limits = DecodeLimits { max_duration: Duration::ZERO, ..DecodeLimits::default() };
        let budget = Budget::start(&limits);
        std::thread::sleep(Duration::from_millis(1));
        let mut reader = TimedReader::new(&[7; 1000], &budget);
        let error = reader.by_ref().bytes().find_map(Result::err).expect("an error");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(matches!(budget.check_time(), Err(DecodeError::TooSlow { .. })));
    }

    #[test]
    fn limits_are_inclusive() {
        let limits = DecodeLimits { max_pixels: 12, max_bytes: 5, ..DecodeLimits::default() };
        let budget = Budget::start(&limits);
        assert_eq!(budget.check_pixels(3, 4), Ok(()));
        assert!(budget.check_pixels(13, 1).is_err());
        assert!(budget.check_pixels(u32::MAX, u32::MAX).is_err());
        assert_eq!(budget.check_bytes(5), Ok(()));
        assert!(budget.check_bytes(6).is_err());
    }
}
