//! Choice of compute devices.

pub use candle_core::Device;
use candle_core::DeviceLocation;

use crate::error::{EngineError, Result, first_line};

/// Why nothing can be computed on a GPU, and what to do.
#[cfg(not(feature = "cuda"))]
pub(crate) const WITHOUT_CUDA: &str = "this build has no CUDA support; rebuild with `--features \
                                       cuda` (docs/gpu.md), or use `--device auto`";
/// What can be asked for.
const CHOICES: &str = "the choices are auto, cpu, cuda, cuda:N, cuda:N,M,.. and cuda:all";

/// Where embeddings are computed: on the CPU, or on GPUs that share the pictures of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// Numbers of GPUs; none for the CPU.
    gpus: Vec<usize>,
    fell_back: Option<String>,
}

/// A name of devices, taken apart.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Auto,
    Cpu,
    AllGpus,
    Gpus(Vec<usize>),
}

impl Devices {
    /// The CPU.
    pub const CPU: Self = Self { gpus: Vec::new(), fell_back: None };

    /// Finds `auto`, `cpu`, `cuda` (the first GPU), `cuda:N`, several as in `cuda:0,1`, or `cuda:all`.
    ///
    /// `auto` takes the first GPU when there is one and the CPU otherwise; a device asked for by name is
    /// never replaced by another.
    ///
    /// # Errors
    /// [`EngineError::Device`] for an unknown name or a device that is not there.
    pub fn open(name: &str) -> Result<Self> {
        Self::among(name, gpu_count)
    }

    /// [`open`](Self::open) with so many GPUs, or the reason why there are none.
    fn among(name: &str, count: impl FnOnce() -> Result<usize, String>) -> Result<Self> {
        let error = |reason: String| EngineError::Device { name: name.to_owned(), reason };
        let named = Named::parse(name).ok_or_else(|| error(CHOICES.to_owned()))?;
        if named == Named::Cpu {
            return Ok(Self::CPU);
        }
        let count = match (count(), &named) {
            (Ok(0), Named::Auto) => {
                return Ok(Self { fell_back: Some(NO_GPU.into()), ..Self::CPU });
            }
            (Ok(0), _) => return Err(error(format!("{NO_GPU}; use --device cpu, or auto"))),
            (Ok(count), _) => count,
            (Err(reason), Named::Auto) => {
                // A build without CUDA is no reason to wonder.
                let fell_back = Some(reason).filter(|_| cfg!(feature = "cuda"));
                return Ok(Self { fell_back, ..Self::CPU });
            }
            (Err(reason), _) => return Err(error(reason)),
        };
        let gpus = match named {
            Named::Auto | Named::Cpu => vec![0],
            Named::AllGpus => (0..count).collect(),
            Named::Gpus(gpus) => gpus,
        };
        if let Some(missing) = gpus.iter().find(|&&gpu| gpu >= count) {
            let have = match count {
                1 => "there is one GPU, cuda:0".to_owned(),
                _ => format!("there are {count} GPUs, cuda:0 to cuda:{}", count - 1),
            };
            return Err(error(format!("there is no cuda:{missing}; {have}")));
        }
        Ok(Self { gpus, fell_back: None })
    }

    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        self.gpus.is_empty()
    }

    /// Numbers of the GPUs; none for the CPU.
    pub fn gpus(&self) -> &[usize] {
        &self.gpus
    }

    /// Why `auto` took the CPU, in a build that could have used a GPU.
    pub fn fell_back(&self) -> Option<&str> {
        self.fell_back.as_deref()
    }
}

const NO_GPU: &str = "there is no NVIDIA GPU";

#[cfg(feature = "cuda")]
fn gpu_count() -> Result<usize, String> {
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, sys::cudaError_enum as Code};

    let count = CudaContext::device_count().map_err(|error| {
        let remedy = "or use --device cpu, or --device auto for whichever there is";
        let words = error.error_string().map(|text| text.to_string_lossy().into_owned());
        let words = words.unwrap_or_else(|_| "no description".to_owned());
        match error.0 {
            Code::CUDA_ERROR_NO_DEVICE | Code::CUDA_ERROR_STUB_LIBRARY => format!(
                "{NO_GPU}, or its driver is not installed ({words}); check that `nvidia-smi` lists \
                 one, {remedy}"
            ),
            code => format!(
                "CUDA does not start: {words} ({code:?}); a driver for CUDA 13 (580 or newer) is \
                 needed, {remedy}"
            ),
        }
    })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(not(feature = "cuda"))]
fn gpu_count() -> Result<usize, String> {
    Err(WITHOUT_CUDA.to_owned())
}

