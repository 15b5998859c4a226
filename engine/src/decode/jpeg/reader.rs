//! The file for `zune-jpeg`, which keeps to the clock.

use zune_jpeg::zune_core::bytestream::{ZByteIoError, ZByteReaderTrait, ZCursor, ZSeekFrom};

use crate::decode::budget::{Budget, Ticker};

/// A file in memory whose fallible reads fail with `TimedOut` once the time is up.
///
/// Single bytes come without a look at the clock, being the innermost loop of the decoder; every
/// marker segment and refill of the bit buffer goes through the others.
pub(super) struct TimedCursor<'a> {
    cursor: ZCursor<&'a [u8]>,
    ticker: Ticker<'a>,
}

impl<'a> TimedCursor<'a> {
    pub fn new(bytes: &'a [u8], budget: &'a Budget<'a>) -> Self {
        Self { cursor: ZCursor::new(bytes), ticker: Ticker::new(budget) }
    }

    fn tick(&mut self) -> Result<(), ZByteIoError> {
        self.ticker.tick().map_err(ZByteIoError::StdIoError)
    }
}

impl ZByteReaderTrait for TimedCursor<'_> {
    #[inline]
    fn read_byte_no_error(&mut self) -> u8 {
        self.cursor.read_byte_no_error()
    }

    #[inline]
    fn read_exact_bytes(&mut self, buffer: &mut [u8]) -> Result<(), ZByteIoError> {
        self.tick()?;
        self.cursor.read_exact_bytes(buffer)
    }

    fn read_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, ZByteIoError> {
        self.tick()?;
        self.cursor.read_bytes(buffer)
    }

    fn peek_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, ZByteIoError> {
        self.tick()?;
        self.cursor.peek_bytes(buffer)
    }

    fn peek_exact_bytes(&mut self, buffer: &mut [u8]) -> Result<(), ZByteIoError> {
        self.tick()?;
        self.cursor.peek_exact_bytes(buffer)
    }

    fn z_seek(&mut self, from: ZSeekFrom) -> Result<u64, ZByteIoError> {
        self.tick()?;
        self.cursor.z_seek(from)
    }

    fn is_eof(&mut self) -> Result<bool, ZByteIoError> {
        self.cursor.is_eof()
    }

    fn z_position(&mut self) -> Result<u64, ZByteIoError> {
        self.cursor.z_position()
    }

    fn read_remaining(&mut self, sink: &mut Vec<u8>) -> Result<usize, ZByteIoError> {
        self.tick()?;
        self.cursor.read_remaining(sink)
    }
}
