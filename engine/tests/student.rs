//! The trainable backbone against the frozen one, and packed crops against separate passes.

use candle_core::{DType, Device, Tensor};
use engine::train::augment::generator;
use engine::train::masking::Masking;
use engine::train::ops::MatmulPrecision;
use engine::train::{Crops, DropPlan, How, Pass, Student};
use engine::vit::{PosEmbedRule, VisionTransformer, VitConfig, Weights};
use rand::Rng;

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
        "tiny_swiglu.hf.safetensors",
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
    packed_gradients_equal_separate_ones("tiny_registers.hf.safetensors");
    packed_gradients_equal_separate_ones("tiny_swiglu.hf.safetensors");
}

fn packed_gradients_equal_separate_ones(file: &str) {
    let mut student = student(file, MatmulPrecision::F32);
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
    let odd = Tensor::zeros((1, 3, 100, 98), DType::F32, &Device::Cpu).expect("zeros");
    let mut student = student("tiny_plain.hf.safetensors", MatmulPrecision::F32);
    assert!(student.forward(&[odd]).expect_err("odd size").to_string().contains("multiples of 14"));
    assert!(student.forward(&[]).expect("nothing to do").is_empty());
}

/// Uniform between -1 and 1, always the same.
fn noise(name: &str, shape: &[usize]) -> Tensor {
    let mut rng = generator(0, name, [0, 0]);
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values")
}

/// A student with a mask token, masked global crops, and local crops.
fn masked() -> (Student, Vec<Crops>) {
    let config = VitConfig::mlp(48, 3, 3, 7);
    let student = Student::random(config, RULE, MatmulPrecision::F32, &Device::Cpu, 1);
    let student = student.expect("a student");
    // LayerScale of 1e-5 would hide what blocks do.
    for (name, parameter) in student.parameters() {
        if name.ends_with("gamma") || name == "mask_token" {
            let value = noise(name, parameter.dims());
            parameter.set(&((value * 0.3).and_then(|v| v + 0.5).expect("noise"))).expect("shape");
        }
    }
    let crops =
        |count: usize, side: usize| -> Crops { noise("crops", &[count, 3, side, side]).into() };
    let masks = Masking::default().draw(6, (7, 7), &mut generator(1, "masks", [0, 0]));
    let masks: Vec<u8> = masks.concat().into_iter().map(u8::from).collect();
    let masked = Tensor::from_vec(masks, (6, 49), &Device::Cpu).expect("masks");
    (student, vec![Crops { masked: Some(masked), ..crops(6, 98) }, crops(9, 42)])
}

/// A scalar that every token matters to.
fn loss(passes: &[Pass]) -> Tensor {
    let terms = passes
        .iter()
        .flat_map(|pass| &pass.tokens)
        .map(|out| (out.cls.sqr()?.sum_all()? * 0.1)? + out.patches.sin()?.sum_all()?);
    let terms: candle_core::Result<Vec<Tensor>> = terms.collect();
    terms.and_then(|terms| Tensor::stack(&terms, 0)?.sum_all()).expect("scalars")
}

/// Gradients by name.
fn gradients(student: &Student, passes: &[Pass]) -> Vec<(String, Tensor)> {
    let gradients = student.backward(passes, &loss(passes)).expect("backward");
    let of = |(name, parameter): (&String, &candle_core::Var)| {
        let gradient = gradients.get(parameter).unwrap_or_else(|| panic!("{name}: no gradient"));
        (name.clone(), gradient.clone())
    };
    student.parameters().iter().map(of).collect()
}

fn assert_close(got: &[(String, Tensor)], expected: &[(String, Tensor)], limit: f32) {
    assert_eq!(got.len(), expected.len());
    for ((name, got), (_, expected)) in got.iter().zip(expected) {
        let error = relative(got, expected);
        assert!(error < limit, "{name}: {error}");
    }
}

#[test]
fn packed_masked_and_local_crops_equal_separate_passes() {
    let (mut student, crops) = masked();
    let packed = [student.pass(&crops, How::default()).expect("packed")];
    let separate: Vec<Pass> = crops
        .iter()
        .map(|crops| student.pass(std::slice::from_ref(crops), How::default()).expect("separate"))
        .collect();
    for (packed, separate) in packed[0].tokens.iter().zip(&separate) {
        assert!(relative(&packed.cls, &separate.tokens[0].cls) < 1e-5);
        assert!(relative(&packed.patches, &separate.tokens[0].patches) < 1e-5);
    }
    assert_close(&gradients(&student, &packed), &gradients(&student, &separate), 1e-5);
    // Masks matter.
    let whole = [Crops::from(crops[0].pixels.clone())];
    let whole = student.pass(&whole, How::default()).expect("whole");
    assert!(relative(&whole.tokens[0].patches, &packed[0].tokens[0].patches) > 0.1);
}

#[test]
fn skipping_equals_computing_and_masking() {
    let (mut student, crops) = masked();
    let plan = DropPlan::draw(&mut generator(2, "plan", [0, 0]), 3, &[6, 9], 0.4);
    let how = How { drop_path: Some(&plan), ..How::default() };
    let skipping = [student.pass(&crops, how).expect("skipping")];
    let plain: Vec<Pass> = (0..2)
        .map(|i| {
            let part = plan.of_group(i);
            let how = How { drop_path: Some(&part), plain: true, ..How::default() };
            student.pass(&crops[i..=i], how).expect("plain")
        })
        .collect();
    for (skipping, plain) in skipping[0].tokens.iter().zip(&plain) {
        assert!(relative(&skipping.cls, &plain.tokens[0].cls) < 1e-5);
        assert!(relative(&skipping.patches, &plain.tokens[0].patches) < 1e-5);
    }
    // The plain way has another softmax, too.
    assert_close(&gradients(&student, &skipping), &gradients(&student, &plain), 5e-5);
    let all = student.pass(&crops, How::default()).expect("all");
    assert!(relative(&all.tokens[1].cls, &skipping[0].tokens[1].cls) > 1e-3);
}

#[test]
fn checkpointing_changes_no_bit() {
    let (mut student, crops) = masked();
    let plan = DropPlan::draw(&mut generator(3, "plan", [0, 0]), 3, &[6, 9], 0.3);
    for drop_path in [None, Some(&plan)] {
        let mut run = |checkpointing| {
            let how = How { drop_path, checkpointing, plain: false };
            let passes = [student.pass(&crops, how).expect("pass")];
            (gradients(&student, &passes), passes)
        };
        let ((kept, _), (again, _)) = (run(false), run(true));
        for ((name, kept), (_, again)) in kept.iter().zip(&again) {
            let bits = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
            assert_eq!(bits(kept), bits(again), "{name}");
        }
    }
}

#[test]
fn masks_that_do_not_fit_are_refused() {
    let (mut student, mut crops) = masked();
    crops[1].masked = crops[0].masked.clone();
    let error = student.pass(&crops, How::default()).expect_err("a mask of another size");
    assert!(error.to_string().contains("one mask value for each patch"), "{error}");
    let mut without = self::student("tiny_plain.hf.safetensors", MatmulPrecision::F32);
    let error = without.pass(&masked().1[..1], How::default()).expect_err("no mask token");
    assert!(error.to_string().contains("mask_token"), "{error}");
}