impl std::fmt::Display for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((first, others)) = self.gpus.split_first() else { return f.write_str("cpu") };
        write!(f, "cuda:{first}")?;
        others.iter().try_for_each(|gpu| write!(f, ",{gpu}"))
    }
}

impl From<&Device> for Devices {
    fn from(device: &Device) -> Self {
        match device.location() {
            DeviceLocation::Cuda { gpu_id } => Self { gpus: vec![gpu_id], fell_back: None },
            _ => Self::CPU,
        }
    }
}

impl From<&Devices> for Devices {
    fn from(devices: &Devices) -> Self {
        devices.clone()
    }
}

impl Named {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "auto" => return Some(Self::Auto),
            "cpu" => return Some(Self::Cpu),
            "cuda" => return Some(Self::Gpus(vec![0])),
            "cuda:all" => return Some(Self::AllGpus),
            _ => {}
        }
        let numbers = name.strip_prefix("cuda:")?.split(',');
        // Digits alone: `parse` would take a sign, too.
        let number = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
        };
        let gpus: Vec<usize> = numbers.map(number).collect::<Option<_>>()?;
        let twice = gpus.iter().enumerate().any(|(at, gpu)| gpus[..at].contains(gpu));
        (!twice).then_some(Self::Gpus(gpus))
    }
}

/// Opens the one device that training runs on: `auto`, `cpu`, `cuda` or `cuda:N`, found as by
/// [`Devices::open`].
///
/// # Errors
/// As there; several GPUs are refused.
pub fn open_device(name: &str) -> Result<Device> {
    let error = |reason: String| EngineError::Device { name: name.to_owned(), reason };
    match Devices::open(name)?.gpus() {
        [] => Ok(Device::Cpu),
        &[gpu] => Device::new_cuda(gpu).map_err(|cause| error(first_line(&cause))),
        _ => Err(error("training takes one GPU; name it, as in cuda:0".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, count: Result<usize, &str>) -> String {
        let found = Devices::among(name, || count.map_err(str::to_owned));
        found.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn unknown_names_are_refused_and_the_cpu_is_always_there() {
        assert!(open_device("cpu").is_ok());
        assert_eq!(Devices::open("cpu").ok(), Some(Devices::CPU));
        for bad in ["gpu", "cuda:", "cuda:x", "cuda:+1", "cuda:0,", "cuda:1,1", "cuda0", "CPU", ""]
        {
            let message = message(bad, Ok(8));
            assert!(message.contains("auto, cpu, cuda"), "{bad}: {message}");
        }
    }

    #[test]
    fn gpus_are_found_by_number() {
        let found = |name, count| {
            let devices = Devices::among(name, || Ok(count)).expect(name);
            (devices.gpus().to_vec(), devices.to_string())
        };
        assert_eq!(found("cuda", 2), (vec![0], "cuda:0".to_owned()));
        assert_eq!(found("auto", 2), (vec![0], "cuda:0".to_owned()));
        assert_eq!(found("cuda:1", 2), (vec![1], "cuda:1".to_owned()));
        assert_eq!(found("cuda:2,0", 3), (vec![2, 0], "cuda:2,0".to_owned()));
        assert_eq!(found("cuda:all", 3), (vec![0, 1, 2], "cuda:0,1,2".to_owned()));
        assert_eq!(found("cpu", 3), (vec![], "cpu".to_owned()));
        assert!(message("cuda:3", Ok(3)).contains("no cuda:3; there are 3 GPUs, cuda:0 to cuda:2"));
        assert!(message("cuda:0,1", Ok(1)).contains("no cuda:1; there is one GPU"));
    }

    #[test]
    fn only_auto_falls_back_and_says_why_where_it_could_have_been_otherwise() {
        let devices = Devices::among("auto", || Err("no driver".to_owned())).expect("the CPU");
        assert!(devices.is_cpu());
        assert_eq!(devices.fell_back(), cfg!(feature = "cuda").then_some("no driver"));
        let devices = Devices::among("auto", || Ok(0)).expect("the CPU");
        assert!(devices.is_cpu() && devices.fell_back().is_some());
        for name in ["cuda", "cuda:0", "cuda:all", "cuda:0,1"] {
            let message_ = message(name, Err("no driver"));
            assert_eq!(message_, format!("device `{name}` cannot be used: no driver"));
            assert!(message(name, Ok(0)).contains("--device cpu"));
        }
        #[cfg(not(feature = "cuda"))]
        assert!(Devices::open("cuda").is_err_and(|error| error.to_string().contains("rebuild")));
    }
}
