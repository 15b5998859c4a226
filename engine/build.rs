//! Compiles the GPU kernels to PTX with the feature `cuda`, and does nothing without.

use std::path::PathBuf;
use std::process::Command;

/// Kernels run on GPUs of this compute capability (Ampere) and newer: the driver compiles PTX for the one
/// it finds.
const OLDEST: &str = "compute_80";
const SOURCE: &str = "src/vit/gpu/cuda/kernels.cu";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    for variable in ["NVCC", "CUDA_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    if let Err(reason) = compile() {
        println!("cargo::error=the GPU kernels cannot be compiled");
        reason.lines().for_each(|line| println!("cargo::error={line}"));
    }
}

fn compile() -> Result<(), String> {
    let out = std::env::var_os("OUT_DIR").ok_or("cargo gives no OUT_DIR")?;
    let nvcc = match (std::env::var_os("NVCC"), std::env::var_os("CUDA_HOME")) {
        (Some(nvcc), _) => PathBuf::from(nvcc),
        (None, Some(home)) => PathBuf::from(home).join("bin/nvcc"),
        (None, None) => PathBuf::from("nvcc"),
    };
    let output = Command::new(&nvcc)
        .args(["-ptx", "-O3", "-std=c++17", "--gpu-architecture", OLDEST, SOURCE, "-o"])
        .arg(PathBuf::from(out).join("kernels.ptx"))
        .output()
        .map_err(|error| {
            let nvcc = nvcc.display();
            format!(
                "{nvcc}: {error}; set NVCC or CUDA_HOME, or use tools/build-cuda.sh (docs/gpu.md)"
            )
        })?;
    match output.status.success() {
        true => Ok(()),
        false => {
            Err(format!("{} says: {}", nvcc.display(), String::from_utf8_lossy(&output.stderr)))
        }
    }
}
