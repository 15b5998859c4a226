//! Parameters of a backbone: their shapes, and the random values the reference starts from.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use candle_core::{Device, Tensor, Var};
use rand::Rng;

use crate::error::Result;
use crate::train::augment::generator;
use crate::vit::config::{FfnKind, PATCH_SIZE, VitConfig};

/// Standard deviation of matrices and position embeddings (reference: `init_weights_vit_timm`).
const STD: f64 = 0.02;
/// Standard deviation of CLS and registers (reference: `DinoVisionTransformer.init_weights`).
const TOKEN_STD: f64 = 1e-6;
/// Initial LayerScale (arXiv 2304.07193, table 16).
const LAYER_SCALE: f32 = 1e-5;

/// Names and shapes of all parameters but `pos_embed` and `mask_token`.
pub(super) fn shapes(config: &VitConfig) -> Vec<(String, Vec<usize>)> {
    let (dim, hidden) = (config.embed_dim, config.ffn_hidden_dim);
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("cls_token".into(), vec![1, dim]),
        ("patch_embed.proj.weight".into(), vec![dim, 3 * PATCH_SIZE * PATCH_SIZE]),
        ("patch_embed.proj.bias".into(), vec![dim]),
        ("norm.weight".into(), vec![dim]),
        ("norm.bias".into(), vec![dim]),
    ];
    if config.num_register_tokens > 0 {
        shapes.push(("register_tokens".into(), vec![config.num_register_tokens, dim]));
    }
    for i in 0..config.depth {
        let mut add = |part: &str, shape: &[usize]| {
            shapes.push((format!("blocks.{i}.{part}"), shape.to_vec()));
        };
        for norm in ["norm1", "norm2"] {
            add(&format!("{norm}.weight"), &[dim]);
            add(&format!("{norm}.bias"), &[dim]);
        }
        let [first, second] = match config.ffn {
            FfnKind::Mlp => [("mlp.fc1", dim, hidden), ("mlp.fc2", hidden, dim)],
            FfnKind::SwiGlu => [("mlp.w12", dim, 2 * hidden), ("mlp.w3", hidden, dim)],
        };
        let attention = [("attn.qkv", dim, 3 * dim), ("attn.proj", dim, dim)];
        for (name, input, output) in attention.into_iter().chain([first, second]) {
            add(&format!("{name}.weight"), &[output, input]);
            add(&format!("{name}.bias"), &[output]);
        }
        add("ls1.gamma", &[dim]);
        add("ls2.gamma", &[dim]);
    }
    shapes
}

/// Random parameters, `pos_embed` and `mask_token` included: a function of the seed alone.
pub(super) fn random(
    config: &VitConfig,
    seed: u64,
    device: &Device,
) -> Result<BTreeMap<String, Var>> {
    let dim = config.embed_dim;
    let mut shapes = shapes(config);
    shapes.push(("pos_embed".to_owned(), vec![1 + config.pos_embed_grid.pow(2), dim]));
    shapes.push(("mask_token".to_owned(), vec![1, dim]));
    let mut parameters = BTreeMap::new();
    for (name, shape) in shapes {
        let count = shape.iter().product();
        let mut rng = generator(seed, &format!("initial {name}"), [0, 0]);
        let values = match name.as_str() {
            // PyTorch's own initialisation of a convolution, which the reference leaves alone.
            "patch_embed.proj.weight" | "patch_embed.proj.bias" => {
                uniform(&mut rng, count, 3 * PATCH_SIZE * PATCH_SIZE)
            }
            "cls_token" | "register_tokens" => normal(&mut rng, count, TOKEN_STD),
            "mask_token" => vec![0.0; count],
            "pos_embed" => normal(&mut rng, count, STD),
            _ if name.ends_with("gamma") => vec![LAYER_SCALE; count],
            _ if name.contains("norm") && name.ends_with("weight") => vec![1.0; count],
            _ if name.ends_with("bias") => vec![0.0; count],
            _ => normal(&mut rng, count, STD),
        };
        parameters.insert(name, variable(values, &shape, device)?);
    }
    Ok(parameters)
}

pub(in crate::train) fn variable(
    values: Vec<f32>,
    shape: &[usize],
    device: &Device,
) -> Result<Var> {
    Ok(Var::from_tensor(&Tensor::from_vec(values, shape, device)?)?)
}

/// Normal values, drawn again beyond -2 and 2 (PyTorch's `trunc_normal_`, whose bounds are
/// absolute).
pub(in crate::train) fn normal(rng: &mut impl Rng, count: usize, std: f64) -> Vec<f32> {
    let mut draw = || loop {
        // Box-Muller; 1 - u keeps the logarithm finite.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let value = std * radius * (TAU * rng.random::<f64>()).cos();
        if value.abs() <= 2.0 {
            return value as f32;
        }
    };
    (0..count).map(|_| draw()).collect()
}

/// PyTorch's default for linear layers and convolutions with `fan_in` inputs: uniform within
/// 1 / sqrt(`fan_in`) of 0.
pub(in crate::train) fn uniform(rng: &mut impl Rng, count: usize, fan_in: usize) -> Vec<f32> {
    let bound = (fan_in as f64).powf(-0.5);
    (0..count).map(|_| rng.random_range(-bound..=bound) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_spread_as_the_reference_draws_them() -> Result<()> {
        let config = VitConfig::mlp(64, 2, 1, 4);
        let parameters = random(&config, 5, &Device::Cpu)?;
        let spread = |name: &str| -> Result<(f64, f64)> {
            let values = parameters[name].flatten_all()?.to_vec1::<f32>()?;
            let count = values.len() as f64;
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
            let square = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
            Ok((mean, (square / count).sqrt()))
        };
        let (mean, std) = spread("blocks.1.mlp.fc1.weight")?;
        assert!(mean.abs() < 1e-3 && (std - 0.02).abs() < 1e-3, "{mean} {std}");
        let (_, std) = spread("patch_embed.proj.weight")?;
        let expected = 588f64.powf(-0.5) / 3f64.sqrt();
        assert!((std / expected - 1.0).abs() < 0.02, "{std} {expected}");
        assert_eq!(spread("blocks.0.ls2.gamma")?.1, 0.0);
        assert_eq!(parameters["pos_embed"].dims(), [17, 64]);
        let again = random(&config, 5, &Device::Cpu)?;
        let other = random(&config, 6, &Device::Cpu)?;
        let values = |from: &BTreeMap<String, Var>| from["pos_embed"].to_vec2::<f32>();
        assert_eq!(values(&parameters)?, values(&again)?);
        assert_ne!(values(&parameters)?, values(&other)?);
        Ok(())
    }
}
