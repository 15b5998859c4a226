//! Key layouts: how each publisher names the same tensors.

use super::TensorProblem;
use super::file::{StoredDtype, TensorInfos};
use crate::vit::config::{FfnKind, HEAD_DIM, PATCH_SIZE, VitConfig};

/// Naming scheme of a weights file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The original release: `blocks.0.attn.qkv.weight`.
    Meta,
    /// Hugging Face transformers: `encoder.layer.0.attention.attention.query.weight`.
    HuggingFace,
    /// timm: the original names, but `reg_token`, no mask token, and with registers a position
    /// embedding without the CLS row (already added to `cls_token`).
    Timm,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Meta => "Meta",
            Self::HuggingFace => "Hugging Face",
            Self::Timm => "timm",
        })
    }
}

/// A stored tensor that makes up all or part of a parameter.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

/// A parameter of the model: its canonical (Meta) name and the stored tensors that, joined along
/// the first axis, give its value.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    pub(super) canonical: String,
    pub(super) parts: Vec<Part>,
}

impl Layout {
    /// Recognises the layout by the tensors that only it has.
    pub(super) fn detect(tensors: &TensorInfos) -> Result<Self, String> {
        let has = |name: &str| tensors.contains_key(name);
        if has("embeddings.cls_token") {
            return Ok(Self::HuggingFace);
        }
        if has("cls_token") && has("patch_embed.proj.weight") {
            let meta = has("mask_token") || has("register_tokens");
            return Ok(if meta { Self::Meta } else { Self::Timm });
        }
        let first: Vec<_> = tensors.keys().take(3).map(String::as_str).collect();
        Err(format!(
            "neither `embeddings.cls_token` (Hugging Face) nor `cls_token` with \
             `patch_embed.proj.weight` (Meta, timm) is among its {} tensors ({}…)",
            tensors.len(),
            first.join(", ")
        ))
    }

    /// Reads the backbone's shape off the tensors. `num_heads` overrides `embed_dim / 64`.
    pub(super) fn infer_config(
        self,
        tensors: &TensorInfos,
        num_heads: Option<usize>,
    ) -> Result<VitConfig, String> {
        let shape = |name: &str| tensors.get(name).map(|info| info.shape.as_slice());
        let required = |name: String| match shape(&name) {
            Some(shape) => Ok(shape.to_vec()),
            None => Err(format!("tensor `{name}` is missing")),
        };
        let odd = |name: &str, got: &[usize]| Err(format!("tensor `{name}` has shape {got:?}"));

        let cls_name = self.name("cls_token");
        let cls = required(cls_name.clone())?;
        let &[1, 1, embed_dim] = cls.as_slice() else { return odd(&cls_name, &cls) };
        let patch_name = self.name("patch_embed.proj.weight");
        let patch = required(patch_name.clone())?;
        if patch != [embed_dim, 3, PATCH_SIZE, PATCH_SIZE] {
            return Err(format!(
                "tensor `{patch_name}` has shape {patch:?}, expected \
                 [{embed_dim}, 3, {PATCH_SIZE}, {PATCH_SIZE}] (only patch size 14 is DINOv2)"
            ));
        }
        let num_register_tokens =
            shape(&self.name("register_tokens")).map_or(0, |s| s.get(1).copied().unwrap_or(0));

        let pos_name = self.name("pos_embed");
        let pos = required(pos_name.clone())?;
        let rows = pos.get(1).copied().unwrap_or(0);
        let cells = if self.cls_outside_pos_embed(num_register_tokens) {
            rows
        } else {
            rows.saturating_sub(1)
        };
        let pos_embed_grid = cells.isqrt();
        if pos_embed_grid == 0 || pos_embed_grid.pow(2) != cells {
            return odd(&pos_name, &pos);
        }

        let block = |i: usize| self.name(&format!("blocks.{i}.norm1.weight"));
        let depth = (0..).take_while(|&i| shape(&block(i)).is_some()).count();
        if depth == 0 {
            return Err(format!("tensor `{}` is missing", block(0)));
        }

        let mlp_out = self.name("blocks.0.mlp.fc2.weight");
        let (ffn, out) = match shape(&self.name("blocks.0.mlp.w3.weight")) {
            Some(out) if self != Self::Timm => (FfnKind::SwiGlu, out.to_vec()),
            _ => (FfnKind::Mlp, required(mlp_out)?),
        };
        let ffn_hidden_dim = out.get(1).copied().unwrap_or(0);
        let first = shape(&self.name("blocks.0.mlp.fc1.weight"))
            .map_or(0, |s| s.first().copied().unwrap_or(0));
        // timm keeps SwiGLU under the MLP's names; the first matrix is then twice as tall.
        let ffn = if first == 2 * ffn_hidden_dim { FfnKind::SwiGlu } else { ffn };

        let num_heads = match num_heads {
            Some(heads) => heads,
            None if embed_dim % HEAD_DIM == 0 => embed_dim / HEAD_DIM,
            None => {
                return Err(format!(
                    "its width {embed_dim} is not a multiple of {HEAD_DIM}, so the number of \
                     heads is unknown; put a config.json with `num_attention_heads` beside it"
                ));
            }
        };
        if num_heads == 0 || embed_dim % num_heads != 0 {
            return Err(format!("{num_heads} heads do not divide its width {embed_dim}"));
        }
        Ok(VitConfig {
            embed_dim,
            depth,
            num_heads,
            ffn,
            ffn_hidden_dim,
            num_register_tokens,
            pos_embed_grid,
        })
    }

