//! Optimizer and distillation: against PyTorch, across interruptions, and with bad input.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use engine::RgbImage;
use engine::train::Student;
use engine::train::checkpoint::{WeightsDtype, write_weights};
use engine::train::distill::{DistillConfig, Distiller, Pictures, ViewGroup};
use engine::train::head::HeadConfig;
use engine::train::ops::MatmulPrecision;
use engine::train::optim::{AdamW, Group, ema_update};
use engine::train::ssl::{CropSizes, Execution, Losses, SslConfig, SslTrainer};
use engine::vit::{PosEmbedRule, VitConfig, Weights};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn largest_difference(a: &Tensor, b: &Tensor) -> Result<f32> {
    Ok((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar()?)
}

#[test]
fn optimizer_steps_and_moving_averages_equal_those_of_pytorch() -> Result {
    let golden =
        candle_core::safetensors::load(fixtures::path("golden/train.safetensors"), &Device::Cpu)?;
    let names = ["blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias", "patch_embed.proj.weight"];
    let variables = || -> Result<BTreeMap<String, Var>> {
        names
            .iter()
            .map(|name| {
                let start = golden[&format!("adamw.start.{name}")].copy()?;
                Ok(((*name).to_owned(), Var::from_tensor(&start)?))
            })
            .collect()
    };
    let (current, average) = (variables()?, variables()?);
    let mut optimizer = AdamW::new(
        current.iter().map(|(name, v)| (name.clone(), v.clone(), Group::of(name, 1, 1.0, 0.2))),
    )?;
    for (step, (lr, decay)) in [(1e-2, 0.04), (2e-2, 0.1), (5e-3, 0.2)].into_iter().enumerate() {
        // A function with the given gradients.
        let mut terms = Vec::new();
        for (name, variable) in &current {
            let gradient = &golden[&format!("adamw.{step}.grad.{name}")];
            terms.push((variable.as_tensor() * gradient)?.sum_all()?);
        }
        let gradients = Tensor::stack(&terms, 0)?.sum_all()?.backward()?;
        let norm = optimizer.step(&gradients, lr, decay, Some(3.0))?;
        let expected = golden[&format!("adamw.{step}.norm")].to_vec1::<f32>()?[0];
        assert!((norm - f64::from(expected)).abs() < 1e-5 * norm, "{norm} {expected}");
        ema_update(&average, &current, 0.9)?;
        for name in names {
            for (ours, part) in [(&current, "value"), (&average, "average")] {
                let theirs = &golden[&format!("adamw.{step}.{part}.{name}")];
                let difference = largest_difference(&ours[name], theirs)?;
                assert!(difference < 1e-6, "step {step}, {part} of {name}: {difference}");
            }
        }
    }
    Ok(())
}

/// Drawn pictures; number 3 cannot be read.
struct Drawn(usize);

impl Pictures for Drawn {
    fn len(&self) -> usize {
        self.0
    }

    fn name(&self, index: usize) -> String {
        format!("picture {index}")
    }

    fn load(&self, index: usize) -> std::result::Result<RgbImage, String> {
        if index == 3 {
            return Err("torn".to_owned());
        }
        let n = index as u32 + 1;
        Ok(RgbImage::from_fn(64, 48, |x, y| [(x * n) as u8, (y * 3 * n) as u8, 9].into()))
    }
}

fn teacher(folder: &Path) -> Result<Student> {
    std::fs::copy(
        fixtures::path("golden/tiny_plain.hf.safetensors"),
        folder.join("m.safetensors"),
    )?;
    std::fs::write(folder.join("config.json"), r#"{"num_attention_heads": 2}"#)?;
    let weights = Weights::open(&folder.join("m.safetensors"))?;
    let rule = PosEmbedRule::Published;
    Ok(Student::from_weights(&weights, rule, MatmulPrecision::F32, &Device::Cpu)?.frozen())
}

fn config() -> DistillConfig {
    DistillConfig {
        steps: 8,
        batch: 3,
        groups: vec![ViewGroup::global(28, 56), ViewGroup::local(2, 14, 28)],
        lr: 1e-3,
        warmup: 2,
        views: 2,
        ..DistillConfig::default()
    }
}

fn start(config: DistillConfig, cache: Option<&Path>) -> Result<Distiller> {
    let folder = tempfile::tempdir()?;
    let mut teacher = teacher(folder.path())?;
    let student = teacher.start_from(&[1, 0], 2)?;
    Ok(Distiller::new(config, &teacher, "sha", student, cache)?)
}

fn values(run: &Distiller) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for parameter in run.average().values() {
        all.extend(parameter.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(all)
}

#[test]
fn an_interrupted_run_is_equal_to_an_uninterrupted_one_bit_for_bit() -> Result {
    let folder = tempfile::tempdir()?;
    let (pictures, path) = (Drawn(7), folder.path().join("checkpoint.safetensors"));
    let mut whole = start(config(), None)?;
    let first = whole.step(&pictures)?.loss;
    let mut last = first;
    for _ in 1..8 {
        last = whole.step(&pictures)?.loss;
    }
    assert!(last < first, "the loss rises from {first} to {last}");

    let mut before = start(config(), None)?;
    for _ in 0..3 {
        before.step(&pictures)?;
    }
    before.save(&path)?;
    before.step(&pictures)?; // lost
    // Outputs of the teacher that were kept change nothing either.
    let mut after = start(config(), Some(folder.path()))?;
    after.resume(&path)?;
    assert_eq!(after.step_count(), 3);
    let mut skipped = 0;
    for _ in 3..8 {
        skipped += after.step(&pictures)?.skipped.len();
    }
    assert!(skipped > 0, "the torn picture comes up in two epochs");
    assert_eq!(values(&after)?, values(&whole)?);
    Ok(())
}

#[test]
fn what_cannot_be_trained_is_refused_with_a_remedy() -> Result {
    let message =
        |result: Result<Distiller>| result.err().map(|e| e.to_string()).unwrap_or_default();
    let odd =
        message(start(DistillConfig { groups: vec![ViewGroup::global(30, 56)], ..config() }, None));
    assert!(odd.contains("30 px; take a multiple of 14"), "{odd}");
    let none = message(start(DistillConfig { batch: 0, ..config() }, None));
    assert!(none.contains("at least 1"), "{none}");

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("checkpoint.safetensors");
    let mut run = start(config(), None)?;
    let empty = run.step(&Drawn(0)).err().map(|e| e.to_string());
    assert!(empty.is_some_and(|m| m.contains("no pictures")));
    run.save(&path)?;
    let before = values(&run)?;
    let mut other = start(DistillConfig { lr: 5e-3, ..config() }, None)?;
    let refused = other.resume(&path).err().map(|e| e.to_string());
    assert!(refused.is_some_and(|m| m.contains("other settings")));
    std::fs::write(&path, b"damaged")?;
    assert!(run.resume(&path).is_err());
    assert_eq!(values(&run)?, before);
    Ok(())
}

#[test]
fn a_run_that_diverges_stops_before_it_harms_the_model() -> Result {
    let mut run = start(DistillConfig { patch_weight: f64::INFINITY, ..config() }, None)?;
    let before = values(&run)?;
    let message = run.step(&Drawn(2)).err().map(|e| e.to_string());
    assert!(message.is_some_and(|m| m.contains("diverged") && m.contains("lower --lr")));
    assert_eq!(values(&run)?, before);
    assert_eq!(run.step_count(), 0);
    Ok(())
}

#[test]
fn finished_weights_are_read_back_in_every_dtype() -> Result {
    let folder = tempfile::tempdir()?;
    let mut teacher = teacher(folder.path())?;
    let student = teacher.start_from(&[0, 1], 2)?;
    std::fs::create_dir(folder.path().join("out"))?;
    let path = folder.path().join("out/model.safetensors");
    std::fs::write(folder.path().join("out/config.json"), r#"{"num_attention_heads": 2}"#)?;
    let rows = [WeightsDtype::F32, WeightsDtype::F16, WeightsDtype::Int8];
    for (dtype, limit) in rows.into_iter().zip([0.0, 1e-3, 1e-2]) {
        let metadata = [("akin.resize".into(), "32".into()), ("akin.crop".into(), "28".into())];
        let parameters = student.parameters();
        write_weights(&path, student.config(), parameters, dtype, metadata.into())?;
        let weights = Weights::open(&path)?;
        weights.check_values()?;
        assert_eq!(weights.preprocess()?.map(|p| (p.resize, p.crop)), Some((32, 28)));
        let rule = PosEmbedRule::Published;
        let read = Student::from_weights(&weights, rule, MatmulPrecision::F32, &Device::Cpu)?;
        assert_eq!(read.config(), student.config());
        for (name, parameter) in read.parameters() {
            let difference = largest_difference(parameter, &parameters[name])?;
            let scale = parameters[name].abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!(difference <= limit * scale, "{name} in {dtype:?}: {difference} of {scale}");
        }
    }
    Ok(())
}

#[test]
fn a_student_of_another_width_learns_through_a_projector() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("checkpoint.safetensors");
    let start = |id: &str| -> Result<Distiller> {
        let models = tempfile::tempdir()?;
        let teacher = teacher(models.path())?;
        let shape = VitConfig::mlp(16, 2, 2, 2);
        let rule = PosEmbedRule::Published;
        let student = Student::random(shape, rule, MatmulPrecision::F32, &Device::Cpu, 4)?;
        let config = DistillConfig { steps: 20, lr: 1e-2, warmup: 0, ..config() };
        Ok(Distiller::new(config, &teacher, id, student, None)?)
    };
    let pictures = Drawn(3);
    let mut run = start("sha")?;
    let first = run.step(&pictures)?.loss;
    run.save(&path)?;
    let mut last = first;
    for _ in 1..20 {
        last = run.step(&pictures)?.loss;
    }
    assert!(last < 0.8 * first, "the loss goes from {first} to {last}");
    // The projector is kept with the run, and is no part of the result.
    let mut again = start("sha")?;
    again.resume(&path)?;
    for _ in 1..20 {
        again.step(&pictures)?;
    }
    assert_eq!(values(&again)?, values(&run)?);
    assert!(run.average().keys().all(|name| !name.starts_with("projector")));
    Ok(())
}

fn published_config() -> SslConfig {
    SslConfig {
        sizes: CropSizes { global: 42, local: 28 },
        locals: 2,
        head: HeadConfig { hidden: 12, bottleneck: 6, prototypes: 10 },
        lr: 2e-3,
        warmup: 0,
        freeze_last_layer: 0,
        momentum: (0.9, 1.0),
        ..SslConfig::distillation(24, 3)
    }
}

fn backbone(width: usize, heads: usize, seed: u64) -> Result<Student> {
    let (shape, rule) = (VitConfig::mlp(width, 2, heads, 3), PosEmbedRule::Published);
    let student = Student::random(shape, rule, MatmulPrecision::F32, &Device::Cpu, seed)?;
    student.set_layer_scale(0.5)?;
    Ok(student)
}

fn published(config: SslConfig, teacher: &str, heads: Option<&Path>) -> Result<SslTrainer> {
    let (student, frozen) = (backbone(16, 2, 0)?, backbone(24, 3, 1)?);
    let how = Execution::default();
    Ok(SslTrainer::distillation(config, how, student, (&frozen, teacher), heads)?)
}

fn modules(run: &SslTrainer, teacher: bool) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for parameter in run.modules(teacher).into_iter().flat_map(|(_, module)| module.values()) {
        all.extend(parameter.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(all)
}

#[test]
fn a_frozen_teacher_teaches_and_stays_as_it_is() -> Result {
    let folder = tempfile::tempdir()?;
    let (pictures, path) = (Drawn(7), folder.path().join("checkpoint.safetensors"));
    let mut run = published(published_config(), "sha", None)?;
    let teacher = modules(&run, true)?;
    let mut losses = Vec::new();
    for step in 0..24 {
        if step == 10 {
            run.save(&path)?;
        }
        losses.push(run.step(&pictures)?.losses);
    }
    assert!(losses.iter().all(|losses| losses.ibot > 0.0), "every patch has a loss");
    let mean = |part: &[Losses]| part.iter().map(|l| l.dino_global).sum::<f64>();
    assert!(mean(&losses[16..]) < mean(&losses[..8]), "{losses:?}");
    assert_eq!(modules(&run, true)?, teacher);
    let bias = |of: &BTreeMap<String, Var>| of["norm.bias"].to_vec1::<f32>();
    assert_ne!(bias(run.average())?, bias(run.modules(false)[0].1)?);

    let mut again = published(published_config(), "sha", None)?;
    again.resume(&path)?;
    for _ in 10..24 {
        again.step(&pictures)?;
    }
    assert_eq!(modules(&again, false)?, modules(&run, false)?);
    assert_eq!(bias(again.average())?, bias(run.average())?);

    let mut other = published(published_config(), "other sha", None)?;
    let message = other.resume(&path).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(message.contains("another frozen teacher (sha, now other sha)"), "{message}");
    Ok(())
}

#[test]
fn heads_of_the_teachers_own_run_are_taken_up() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("checkpoint.safetensors");
    let config = SslConfig { frozen_teacher: false, ..published_config() };
    let run = |width, heads| -> Result<SslTrainer> {
        let backbone = backbone(width, heads, 1)?;
        Ok(SslTrainer::new(config.clone(), Execution::default(), backbone, MatmulPrecision::F32)?)
    };
    let source = run(24, 3)?;
    source.save(&path)?;
    let taken = published(published_config(), "sha", Some(&path))?;
    for (taken, source) in taken.modules(true).iter().zip(source.modules(true)).skip(1) {
        for (name, parameter) in taken.1 {
            assert_eq!(largest_difference(parameter, &source.1[name])?, 0.0, "{name}");
        }
    }
    run(16, 2)?.save(&path)?;
    let refused = published(published_config(), "sha", Some(&path)).err().map(|e| e.to_string());
    let refused = refused.unwrap_or_default();
    assert!(refused.contains("mlp.0.weight") && refused.contains("[12, 16]"), "{refused}");
    let dropping = SslConfig { drop_path: 0.3, ..published_config() };
    let refused = published(dropping, "sha", None).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused.contains("drop-path rate 0.3: set both to 0"), "{refused}");
    Ok(())
}
