//! Self-supervised training: against PyTorch, across interruptions, and with bad input.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use engine::RgbImage;
use engine::train::checkpoint;
use engine::train::head::{HeadConfig, ProjectionHead};
use engine::train::losses::{Centre, Centring, koleo, sinkhorn_knopp};
use engine::train::ops::{MatmulPrecision, cross_entropy};
use engine::train::pictures::Pictures;
use engine::train::ssl::{CropSizes, Execution, HighRes, SslBatch, SslConfig, SslTrainer};
use engine::train::{DropPlan, Student};
use engine::vit::{PosEmbedRule, VitConfig};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const CPU: Device = Device::Cpu;
const HEAD: HeadConfig = HeadConfig { hidden: 12, bottleneck: 6, prototypes: 10 };

fn golden(file: &str) -> Result<BTreeMap<String, Tensor>> {
    let path = fixtures::path(&format!("golden/{file}"));
    Ok(candle_core::safetensors::load(path, &CPU)?.into_iter().collect())
}

/// As `noise` of make_ssl_golden.py.
fn noise(name: &str, shape: &[usize]) -> Result<Tensor> {
    let hash = |state: u32, byte: u8| (state ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let mut state = name.bytes().fold(0x811C_9DC5, hash);
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24) - 0.5
    };
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| draw()).collect();
    Ok(Tensor::from_vec(values, shape, &CPU)?)
}

fn f32_noise(name: &str, shape: &[usize], scale: f64) -> Result<Tensor> {
    Ok((noise(name, shape)? * scale)?.to_dtype(DType::F32)?)
}

/// As `initial` of make_ssl_golden.py.
fn initialise(prefix: &str, parameters: &BTreeMap<String, Var>) -> Result {
    for (name, parameter) in parameters {
        let full = format!("{prefix}.{name}");
        let values = noise(&full, parameter.dims())?;
        let values = if full.contains("gamma") {
            ((values * 0.25)? + 0.5)?
        } else if name.ends_with("weight_g") || (full.contains("norm") && name.ends_with("weight"))
        {
            ((values * 0.25)? + 1.0)?
        } else {
            values
        };
        parameter.set(&values.to_dtype(DType::F32)?)?;
    }
    Ok(())
}

fn largest(t: &Tensor) -> Result<f32> {
    Ok(t.abs()?.flatten_all()?.max(0)?.to_scalar()?)
}

/// Largest difference relative to the largest value.
fn relative(got: &Tensor, expected: &Tensor) -> Result<f32> {
    assert_eq!(got.dims(), expected.dims());
    Ok(largest(&(got - expected)?)? / largest(expected)?.max(f32::MIN_POSITIVE))
}

fn tiny_config() -> SslConfig {
    SslConfig {
        steps: 4,
        sizes: CropSizes { global: 42, local: 28 },
        locals: 2,
        head: HEAD,
        temperature_warmup: 3,
        lr: 2e-3,
        warmup: 0,
        freeze_last_layer: 1,
        clip: 1.5,
        momentum: (0.9, 1.0),
        ..SslConfig::published(4, 3)
    }
}

/// The trainer that make_ssl_golden.py starts from.
fn tiny(config: SslConfig, execution: Execution) -> Result<SslTrainer> {
    let shape = VitConfig::mlp(16, 2, 2, 3);
    let backbone = Student::random(shape, PosEmbedRule::Published, MatmulPrecision::F32, &CPU, 0)?;
    let run = SslTrainer::new(config, execution, backbone, MatmulPrecision::F32)?;
    for (side, teacher) in [("student", false), ("teacher", true)] {
        for (module, parameters) in run.modules(teacher) {
            initialise(&format!("{side}.{module}"), parameters)?;
        }
    }
    Ok(run)
}