    /// Every parameter of a backbone, in the file's own names and shapes.
    pub(super) fn parameters(self, config: &VitConfig) -> Vec<Parameter> {
        let (dim, hidden) = (config.embed_dim, config.ffn_hidden_dim);
        let mut list = Vec::new();
        let mut add = |canonical: String, shape: &[usize]| {
            list.push(Parameter { parts: self.parts(&canonical, shape), canonical });
        };

        add("cls_token".into(), &[1, 1, dim]);
        let cells = config.pos_embed_grid.pow(2);
        let cls_row = usize::from(!self.cls_outside_pos_embed(config.num_register_tokens));
        add("pos_embed".into(), &[1, cells + cls_row, dim]);
        if config.num_register_tokens > 0 {
            add("register_tokens".into(), &[1, config.num_register_tokens, dim]);
        }
        if self != Self::Timm {
            add("mask_token".into(), &[1, dim]);
        }
        add("patch_embed.proj.weight".into(), &[dim, 3, PATCH_SIZE, PATCH_SIZE]);
        add("patch_embed.proj.bias".into(), &[dim]);
        for i in 0..config.depth {
            for norm in ["norm1", "norm2"] {
                add(format!("blocks.{i}.{norm}.weight"), &[dim]);
                add(format!("blocks.{i}.{norm}.bias"), &[dim]);
            }
            add(format!("blocks.{i}.attn.qkv.weight"), &[3 * dim, dim]);
            add(format!("blocks.{i}.attn.qkv.bias"), &[3 * dim]);
            add(format!("blocks.{i}.attn.proj.weight"), &[dim, dim]);
            add(format!("blocks.{i}.attn.proj.bias"), &[dim]);
            add(format!("blocks.{i}.ls1.gamma"), &[dim]);
            add(format!("blocks.{i}.ls2.gamma"), &[dim]);
            let (first, second, inner) = match config.ffn {
                FfnKind::Mlp => ("fc1", "fc2", hidden),
                FfnKind::SwiGlu => ("w12", "w3", 2 * hidden),
            };
            add(format!("blocks.{i}.mlp.{first}.weight"), &[inner, dim]);
            add(format!("blocks.{i}.mlp.{first}.bias"), &[inner]);
            add(format!("blocks.{i}.mlp.{second}.weight"), &[dim, hidden]);
            add(format!("blocks.{i}.mlp.{second}.bias"), &[dim]);
        }
        add("norm.weight".into(), &[dim]);
        add("norm.bias".into(), &[dim]);
        list
    }

    /// timm's register models add the CLS row of the position embedding into `cls_token`.
    pub(crate) fn cls_outside_pos_embed(self, num_register_tokens: usize) -> bool {
        self == Self::Timm && num_register_tokens > 0
    }

