//! The shapes of the published backbones, as data.

use serde::{Deserialize, Serialize};

/// Side of a patch in pixels; every published DINOv2 backbone uses 14.
pub const PATCH_SIZE: usize = 14;
/// Width of one attention head in every published DINOv2 backbone.
pub const HEAD_DIM: usize = 64;
/// LayerNorm epsilon of the published model (not PyTorch's default of 1e-5).
pub const LAYER_NORM_EPS: f64 = 1e-6;

/// Feed-forward network of a transformer block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FfnKind {
    /// Linear, exact (erf) GELU, linear.
    Mlp,
    /// `w3(silu(x W1) * x W2)` with W1 and W2 stored as one matrix (ViT-g).
    SwiGlu,
}

/// Shape of one Vision Transformer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VitConfig {
    /// Width of a token (C).
    pub embed_dim: usize,
    /// Number of transformer blocks.
    pub depth: usize,
    /// Number of attention heads; divides `embed_dim`.
    pub num_heads: usize,
    /// Kind of feed-forward network.
    pub ffn: FfnKind,
    /// Inner width of the feed-forward network (for SwiGLU, of each half).
    pub ffn_hidden_dim: usize,
    /// Register tokens between CLS and the patches: 0 or 4 in the published models.
    pub num_register_tokens: usize,
    /// Side, in patches, of the stored position-embedding grid: 37 (518 px) as published.
    pub pos_embed_grid: usize,
}

impl VitConfig {
    /// A backbone of MLP blocks, four times wider inside, without registers, whose positions form a
    /// grid of `pos_embed_grid` x `pos_embed_grid`.
    pub fn mlp(embed_dim: usize, depth: usize, num_heads: usize, pos_embed_grid: usize) -> Self {
        Self {
            embed_dim,
            depth,
            num_heads,
            ffn: FfnKind::Mlp,
            ffn_hidden_dim: 4 * embed_dim,
            num_register_tokens: 0,
            pos_embed_grid,
        }
    }

    /// Tokens in front of the patches: CLS and registers.
    pub fn num_prefix_tokens(&self) -> usize {
        1 + self.num_register_tokens
    }

    /// Released name of this shape without the `dinov2_` prefix, such as `vits14_reg`; for other
    /// shapes a description such as `vit-192x12`.
    pub fn variant_name(&self) -> String {
        Variant::of(self).map_or_else(
            || {
                let registers = match self.num_register_tokens {
                    0 => String::new(),
                    n => format!("-reg{n}"),
                };
                format!("vit-{}x{}{registers}", self.embed_dim, self.depth)
            },
            |variant| variant.name.to_owned(),
        )
    }
}

/// One released backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Released name minus the `dinov2_` prefix.
    pub name: &'static str,
    /// Width of a token.
    pub embed_dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Kind of feed-forward network.
    pub ffn: FfnKind,
    /// Inner width of the feed-forward network.
    pub ffn_hidden_dim: usize,
    /// 0, or 4 for the `_reg` models.
    pub num_register_tokens: usize,
}

/// The eight released backbones (arXiv 2304.07193, table 17; registers: arXiv 2309.16588).
pub const VARIANTS: [Variant; 8] = [
    variant("vits14", 384, 12, FfnKind::Mlp, 1536, 0),
    variant("vitb14", 768, 12, FfnKind::Mlp, 3072, 0),
    variant("vitl14", 1024, 24, FfnKind::Mlp, 4096, 0),
    variant("vitg14", 1536, 40, FfnKind::SwiGlu, 4096, 0),
    variant("vits14_reg", 384, 12, FfnKind::Mlp, 1536, 4),
    variant("vitb14_reg", 768, 12, FfnKind::Mlp, 3072, 4),
    variant("vitl14_reg", 1024, 24, FfnKind::Mlp, 4096, 4),
    variant("vitg14_reg", 1536, 40, FfnKind::SwiGlu, 4096, 4),
];

const fn variant(
    name: &'static str,
    embed_dim: usize,
    depth: usize,
    ffn: FfnKind,
    ffn_hidden_dim: usize,
    num_register_tokens: usize,
) -> Variant {
    let num_heads = embed_dim / HEAD_DIM;
    Variant { name, embed_dim, depth, num_heads, ffn, ffn_hidden_dim, num_register_tokens }
}

impl Variant {
    /// The released backbone with this shape, if there is one.
    pub fn of(config: &VitConfig) -> Option<&'static Self> {
        VARIANTS.iter().find(|variant| variant.config() == *config)
    }

    /// The full shape, with the published 37 x 37 position-embedding grid.
    pub fn config(&self) -> VitConfig {
        VitConfig {
            embed_dim: self.embed_dim,
            depth: self.depth,
            num_heads: self.num_heads,
            ffn: self.ffn,
            ffn_hidden_dim: self.ffn_hidden_dim,
            num_register_tokens: self.num_register_tokens,
            pos_embed_grid: 37,
        }
    }
}

/// How position embeddings are resampled when the input is not the native 37 x 37 grid.
///
/// The rules give different embeddings (CLS cosine 0.9992 on real ViT-S weights at 224 px), so the
/// rule is part of a model's identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PosEmbedRule {
    /// What the released models were evaluated with: without registers, scale factor
    /// `(n + 0.1) / 37` and no antialiasing; with registers, exact size and antialiasing.
    #[default]
    Published,
    /// What Hugging Face transformers does: exact size; antialiasing only with registers.
    Transformers,
}

impl std::fmt::Display for PosEmbedRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Published => "published",
            Self::Transformers => "transformers",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swiglu_hidden_width_follows_the_published_rounding() {
        // dinov2.md: round up to a multiple of 8 of 2/3 * 4 * width.
        for variant in VARIANTS.iter().filter(|v| v.ffn == FfnKind::SwiGlu) {
            let hidden = (variant.embed_dim * 4 * 2 / 3).div_ceil(8) * 8;
            assert_eq!(variant.ffn_hidden_dim, hidden);
        }
    }

    #[test]
    fn a_released_shape_is_named_and_another_described() {
        let config = VARIANTS[4].config();
        assert_eq!(config.variant_name(), "vits14_reg");
        let tiny = VitConfig { embed_dim: 192, num_heads: 3, ..config };
        assert_eq!(tiny.variant_name(), "vit-192x12-reg4");
    }
}