fn batch(step: usize, with_kept: bool) -> Result<SslBatch> {
    let mut masks = vec![vec![false; 9]; 6];
    for (crop, hidden) in [(0, &[0, 1, 3, 4][..]), (3, &[5]), (4, &[1, 2, 8])] {
        hidden.iter().for_each(|&i| masks[crop][i] = true);
    }
    let kept = [
        [[[0, 2, 3, 5], [0, 1, 2, 3]], [[1, 2, 3, 4], [0, 3, 4, 5]]],
        [[[0, 1, 4, 5], [1, 2, 4, 5]], [[2, 3, 4, 5], [0, 1, 2, 5]]],
    ];
    let kept = kept.map(|block| block.map(|branch| branch.map(|group| group.to_vec()).to_vec()));
    Ok(SslBatch {
        globals: f32_noise(&format!("globals {step}"), &[6, 3, 42, 42], 4.0)?,
        locals: Some(f32_noise(&format!("locals {step}"), &[6, 3, 28, 28], 4.0)?),
        masks,
        drop_path: with_kept.then(|| DropPlan::from_kept(kept.to_vec())),
    })
}

#[test]
fn losses_and_their_targets_equal_those_of_pytorch() -> Result {
    let golden = golden("train.safetensors")?;
    let logits = &golden["sinkhorn.logits"];
    assert!(relative(&sinkhorn_knopp(logits, 0.07, 3)?, &golden["sinkhorn.value"])? < 1e-5);
    let mut centre = Centre::new(12, &CPU)?;
    assert!(centre.restore(&golden["centre.centre"]));
    let probabilities = centre.probabilities(logits, 0.07)?;
    assert!(relative(&probabilities, &golden["centre.value"])? < 1e-5);
    centre.update(logits)?;
    assert!(relative(centre.value(), &golden["centre.next"])? < 1e-6);

    let student = Var::from_tensor(&golden["cross_entropy.student"])?;
    let rows: Vec<u32> = (0..8).collect();
    let loss = cross_entropy(&student, 0.1, &golden["sinkhorn.value"], &rows)?.mean_all()?;
    let gradient = loss.backward()?.get(&student).cloned().ok_or("no gradient")?;
    assert!(relative(&loss.reshape(1)?, &golden["cross_entropy.value"])? < 1e-6);
    assert!(relative(&gradient, &golden["cross_entropy.gradient"])? < 1e-5);

    let x = Var::from_tensor(&golden["koleo.x"])?;
    let loss = koleo(&x)?;
    let gradient = loss.backward()?.get(&x).cloned().ok_or("no gradient")?;
    assert!(relative(&loss.reshape(1)?, &golden["koleo.value"])? < 1e-5);
    assert!(relative(&gradient, &golden["koleo.gradient"])? < 1e-5);
    Ok(())
}

#[test]
fn a_head_equals_that_of_pytorch() -> Result {
    let golden = golden("ssl.safetensors")?;
    let head = ProjectionHead::random(16, HEAD, MatmulPrecision::F32, &CPU, (0, "head"))?;
    initialise("head", head.parameters())?;
    let x = Var::from_tensor(&f32_noise("head input", &[5, 16], 1.0)?)?;
    let scores = head.forward(&x)?;
    assert!(relative(&scores, &golden["head.value"])? < 1e-5);
    let upstream = f32_noise("head upstream", &[5, 10], 1.0)?;
    let gradients = (scores * upstream)?.sum_all()?.backward()?;
    let x = ("x".to_owned(), x);
    let all = head.parameters().iter().map(|(k, v)| (k.clone(), v.clone())).chain([x]);
    for (name, variable) in all {
        let gradient = gradients.get(&variable).ok_or("no gradient")?;
        let error = relative(gradient, &golden[&format!("head.gradient.{name}")])?;
        assert!(error < 1e-5, "{name}: {error}");
    }
    Ok(())
}

