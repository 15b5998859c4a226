//! Pixels to patch tokens.

use candle_core::Tensor;

use super::config::{PATCH_SIZE, VitConfig};
use super::layers::{Linear, Loader};
use crate::error::{EngineError, Result};

/// The published 14 x 14 convolution of stride 14, computed as one matrix product.
pub(super) struct PatchEmbed {
    proj: Linear,
}

impl PatchEmbed {
    pub(super) fn load(from: &Loader<'_>, config: &VitConfig) -> Result<Self> {
        let dim = config.embed_dim;
        let name = "patch_embed.proj";
        let weight = from.tensor(&format!("{name}.weight"), &[dim, 3, PATCH_SIZE, PATCH_SIZE])?;
        let bias = from.tensor(&format!("{name}.bias"), &[dim])?;
        Ok(Self { proj: Linear::new(&weight.flatten_from(1)?, bias)? })
    }

    /// (B, 3, H, W) to ((B, H/14 * W/14, C), (H/14, W/14)); patches are row-major.
    pub(super) fn forward(&self, pixels: &Tensor) -> Result<(Tensor, (usize, usize))> {
        let shape_error = || EngineError::InputShape {
            got: pixels.dims().to_vec(),
            expected: "(batch >= 1, 3, height, width) with height and width multiples of 14",
        };
        let &[batch, 3, height, width] = pixels.dims() else { return Err(shape_error()) };
        let (rows, columns) = (height / PATCH_SIZE, width / PATCH_SIZE);
        let divides = rows * PATCH_SIZE == height && columns * PATCH_SIZE == width;
        if batch * rows * columns == 0 || !divides {
            return Err(shape_error());
        }
        let patches = pixels
            .reshape(&[batch, 3, rows, PATCH_SIZE, columns, PATCH_SIZE][..])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((batch, rows * columns, 3 * PATCH_SIZE * PATCH_SIZE))?;
        Ok((self.proj.forward(&patches)?, (rows, columns)))
    }
}
