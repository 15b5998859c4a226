//! Heads against PyTorch's SGD and scikit-learn's logistic regression, and probe tokens against the
//! backbone.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use engine::probe::{Heads, fit_logistic};
use engine::train::schedule::CosineSchedule;
use engine::vit::{PosEmbedRule, VisionTransformer, Weights};
use engine::{DinoEmbedder, Embedder, ModelOptions, Preprocess, RgbImage};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn golden() -> Result<HashMap<String, Tensor>> {
    Ok(candle_core::safetensors::load(fixtures::path("golden/probe.safetensors"), &Device::Cpu)?)
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |max, (a, b)| max.max((a - b).abs()))
}

#[test]
fn stacked_heads_follow_pytorchs_sgd_with_momentum_and_cosine() -> Result {
    let golden = golden()?;
    let rates: Vec<f64> = golden["sgd.rates"].to_vec1()?;
    let labels: Vec<Vec<u32>> = golden["sgd.labels"].to_vec2()?;
    let starts = [values(&golden["sgd.start.0"])?, values(&golden["sgd.start.1"])?];
    let mut heads = Heads::from_weights(5, &rates, &starts)?;
    let schedule = CosineSchedule::new(1.0, 0.0, labels.len());
    for (step, labels) in labels.iter().enumerate() {
        let batch = |set: usize| values(&golden[&format!("sgd.features.{set}")].get(step)?);
        let losses = heads.step(&[batch(0)?, batch(1)?], labels, schedule.at(step));
        let difference = largest_difference(&losses, &values(&golden["sgd.losses"].get(step)?)?);
        assert!(difference < 1e-5, "losses of step {step}: {difference}");
        if ![3, 6].contains(&(step + 1)) {
            continue;
        }
        for i in 0..heads.len() {
            let (weight, bias) = heads.head(i).expect("a head");
            for (part, ours) in [("weight", weight), ("bias", bias)] {
                let theirs = values(&golden[&format!("sgd.{}.{part}.{i}", step + 1)])?;
                let difference = largest_difference(&ours, &theirs);
                assert!(difference < 2e-6, "step {step}, {part} of head {i}: {difference}");
            }
        }
    }
    Ok(())
}

#[test]
fn logistic_regression_reaches_scikit_learns_optimum() -> Result {
    let golden = golden()?;
    for (name, classes) in [("four", 4), ("two", 2)] {
        let features = values(&golden[&format!("logistic.{name}.features")])?;
        let labels: Vec<u32> = golden[&format!("logistic.{name}.labels")].to_vec1()?;
        for (c, text) in [(0.001, "0.001"), (1.0, "1"), (100.0, "100")] {
            let theirs = |part: &str| -> Result<Vec<f64>> {
                let tensor = &golden[&format!("logistic.{name}.{text}.{part}")];
                Ok(tensor.flatten_all()?.to_vec1()?)
            };
            let fitted = fit_logistic(c, classes, &features, &labels, None)?;
            assert!(fitted.gradient < 1e-8, "{name} {c}: {}", fitted.gradient);
            let (mut weight, mut bias) = (fitted.weight, fitted.bias);
            if classes == 2 {
                // scikit-learn keeps one row for two classes.
                weight = (0..7).map(|i| weight[7 + i] - weight[i]).collect();
                bias = vec![bias[1] - bias[0]];
            }
            for (part, ours) in [("weight", weight), ("bias", bias)] {
                for (a, b) in ours.iter().zip(theirs(part)?) {
                    let difference = (a - b).abs();
                    assert!(difference < 1e-4 * b.abs().max(1.0), "{name} {c} {part}: {a} {b}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn probe_tokens_are_those_of_the_backbone() -> Result {
    let options = ModelOptions { preprocess: Preprocess::new(32, 28)?, ..ModelOptions::default() };
    let folder = tempfile::tempdir()?;
    let weights = folder.path().join("model.safetensors");
    std::fs::copy(fixtures::path("golden/tiny_registers.hf.safetensors"), &weights)?;
    std::fs::write(folder.path().join("config.json"), r#"{"num_attention_heads": 2}"#)?;
    let model = DinoEmbedder::open(&weights, &options, &Device::Cpu)?;
    let pictures = [3u8, 90].map(|n| {
        RgbImage::from_fn(40, 36, |x, y| {
            [(x as u8).wrapping_mul(n), (y as u8).wrapping_mul(n), n].into()
        })
    });
    let pixels = [model.prepare(&pictures[0])?, model.prepare(&pictures[1])?];
    let depth = model.config().depth;
    let tokens = model.probe_tokens(&pixels, 2)?;
    let stacked: Vec<f32> = pixels.iter().flat_map(|p| p.chw().into_owned()).collect();
    let input = Tensor::from_vec(stacked, (2, 3, 28, 28), &Device::Cpu)?;
    let reference = VisionTransformer::load(
        &Weights::open(&weights)?,
        PosEmbedRule::Published,
        &Device::Cpu,
        DType::F32,
    )?;
    let layers = reference.intermediate_layers(&input, &[depth - 2, depth - 1])?;
    for (i, tokens) in tokens.iter().enumerate() {
        let cls = [&layers[0].cls_token, &layers[1].cls_token].map(|cls| cls.get(i));
        let [before, last] = cls;
        let expected = [values(&before?)?, values(&last?)?].concat();
        assert!(largest_difference(&tokens.cls, &expected) < 1e-5);
        let mean = layers[1].patch_tokens.get(i)?.mean(0)?;
        assert!(largest_difference(&tokens.mean_patch, &values(&mean)?) < 1e-5);
    }
    // The last CLS is what is embedded, up to length.
    let embedding = &model.embed(&pixels[..1])?[0];
    let cls = engine::Embedding::normalised(tokens[0].cls[tokens[0].mean_patch.len()..].to_vec())?;
    assert!(embedding.similarity(&cls) > 0.999_999);
    assert!(model.probe_tokens(&pixels, depth + 1).is_err());
    Ok(())
}