#[test]
fn schedules_equal_the_published_ones() -> Result {
    let golden = golden("ssl.safetensors")?;
    let config = SslConfig {
        lr: 1e-3,
        freeze_last_layer: 3,
        temperature_warmup: 30,
        warmup: 10,
        ..SslConfig::published(100, 8)
    };
    for name in ["lr", "last_layer_lr", "weight_decay", "momentum", "teacher_temperature"] {
        let expected = golden[&format!("schedules.{name}")].to_vec1::<f32>()?;
        assert_eq!(expected.len(), 100);
        for (i, expected) in expected.into_iter().enumerate() {
            let now = config.at(i);
            let ours = match name {
                "lr" => now.lr,
                "last_layer_lr" => now.last_layer_lr,
                "weight_decay" => now.weight_decay,
                "momentum" => now.momentum,
                _ => now.teacher_temperature,
            };
            assert!((ours as f32 - expected).abs() <= 1e-7 * expected, "{name} at {i}: {ours}");
        }
    }
    assert_eq!(SslConfig::published_lr(1024), 2e-4);
    assert_eq!(SslConfig::published_lr(256), 1e-4);
    Ok(())
}

/// Gradients of a run's first step, which the first moments are a tenth of (scaled by `scale`).
fn first_gradients(run: &SslTrainer, scale: f64) -> Result<BTreeMap<String, Tensor>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("checkpoint.safetensors");
    run.save(&path)?;
    let (tensors, _) = checkpoint::load::<serde_json::Value>(&path, &CPU)?;
    let first = tensors.iter().filter_map(|(name, moment)| {
        Some((name.strip_prefix("first.")?.to_owned(), moment * (10.0 / scale)))
    });
    first.map(|(name, gradient)| Ok((name, gradient?))).collect()
}

#[test]
fn each_loss_and_its_gradient_equal_those_of_pytorch() -> Result {
    let golden = golden("ssl.safetensors")?;
    for (which, weights) in
        [("dino", (1.0, 0.0, 0.0)), ("ibot", (0.0, 1.0, 0.0)), ("koleo", (0.0, 0.0, 1.0))]
    {
        let config = SslConfig { weights, clip: 1e6, ..tiny_config() };
        let mut run = tiny(config, Execution::default())?;
        let report = run.step_on(&[batch(0, true)?])?;
        let expected = f64::from(golden[&format!("{which}.loss")].to_vec1::<f32>()?[0]);
        let loss = report.losses.loss;
        assert!((loss - expected).abs() < 1e-5 * expected.abs(), "{which}: {loss} {expected}");
        let gradients = first_gradients(&run, 1.0)?;
        let prefix = format!("{which}.gradient.");
        let mut compared = 0;
        for (name, expected) in &golden {
            if let Some(name) = name.strip_prefix(&prefix) {
                let error = relative(&gradients[name], expected)?;
                assert!(error < 1e-4, "{which}, {name}: {error}");
                compared += 1;
            }
        }
        assert!(compared >= 4, "{which}: {compared} gradients");
    }
    Ok(())
}

