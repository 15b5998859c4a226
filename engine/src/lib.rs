//! Picture bytes to DINOv2 features: decode, preprocess, the backbone, and the embedding made
//! from its output.
//!
//! Modules are listed in the order data travels; a file uses only those above it (and `error`).
//! This crate computes: it reads weights files, keeps what it packs of them in a folder it is given, and
//! nothing else; it knows no index and no network.
//!
//! ```no_run
//! use engine::{DinoEmbedder, Embedder, ModelOptions, decode};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let devices = engine::Devices::open("auto")?;
//! let weights = std::path::Path::new("model.safetensors");
//! let model = DinoEmbedder::open(weights, &ModelOptions::default(), &devices)?;
//! let picture = decode::decode(&std::fs::read("picture.jpg")?, &model.decode_options())?;
//! let embedding = &model.embed(&[model.prepare(&picture.image)?])?[0];
//! assert_eq!(embedding.dim(), model.identity().dim);
//! # Ok(())
//! # }
//! ```

pub mod decode;
mod error;
mod device;
pub mod kernels;
pub mod preprocess;
pub mod vit;
pub mod shipped;
pub mod align;
mod features;
mod embedder;
pub mod train;
pub mod probe;
#[cfg(feature = "testing")]
pub mod testing;

pub use device::{Device, Devices, open_device};
pub use embedder::{DenseEmbedding, DinoEmbedder, Embedder, ModelIdentity, ModelOptions, Pixels};
pub use error::{EngineError, Result};
pub use features::{Embedding, Features, Pooling, ProbeTokens};
pub use image::RgbImage;
pub use kernels::{Isa, Precision};
pub use preprocess::Preprocess;
