//! Pictures on their way to the device: through memory that the system does not move, on a stream of
//! their own, beside the computing of others.
#![expect(unsafe_code, reason = "copies that are still under way have no safe form; see SAFETY")]

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaSlice, CudaStream, DriverError, PinnedHostSlice, result,
};

use super::address;

/// A place for the pictures of one batch.
pub(super) struct Slot {
    pinned: PinnedHostSlice<u8>,
    bytes: CudaSlice<u8>,
    /// The pictures have arrived.
    copied: CudaEvent,
    /// They have been read.
    read: CudaEvent,
}

impl Slot {
    /// Room for so many bytes.
    pub(super) fn new(stream: &Arc<CudaStream>, bytes: usize) -> Result<Self, DriverError> {
        let context = stream.context();
        // SAFETY: both are written before they are read.
        let (pinned, device) = unsafe { (context.alloc_pinned(bytes)?, stream.alloc(bytes)?) };
        // The other stream may write only once the memory is there.
        stream.synchronize()?;
        let (copied, read) = (context.new_event(None)?, context.new_event(None)?);
        Ok(Self { pinned, bytes: device, copied, read })
    }

    pub(super) fn holds(&self, bytes: usize) -> bool {
        self.bytes.len() >= bytes
    }

    /// Bytes on the device.
    pub(super) fn bytes(&self) -> &CudaSlice<u8> {
        &self.bytes
    }

    /// Starts to copy pictures, which must fit.
    pub(super) fn fill(
        &mut self,
        copies: &Arc<CudaStream>,
        pictures: &[&[u8]],
    ) -> Result<(), DriverError> {
        // The last copy out of this memory may be under way.
        self.copied.synchronize()?;
        let host = self.pinned.as_mut_slice()?;
        let mut end = 0;
        for picture in pictures {
            host[end..end + picture.len()].copy_from_slice(picture);
            end += picture.len();
        }
        copies.wait(&self.read)?;
        // SAFETY: both sides are at least so long, live until `drop` has waited for the copy, and are
        // touched by nothing else before `copied`: the next `fill` and the device wait for it.
        unsafe {
            let device = address(&self.bytes, copies);
            result::memcpy_htod_async(device, &host[..end], copies.cu_stream())?;
        }
        self.copied.record(copies)
    }

    /// What follows on the stream waits for the pictures.
    pub(super) fn await_copy(&self, stream: &CudaStream) -> Result<(), DriverError> {
        stream.wait(&self.copied)
    }

    /// Once the stream has come so far, the pictures may be replaced.
    pub(super) fn note_read(&self, stream: &CudaStream) -> Result<(), DriverError> {
        self.read.record(stream)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The memory must not go while it is written. An error here will show again elsewhere.
        let _ = self.copied.synchronize();
        let _ = self.read.synchronize();
    }
}
