//! The backbone against PyTorch, stage by stage (`fixtures/reference/make_tiny_golden.py`), and on
//! real weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, safetensors};
use engine::preprocess::{IMAGENET_MEAN, IMAGENET_STD};
use engine::vit::{PosEmbedRule, Stage, VisionTransformer, Weights};

/// The input pictures of the golden files: the same integer hash as in the script.
fn picture(batch: u64, height: u64, width: u64) -> Tensor {
    let mut values = Vec::new();
    for b in 0..batch {
        for c in 0..3u64 {
            for y in 0..height {
                for x in 0..width {
                    let h = x * 374_761_393 + y * 668_265_263 + c * 2_147_483_647;
                    let mut h = (h + b * 1_274_126_177 + 12_345) % (1 << 32);
                    h = ((h ^ (h >> 13)) * 1_274_126_177) % (1 << 32);
                    let noise = (h ^ (h >> 16)) & 0xFF;
                    let smooth = (x * 3 + y * 5 + c * 40 + b * 17) % 256;
                    let value = ((smooth * 3 + noise) / 4) as f32 / 255.0;
                    let c = c as usize;
                    values.push((value - IMAGENET_MEAN[c]) / IMAGENET_STD[c]);
                }
            }
        }
    }
    let shape = (batch as usize, 3, height as usize, width as usize);
    Tensor::from_vec(values, shape, &Device::Cpu).expect("shape fits")
}

const SIZES: [(u64, u64, u64); 6] =
    [(2, 224, 224), (1, 518, 518), (2, 98, 98), (1, 154, 98), (1, 70, 266), (1, 532, 546)];

/// A folder with the weights and a `config.json`: two heads of 16 cannot be told from the tensors.
fn with_config(weights: &Path) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let extension = weights.extension().and_then(|e| e.to_str()).expect("extension");
    let path = folder.path().join(format!("model.{extension}"));
    std::fs::copy(weights, &path).expect("copy");
    let config = r#"{"num_attention_heads": 2}"#;
    std::fs::write(folder.path().join("config.json"), config).expect("write");
    (folder, path)
}

fn load(file: &str, rule: PosEmbedRule) -> VisionTransformer {
    let (_folder, path) = with_config(&fixtures::path(&format!("golden/{file}")));
    let weights = Weights::open(&path).expect(file);
    VisionTransformer::load(&weights, rule, &Device::Cpu, DType::F32).expect(file)
}

/// Largest difference relative to the largest value, and the smallest cosine of a token.
fn compare(got: &Tensor, expected: &Tensor) -> (f32, f32) {
    assert_eq!(got.dims(), expected.dims());
    let width = got.dims().last().copied().expect("rank");
    let flat = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
    let (got, expected) = (flat(got), flat(expected));
    let scale = expected.iter().fold(0f32, |max, v| max.max(v.abs()));
    let worst = got.iter().zip(&expected).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
    let cosine = got.chunks(width).zip(expected.chunks(width)).map(|(a, b)| {
        let dot = |x: &[f32], y: &[f32]| -> f64 {
            x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
        };
        (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()) as f32
    });
    (worst / scale, cosine.fold(1.0, f32::min))
}

fn stage_name(stage: Stage) -> String {
    match stage {
        Stage::PatchEmbed => "patch_embed".to_owned(),
        Stage::Tokens => "tokens".to_owned(),
        Stage::Attention(i) => format!("block{i}.attn"),
        Stage::Block(i) => format!("block{i}.mlp"),
        Stage::Norm => "norm".to_owned(),
    }
}

/// Every stage and intermediate layer of a model at one size, by the golden file's names.
fn stages(model: &VisionTransformer, input: &Tensor) -> BTreeMap<String, Tensor> {
    let mut stages = BTreeMap::new();
    model
        .forward_observed(input, &mut |stage, x| {
            stages.insert(stage_name(stage), x.clone());
            Ok(())
        })
        .expect("forward");
    let layers: Vec<usize> = (0..model.config().depth).collect();
    let outputs = model.intermediate_layers(input, &layers).expect("layers");
    for (i, features) in outputs.into_iter().enumerate() {
        let cls = features.cls_token.unsqueeze(1).expect("rank");
        let parts = [&cls, &features.register_tokens, &features.patch_tokens];
        let tokens = Tensor::cat(&parts, 1).expect("cat");
        stages.insert(format!("intermediate{i}"), tokens);
    }
    stages
}