#[test]
fn whole_steps_equal_those_of_pytorch_however_they_are_computed() -> Result {
    let golden = golden("ssl.safetensors")?;
    let ways = [
        Execution::default(),
        Execution { checkpointing: true, plain: false },
        Execution { checkpointing: false, plain: true },
    ];
    for execution in ways {
        let mut run = tiny(tiny_config(), execution)?;
        for step in 0..2 {
            let report = run.step_on(&[batch(step, true)?])?;
            let losses = report.losses;
            let ours =
                [losses.loss, losses.dino_global, losses.dino_local, losses.ibot, losses.koleo];
            let theirs = golden[&format!("full.{step}.losses")].to_vec1::<f32>()?;
            for (ours, theirs) in ours.into_iter().zip(theirs) {
                assert!((ours - f64::from(theirs)).abs() < 1e-4, "step {step}: {ours} {theirs}");
            }
            for (module, norm) in &report.gradient_norms {
                let theirs = golden[&format!("full.{step}.norm.{module}")].to_vec1::<f32>()?[0];
                let error = (norm / f64::from(theirs) - 1.0).abs();
                assert!(error < 1e-4, "{module}: {norm} {theirs}");
            }
            if step == 0 {
                let gradients = first_gradients(&run, 1.0)?;
                for (name, gradient) in gradients {
                    let module = name.split('.').next().unwrap_or_default();
                    let scale = (1.5 / (report.gradient_norms[module] + 1e-6)).min(1.0);
                    let theirs = (&golden[&format!("full.0.gradient.{name}")] * scale)?;
                    // Keys' biases shift all scores alike: their gradient is zero but for rounding.
                    let error = relative(&gradient, &theirs)?;
                    assert!(error < 1e-4, "{name}: {error}");
                }
            }
        }
        for (side, teacher) in [("student", false), ("teacher", true)] {
            for (module, parameters) in run.modules(teacher) {
                for (name, ours) in parameters {
                    let full = format!("{module}.{name}");
                    let theirs = &golden[&format!("full.{side}.{full}")];
                    let gradient = &golden[&format!("full.0.gradient.{full}")];
                    compare_updates(&format!("{side}.{full}"), ours, theirs, gradient)?;
                }
            }
        }
    }
    Ok(())
}

/// Values after two steps of about 2e-3: within 1e-5 wherever the gradient is more than rounding
/// (Adam divides it by its own size).
fn compare_updates(name: &str, ours: &Tensor, theirs: &Tensor, gradient: &Tensor) -> Result {
    let floor = largest(gradient)? * 1e-3;
    let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
    let all = values(ours)?.into_iter().zip(values(theirs)?).zip(values(gradient)?);
    let mut compared = 0;
    for ((ours, theirs), gradient) in all {
        let difference = (ours - theirs).abs();
        if gradient.abs() > floor {
            assert!(difference < 1e-5, "{name}: {ours} {theirs}");
            compared += 1;
        }
        assert!(difference < 5e-3, "{name}: {ours} {theirs}");
    }
    assert!(2 * compared > ours.elem_count(), "{name}: {compared} compared");
    Ok(())
}

