//! A deterministic embedder without weights, for tests of everything behind the engine.

use crate::decode::{DecodeMode, IccPolicy};
use crate::embedder::{Embedder, ModelIdentity, Pixels};
use crate::error::Result;
use crate::features::{Embedding, Pooling};
use crate::kernels::Precision;
use crate::preprocess::Preprocess;
use crate::vit::PosEmbedRule;

/// Side of the thumbnail whose pixels are the embedding.
const SIDE: usize = 8;

/// Embeds a picture as its own 8 x 8 thumbnail: 192 values, so that similar pictures are close.
#[derive(Debug)]
pub struct ThumbnailEmbedder {
    identity: ModelIdentity,
}

impl Default for ThumbnailEmbedder {
    fn default() -> Self {
        let identity = ModelIdentity {
            name: "thumbnail".to_owned(),
            weights_sha256: "0".repeat(64),
            dim: 3 * SIDE * SIDE,
            pooling: Pooling::Cls,
            pos_embed: PosEmbedRule::Published,
            preprocess: Preprocess::default(),
            icc: IccPolicy::default(),
            precision: Precision::default(),
            decode: DecodeMode::default(),
        };
        Self { identity }
    }
}

impl Embedder for ThumbnailEmbedder {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, batch: &[Pixels]) -> Result<Vec<Embedding>> {
        let side = self.identity.preprocess.crop as usize;
        let cell = side / SIDE;
        batch
            .iter()
            .map(|pixels| {
                let mut thumbnail = vec![0f32; self.identity.dim];
                for (i, value) in pixels.chw().iter().enumerate() {
                    let (channel, y, x) = (i / (side * side), i / side % side, i % side);
                    thumbnail[(channel * SIDE + y / cell) * SIDE + x / cell] += value;
                }
                Embedding::normalised(thumbnail)
            })
            .collect()
    }
}
