//! The trainable backbone against the frozen one, and packed crops against separate passes.

use candle_core::{DType, Device, Tensor};
use engine::train::Student;
use engine::train::ops::MatmulPrecision;
use engine::vit::{PosEmbedRule, VisionTransformer, Weights};

const RULE: PosEmbedRule = PosEmbedRule::Published;

fn weights(file: &str) -> Weights {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("model.safetensors");
    std::fs::copy(fixtures::path(&format!("golden/{file}")), &path).expect("copy");
    let config = r#"{"num_attention_heads": 2}"#;
    std::fs::write(folder.path().join("config.json"), config).expect("write");
    Weights::open(&path).expect(file)
}

fn student(file: &str, precision: MatmulPrecision) -> Student {
    Student::from_weights(&weights(file), RULE, precision, &Device::Cpu).expect(file)
}

fn crops() -> Vec<Tensor> {
    [(2, 224, 224), (3, 98, 98), (1, 70, 154)]
        .map(|shape: (usize, usize, usize)| {
            let shape = (shape.0, 3, shape.1, shape.2);
            Tensor::randn(0f32, 1.0, shape, &Device::Cpu).expect("noise")
        })
        .to_vec()
}

/// Largest difference relative to the largest value.
fn relative(got: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(got.dims(), expected.dims());
    let largest = |t: &Tensor| -> f32 {
        t.abs().and_then(|t| t.flatten_all()?.max(0)?.to_scalar()).expect("f32 values")
    };
    largest(&(got - expected).expect("shapes agree")) / largest(expected).max(f32::MIN_POSITIVE)
}

#[test]
fn it_computes_what_the_frozen_backbone_computes() {
    for file in [
        "tiny_plain.hf.safetensors",
        "tiny_registers.hf.safetensors",
        "tiny_registers.timm.safetensors",
    ] {
        let frozen = VisionTransformer::load(&weights(file), RULE, &Device::Cpu, DType::F32);
        let frozen = frozen.expect(file);
        let crops = crops();
        let out = student(file, MatmulPrecision::F32).forward(&crops).expect(file);
        for (pixels, out) in crops.iter().zip(&out) {
            let expected = frozen.forward(pixels).expect(file);
            assert_eq!(out.grid, expected.grid);
            assert!(relative(&out.cls, &expected.cls_token) < 1e-5, "{file}");
            assert!(relative(&out.patches, &expected.patch_tokens) < 1e-5, "{file}");
        }
    }
}

#[test]
fn packed_gradients_equal_the_sum_of_separate_passes() {
    let mut student = student("tiny_registers.hf.safetensors", MatmulPrecision::F32);
    let crops = crops();
    let loss = |out: &engine::train::CropTokens| -> candle_core::Result<Tensor> {
        out.cls.sqr()?.sum_all()? + out.patches.sin()?.sum_all()?
    };
    let packed = student.forward(&crops).expect("forward");
    let total = packed.iter().map(|out| loss(out).expect("loss"));
    let total = total.reduce(|a, b| (a + b).expect("scalars")).expect("three crops");
    let packed = total.backward().expect("backward");
    let separate: Vec<_> = crops
        .iter()
        .map(|crop| {
            let out = student.forward(std::slice::from_ref(crop)).expect("forward");
            loss(&out[0]).and_then(|loss| loss.backward()).expect("backward")
        })
        .collect();
    for (name, parameter) in student.parameters() {
        let packed = packed.get(parameter).unwrap_or_else(|| panic!("{name} has no gradient"));
        let sum = separate.iter().filter_map(|gradients| gradients.get(parameter)).cloned();
        let sum = sum.reduce(|a, b| (a + b).expect("same shape")).expect("three gradients");
        let error = relative(packed, &sum);
        assert!(error < 1e-5, "{name}: {error}");
    }
}

#[test]
fn bf16_products_stay_near_f32() {
    let crops = crops();
    let run = |precision| student("tiny_plain.hf.safetensors", precision).forward(&crops);
    let (exact, rounded) = (run(MatmulPrecision::F32), run(MatmulPrecision::Bf16));
    for (exact, rounded) in exact.expect("f32").iter().zip(&rounded.expect("bf16")) {
        let error = relative(&rounded.cls, &exact.cls);
        assert!(error > 0.0 && error < 0.05, "{error}");
    }
}

#[test]
fn what_it_cannot_train_is_refused() {
    let swiglu = weights("tiny_swiglu.hf.safetensors");
    let error = Student::from_weights(&swiglu, RULE, MatmulPrecision::F32, &Device::Cpu);
    assert!(error.expect_err("SwiGLU").to_string().contains("SwiGLU"));
    let odd = Tensor::zeros((1, 3, 100, 98), DType::F32, &Device::Cpu).expect("zeros");
    let mut student = student("tiny_plain.hf.safetensors", MatmulPrecision::F32);
    assert!(student.forward(&[odd]).expect_err("odd size").to_string().contains("multiples of 14"));
    assert!(student.forward(&[]).expect("nothing to do").is_empty());
}