#[test]
fn centring_and_a_shared_head_equal_those_of_pytorch() -> Result {
    let golden = golden("ssl.safetensors")?;
    let config = SslConfig { centring: Centring::Softmax, shared_head: true, ..tiny_config() };
    let mut run = tiny(config, Execution::default())?;
    for step in 0..2 {
        let report = run.step_on(&[batch(step, false)?])?;
        let theirs = golden[&format!("centred.{step}.losses")].to_vec1::<f32>()?;
        let loss = report.losses.loss;
        assert!((loss - f64::from(theirs[0])).abs() < 1e-4 * loss, "{loss} {theirs:?}");
        for (module, norm) in &report.gradient_norms {
            let theirs = golden[&format!("centred.{step}.norm.{module}")].to_vec1::<f32>()?[0];
            assert!((norm / f64::from(theirs) - 1.0).abs() < 1e-4, "{module}: {norm} {theirs}");
        }
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("checkpoint.safetensors");
    run.save(&path)?;
    let (tensors, _) = checkpoint::load::<serde_json::Value>(&path, &CPU)?;
    let centres = Tensor::cat(&[&tensors["centre.cls"], &tensors["centre.patch"]], 0)?;
    assert!(relative(&centres, &golden["centred.centres"])? < 1e-5);
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

fn values(run: &SslTrainer) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for (_, parameters) in run.modules(false).into_iter().chain(run.modules(true)) {
        for parameter in parameters.values() {
            all.extend(parameter.flatten_all()?.to_vec1::<f32>()?);
        }
    }
    Ok(all)
}

#[test]
fn an_interrupted_run_is_equal_to_an_uninterrupted_one_bit_for_bit() -> Result {
    let folder = tempfile::tempdir()?;
    let (pictures, path) = (Drawn(7), folder.path().join("checkpoint.safetensors"));
    for centring in [Centring::SinkhornKnopp, Centring::Softmax] {
        let config = SslConfig {
            steps: 6,
            accumulate: 2,
            centring,
            high_res: Some(HighRes { steps: 2, sizes: CropSizes { global: 56, local: 28 } }),
            // Not a number that JSON keeps to the last bit by luck.
            lr: SslConfig::published_lr(3),
            ..tiny_config()
        };
        let start = |checkpointing| tiny(config.clone(), Execution { checkpointing, plain: false });
        let mut whole = start(false)?;
        for _ in 0..6 {
            whole.step(&pictures)?;
        }
        let mut before = start(false)?;
        for _ in 0..3 {
            before.step(&pictures)?;
        }
        before.save(&path)?;
        before.step(&pictures)?; // lost
        let mut after = start(true)?;
        after.resume(&path)?;
        assert_eq!(after.step_count(), 3);
        let mut skipped = 0;
        for _ in 3..6 {
            skipped += after.step(&pictures)?.skipped.len();
        }
        assert!(skipped > 0, "the torn picture comes up");
        assert_eq!(values(&after)?, values(&whole)?);
    }
    Ok(())
}

#[test]
fn training_learns_to_agree_with_the_teacher() -> Result {
    let config = SslConfig { steps: 30, freeze_last_layer: 0, ..tiny_config() };
    let mut run = tiny(config, Execution::default())?;
    let batch = [batch(0, false)?];
    let first = run.step_on(&batch)?.losses;
    for _ in 0..20 {
        run.step_on(&batch)?;
    }
    let last = run.step_on(&batch)?.losses;
    assert!(last.dino_local < 0.8 * first.dino_local, "{first:?} {last:?}");
    Ok(())
}

#[test]
fn what_cannot_be_trained_is_refused_with_a_remedy() -> Result {
    let refused = |config: SslConfig| {
        tiny(config, Execution::default()).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let odd = CropSizes { global: 50, local: 28 };
    let odd = refused(SslConfig { sizes: odd, ..tiny_config() });
    assert!(odd.contains("global crops are 50 px; take a multiple of 14"), "{odd}");
    let none = refused(SslConfig { batch: 0, ..tiny_config() });
    assert!(none.contains("at least 1"), "{none}");
    let rate = refused(SslConfig { drop_path: 1.0, ..tiny_config() });
    assert!(rate.contains("drop-path rate is 1; it must lie between 0 and 0.99"), "{rate}");

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("checkpoint.safetensors");
    let mut run = tiny(tiny_config(), Execution::default())?;
    let mut step = |count| run.step(&Drawn(count)).err().map(|e| e.to_string());
    assert!(step(0).is_some_and(|m| m.contains("no pictures")));
    let few = step(1).unwrap_or_default();
    assert!(few.contains("1 picture, fewer than the 3 of a batch"), "{few}");
    assert!(step(5).is_none());
    let other = step(6).unwrap_or_default();
    assert!(other.contains("over 5 pictures and there are 6"), "{other}");

    run.save(&path)?;
    let before = values(&run)?;
    let mut other = tiny(SslConfig { lr: 5e-3, ..tiny_config() }, Execution::default())?;
    let refused = other.resume(&path).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused.contains("lr was 0.002 and now is 0.005"), "{refused}");
    std::fs::write(&path, b"damaged")?;
    assert!(run.resume(&path).is_err());
    assert_eq!(values(&run)?, before);
    Ok(())
}

#[test]
fn a_run_that_diverges_stops_before_it_harms_the_model() -> Result {
    let config = SslConfig { weights: (1.0, f64::INFINITY, 0.1), ..tiny_config() };
    let mut run = tiny(config, Execution::default())?;
    let before = values(&run)?;
    let message = run.step_on(&[batch(0, true)?]).err().map(|e| e.to_string()).unwrap_or_default();
    for part in ["diverged", "iBOT inf", "lower --lr", "not finite: backbone."] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(values(&run)?, before);
    assert_eq!(run.step_count(), 0);
    Ok(())
}