    fn parts(self, canonical: &str, shape: &[usize]) -> Vec<Part> {
        let fused = canonical.split_once(".attn.qkv.");
        if let (Self::HuggingFace, Some((block, leaf))) = (self, fused) {
            let mut shape = shape.to_vec();
            shape[0] /= 3;
            let layer = block.replacen("blocks", "encoder.layer", 1);
            return ["query", "key", "value"]
                .map(|part| Part {
                    name: format!("{layer}.attention.attention.{part}.{leaf}"),
                    shape: shape.clone(),
                })
                .to_vec();
        }
        vec![Part { name: self.name(canonical), shape: shape.to_vec() }]
    }

    /// The file's name for a canonical one that is stored as a single tensor.
    fn name(self, canonical: &str) -> String {
        match self {
            Self::Meta => canonical.to_owned(),
            Self::Timm => match canonical {
                "register_tokens" => "reg_token".to_owned(),
                other => other.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."),
            },
            Self::HuggingFace => match canonical {
                "cls_token" | "mask_token" | "register_tokens" => format!("embeddings.{canonical}"),
                "pos_embed" => "embeddings.position_embeddings".to_owned(),
                "norm.weight" | "norm.bias" => canonical.replacen("norm", "layernorm", 1),
                other => other
                    .replacen("patch_embed.proj", "embeddings.patch_embeddings.projection", 1)
                    .replacen("blocks.", "encoder.layer.", 1)
                    .replacen(".attn.proj.", ".attention.output.dense.", 1)
                    .replacen(".ls1.gamma", ".layer_scale1.lambda1", 1)
                    .replacen(".ls2.gamma", ".layer_scale2.lambda1", 1)
                    .replacen(".mlp.w12.", ".mlp.weights_in.", 1)
                    .replacen(".mlp.w3.", ".mlp.weights_out.", 1),
            },
        }
    }
}

/// Compares what a file holds with what it should hold.
pub(super) fn check(tensors: &TensorInfos, parameters: &[Parameter]) -> Vec<TensorProblem> {
    let parts = || parameters.iter().flat_map(|parameter| &parameter.parts);
    let mut problems: Vec<TensorProblem> = parts()
        .filter_map(|Part { name, shape }| match tensors.get(name) {
            None => Some(TensorProblem::Missing { name: name.clone(), expected: shape.clone() }),
            Some(info) if info.shape != *shape => Some(TensorProblem::Shape {
                name: name.clone(),
                got: info.shape.clone(),
                expected: shape.clone(),
            }),
            Some(info) => match &info.dtype {
                StoredDtype::Other(dtype) => {
                    Some(TensorProblem::Dtype { name: name.clone(), got: dtype.clone() })
                }
                _ => None,
            },
        })
        .collect();
    let known: std::collections::BTreeSet<&str> = parts().map(|p| p.name.as_str()).collect();
    problems.extend(tensors.iter().filter(|(name, _)| !known.contains(name.as_str())).map(
        |(name, info)| TensorProblem::Surplus { name: name.clone(), got: info.shape.clone() },
    ));
    problems
}

#[cfg(test)]
mod tests {
    use super::super::file::TensorInfo;
    use super::*;
    use crate::vit::config::VARIANTS;

    /// What a sound file of this shape and layout holds.
    fn tensors_of(layout: Layout, config: &VitConfig) -> TensorInfos {
        let parts = layout.parameters(config).into_iter().flat_map(|parameter| parameter.parts);
        parts.map(|part| (part.name, TensorInfo::f32(&part.shape))).collect()
    }

    #[test]
    fn every_released_variant_is_recognised_in_every_layout() {
        for variant in VARIANTS {
            let config = variant.config();
            for layout in [Layout::Meta, Layout::HuggingFace, Layout::Timm] {
                let tensors = tensors_of(layout, &config);
                let case = format!("{} {layout}", variant.name);
                assert_eq!(Layout::detect(&tensors), Ok(layout), "{case}");
                assert_eq!(layout.infer_config(&tensors, None), Ok(config.clone()), "{case}");
                assert!(check(&tensors, &layout.parameters(&config)).is_empty(), "{case}");
            }
        }
    }

    #[test]
    fn a_released_file_has_as_many_tensors_as_published() {
        // The shared ViT-S/14 encoder and facebook/dinov2-small: 223 with separate q, k and v.
        let config = VARIANTS[0].config();
        assert_eq!(tensors_of(Layout::HuggingFace, &config).len(), 223);
        assert_eq!(tensors_of(Layout::Meta, &config).len(), 175);
    }
}