fn check_family(family: &str, layouts: &[&str]) {
    let golden = fixtures::path(&format!("golden/tiny_{family}.safetensors"));
    let golden = safetensors::load(golden, &Device::Cpu).expect("golden file");
    let mut compared = 0;
    for layout in layouts {
        for (rule, name) in
            [(PosEmbedRule::Published, "published"), (PosEmbedRule::Transformers, "transformers")]
        {
            let model = load(&format!("tiny_{family}.{layout}"), rule);
            for (batch, height, width) in SIZES {
                let size = format!("{height}x{width}");
                for (stage, got) in stages(&model, &picture(batch, height, width)) {
                    let Some(expected) = golden.get(&format!("{size}/{name}/{stage}")) else {
                        assert_eq!(name, "transformers", "{size} {stage} is not in the file");
                        continue;
                    };
                    let index = if stage == "patch_embed" { "patch_index" } else { "token_index" };
                    let got = match golden.get(&format!("{size}/{index}")) {
                        Some(index) => got.index_select(index, 1).expect("index"),
                        None => got,
                    };
                    let (difference, cosine) = compare(&got, expected);
                    let case = format!("{family} {layout} {size} {name} {stage}");
                    assert!(difference <= 2e-4, "{case}: differs by {difference}");
                    assert!(cosine >= 0.99999, "{case}: cosine {cosine}");
                    compared += 1;
                }
            }
        }
    }
    // 9 stages at 6 sizes under the published rule, 2 under transformers'.
    assert_eq!(compared, layouts.len() * 6 * (9 + 2));
}

#[test]
fn plain_models_agree_with_pytorch_at_every_stage() {
    check_family("plain", &["hf.safetensors", "meta.safetensors"]);
}

#[test]
fn register_models_agree_with_pytorch_at_every_stage() {
    check_family("registers", &["hf.safetensors", "meta.pth", "timm.safetensors"]);
}

#[test]
fn swiglu_models_agree_with_pytorch_at_every_stage() {
    check_family("swiglu", &["hf.safetensors", "meta.pth", "timm.safetensors"]);
}

#[test]
fn half_precision_files_load_and_come_close() {
    let input = picture(2, 98, 98);
    let full = load("tiny_plain.hf.safetensors", PosEmbedRule::Published);
    let full = full.forward(&input).expect("forward").cls_token;
    for (file, least) in
        [("tiny_plain.hf.f16.safetensors", 0.99999), ("tiny_plain.hf.bf16.safetensors", 0.999)]
    {
        let half = load(file, PosEmbedRule::Published).forward(&input).expect("forward");
        let (_, cosine) = compare(&half.cls_token, &full);
        assert!(cosine >= least, "{file}: {cosine}");
    }
}

#[test]
fn inputs_of_the_wrong_shape_are_refused() {
    let model = load("tiny_plain.hf.safetensors", PosEmbedRule::Published);
    for shape in [&[1, 3, 100, 98][..], &[1, 1, 98, 98], &[3, 98, 98], &[0, 3, 98, 98]] {
        let input = Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros");
        let message = model.forward(&input).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains("multiples of 14"), "{shape:?}: {message}");
    }
    let input = picture(1, 98, 98);
    let message = model.intermediate_layers(&input, &[1, 2]).err().map(|e| e.to_string());
    assert_eq!(message.as_deref(), Some("layer 2 asked for, but the model has blocks 0..2"));
}

#[test]
fn real_weights_give_the_reference_output_under_both_rules() {
    let Some(shared) = fixtures::shared() else {
        println!("skipped: no shared folder with real weights");
        return;
    };
    let golden = shared.join("reference/dav2_small_golden_224.safetensors");
    let golden = safetensors::load(golden, &Device::Cpu).expect("golden file");
    let path = shared.join("weights/dav2-small-encoder.fp16.safetensors");
    let weights = Weights::open(&path).expect("weights");
    assert_eq!(weights.config().variant_name(), "vits14");
    for (rule, key) in
        [(PosEmbedRule::Published, "y_published"), (PosEmbedRule::Transformers, "y_size_rule")]
    {
        let model = VisionTransformer::load(&weights, rule, &Device::Cpu, DType::F32);
        let stages = stages(&model.expect("model"), &golden["x"]);
        let expected = &golden[key];
        let (difference, cosine) = compare(&stages["norm"], expected);
        let scale = expected.abs().and_then(|x| x.flatten_all()?.max(0)).expect("max");
        let absolute = difference * scale.to_scalar::<f32>().expect("scalar");
        println!("{key}: max abs {absolute:.1e}, least cosine {cosine:.7}");
        assert!(absolute <= 5e-3, "{key}: {absolute}");
        assert!(cosine >= 0.99999, "{key}: {cosine}");
    }
}
