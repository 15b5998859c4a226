//! Choice of compute device.

pub use candle_core::Device;

use crate::error::{EngineError, Result, first_line};

/// Opens `auto`, `cpu`, `cuda` or `cuda:N`.
///
/// `auto` takes the first CUDA device when there is one and the CPU otherwise; a device asked for
/// by name is never replaced by another.
///
/// # Errors
/// [`EngineError::Device`] for an unknown name or a device that is not there.
pub fn open_device(name: &str) -> Result<Device> {
    let error = |reason: String| EngineError::Device { name: name.to_owned(), reason };
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(Device::cuda_if_available(0).unwrap_or(Device::Cpu)),
        _ => {
            let ordinal = match name.strip_prefix("cuda") {
                Some("") => Some(0),
                Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse().ok()),
                None => None,
            };
            let Some(ordinal) = ordinal else {
                return Err(error("the choices are auto, cpu, cuda and cuda:N".to_owned()));
            };
            if !candle_core::utils::cuda_is_available() {
                let reason = "this build has no CUDA support; rebuild with `--features cuda`, or \
                              use `--device auto`";
                return Err(error(reason.to_owned()));
            }
            Device::new_cuda(ordinal).map_err(|cause| error(first_line(&cause)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_refused_and_the_cpu_is_always_there() {
        assert!(open_device("cpu").is_ok());
        for bad in ["gpu", "cuda:", "cuda:x", "CPU", ""] {
            let message = open_device(bad).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains("auto, cpu, cuda"), "{bad}: {message}");
        }
    }
}
