//! The kernels on whole models: PyTorch's outputs, and candle's.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, safetensors};

use super::super::cpu::{Batch, CpuVit, Tokens};
use super::super::{PosEmbedRule, VisionTransformer, Weights};
use super::{Backbone, Placement, parameter};
use crate::kernels::{Isa, Precision, Team};

/// Sizes of the golden files: pictures, height, width.
const SIZES: [(usize, usize, usize); 6] =
    [(2, 224, 224), (1, 518, 518), (2, 98, 98), (1, 154, 98), (1, 70, 266), (1, 532, 546)];

/// Pixel `value` of `tests/generate/golden.py`'s pictures, normalised; one vector a picture.
fn pictures((batch, height, width): (usize, usize, usize)) -> Vec<Vec<f32>> {
    let value = |b: u64, c: u64, y: u64, x: u64| {
        let h = x * 374_761_393 + y * 668_265_263 + c * 2_147_483_647;
        let mut h = (h + b * 1_274_126_177 + 12_345) % (1 << 32);
        h = ((h ^ (h >> 13)) * 1_274_126_177) % (1 << 32);
        let noise = (h ^ (h >> 16)) & 0xFF;
        let smooth = (x * 3 + y * 5 + c * 40 + b * 17) % 256;
        let value = ((smooth * 3 + noise) / 4) as f32 / 255.0;
        let c = c as usize;
        (value - [0.485, 0.456, 0.406][c]) / [0.229, 0.224, 0.225][c]
    };
    let (height, width) = (height as u64, width as u64);
    let picture = |b: usize| {
        let rows = (0..3).flat_map(|c| (0..height).map(move |y| (c, y)));
        rows.flat_map(|(c, y)| (0..width).map(move |x| value(b as u64, c, y, x))).collect()
    };
    (0..batch).map(picture).collect()
}

fn open(family: &str) -> Weights {
    let folder = tempfile::tempdir().expect("temporary folder");
    let from = fixtures::path(&format!("golden/tiny_{family}.hf.safetensors"));
    std::fs::copy(from, folder.path().join("model.safetensors")).expect("copy");
    // Two heads of 16 cannot be told from the tensors.
    let config = r#"{"num_attention_heads": 2}"#;
    std::fs::write(folder.path().join("config.json"), config).expect("write");
    Weights::open(folder.path()).expect(family)
}

fn load(weights: &Weights, rule: PosEmbedRule, isa: Isa, precision: Precision) -> CpuVit {
    let values = |name: &str| parameter(weights, name);
    let model = CpuVit::load(weights.config(), rule, isa, precision, &values);
    model.expect("sound weights").expect("an instruction set that is there")
}

/// All tokens after each of `layers`: (layers, pictures, tokens, width).
fn run(model: &CpuVit, images: &[&[f32]], (height, width): (usize, usize)) -> Tensor {
    let layers: Vec<usize> = (0..model.config().depth).collect();
    let (tokens, dim) = (model.tokens(height, width), model.config().embed_dim);
    let mut out = vec![f32::NAN; layers.len() * images.len() * tokens * dim];
    model.forward(&Team::new(2), Batch { images, height, width }, &layers, Tokens::All, &mut out);
    Tensor::from_vec(out, (layers.len(), images.len(), tokens, dim), &Device::Cpu).expect("shape")
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|t| t.to_vec1()).expect("f32")
}

/// Largest difference relative to the largest value.
fn difference(got: &Tensor, want: &Tensor) -> f32 {
    assert_eq!(got.dims(), want.dims());
    let (got, want) = (flat(got), flat(want));
    let scale = want.iter().fold(0f32, |max, v| max.max(v.abs()));
    got.iter().zip(&want).fold(0f32, |max, (a, b)| max.max((a - b).abs())) / scale
}

/// Smallest cosine of two rows of the last axis.
fn cosine(got: &Tensor, want: &Tensor) -> f64 {
    let width = got.dims().last().copied().expect("rank");
    let (got, want) = (flat(got), flat(want));
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let rows = got.chunks(width).zip(want.chunks(width));
    rows.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).fold(1.0, f64::min)
}

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| {
        if !isa.is_available() {
            println!("skipped: this machine has no {}", isa.name());
        }
        isa.is_available()
    })
}

#[test]
fn every_layer_agrees_with_pytorch_at_every_size_and_rule() {
    for family in ["plain", "registers", "swiglu"] {
        let golden = fixtures::path(&format!("golden/tiny_{family}.safetensors"));
        let golden = safetensors::load(golden, &Device::Cpu).expect("golden file");
        let weights = open(family);
        let mut compared = 0;
        for (rule, isa) in [PosEmbedRule::Published, PosEmbedRule::Transformers]
            .into_iter()
            .flat_map(|rule| available().map(move |isa| (rule, isa)))
        {
            let model = load(&weights, rule, isa, Precision::F32);
            for size in SIZES {
                let images = pictures(size);
                let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
                let layers = run(&model, &images, (size.1, size.2));
                let key = format!("{}x{}", size.1, size.2);
                let last = model.config().depth - 1;
                for (layer, name) in (0..=last)
                    .map(|layer| (layer, format!("intermediate{layer}")))
                    .chain([(last, "norm".to_owned())])
                {
                    let Some(want) = golden.get(&format!("{key}/{rule}/{name}")) else { continue };
                    let got = layers.get(layer).expect("layer");
                    let got = match golden.get(&format!("{key}/token_index")) {
                        Some(index) => got.index_select(index, 1).expect("index"),
                        None => got,
                    };
                    let difference = difference(&got, want);
                    let case = format!("{family} {key} {rule} {} {name}", isa.name());
                    assert!(difference <= 2e-4, "{case}: {difference}");
                    compared += 1;
                }
            }
        }
        assert!(compared >= 18, "{family}: {compared} compared");
    }
}

struct Real {
    weights: Weights,
    golden: HashMap<String, Tensor>,
}

fn real() -> Option<Real> {
    let Some(shared) = fixtures::shared() else {
        println!("skipped: no shared folder with real weights");
        return None;
    };
    let golden = shared.join("reference/dav2_small_golden_224.safetensors");
    Some(Real {
        weights: Weights::open(&shared.join("weights/dav2-small-encoder.fp16.safetensors"))
            .expect("weights"),
        golden: safetensors::load(golden, &Device::Cpu).expect("golden file"),
    })
}

#[test]
fn real_weights_agree_with_pytorch_and_candle_in_every_precision() {
    let Some(Real { weights, golden }) = real() else { return };
    let x = &golden["x"];
    let images = flat(x);
    let images: Vec<&[f32]> = images.chunks(3 * 224 * 224).collect();
    let rule = PosEmbedRule::Published;
    let candle = VisionTransformer::load(&weights, rule, &Device::Cpu, DType::F32);
    let candle = candle.and_then(|model| model.forward(x)).expect("candle").cls_token;
    for isa in available().filter(|&isa| isa != Isa::Portable) {
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let model = load(&weights, rule, isa, precision);
            let layers = run(&model, &images, (224, 224));
            let last = layers.get(model.config().depth - 1).expect("layer");
            let cls = last.narrow(1, 0, 1).and_then(|t| t.squeeze(1)).expect("CLS");
            let want = &golden["y_published"];
            let (token, cosine_cls) = (cosine(&last, want), cosine(&cls, &candle));
            let apart = difference(&cls, &candle);
            let case = format!("{} {precision}", isa.name());
            println!("{case}: tokens {token:.7}, CLS {cosine_cls:.7}, from candle {apart:.1e}");
            match precision {
                Precision::F32 => {
                    assert!(token >= 0.99999 && apart <= 1e-4, "{case}: {token}, {apart}");
                }
                Precision::Bf16 | Precision::F16 => {
                    assert!(token >= 0.99 && cosine_cls >= 0.999, "{case}: {token}, {cosine_cls}");
                }
                Precision::Int8 => assert!(cosine_cls >= 0.99, "{case}: {token}, {cosine_cls}"),
            }
        }
    }
}

#[test]
fn what_cannot_be_computed_is_refused_and_says_why() {
    let weights = open("plain");
    let devices = crate::Devices::CPU;
    let place = |precision, isa| Placement {
        devices: &devices,
        precision,
        isa,
        packed: None,
        side: 224,
        recordings: false,
    };
    let message = |place| {
        let loaded = Backbone::load(&weights, PosEmbedRule::Published, place);
        loaded.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(message(place(Precision::F32, None)), "");
    let heads = message(place(Precision::Bf16, None));
    assert!(heads.contains("2 heads") && heads.contains("--matmul f32"), "{heads}");
    assert!(message(place(Precision::F16, None)).contains("f16 is for GPUs"));
    let heads = message(place(Precision::Int8, None));
    assert!(heads.contains("in int8") && heads.contains("--matmul f32"), "{heads}");
    if !Isa::Amx.is_available() {
        let missing = message(place(Precision::F32, Some(Isa::Amx)));
        assert!(missing.contains("no amx") && missing.contains("portable"), "{missing}");
    }
}
