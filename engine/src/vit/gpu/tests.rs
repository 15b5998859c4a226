//! The pass, the batches and the line of devices, on machines of loops.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::super::backbone::parameter;
use super::super::{PosEmbedRule, VisionTransformer, Weights};
use super::GpuVit;
use super::computer::{Choices, Computer, Done, Job};
use super::folded::Folded;
use super::machine::Fault;
use super::owners::Owner;
use super::pass::Ask;
use super::plain::Plain;
use super::plan::Sizes;
use crate::kernels::Precision;
use crate::preprocess::normalise;

const FAMILIES: [&str; 3] = ["plain", "registers", "swiglu"];

fn open(family: &str) -> Weights {
    let folder = tempfile::tempdir().expect("temporary folder");
    let from = fixtures::path(&format!("golden/tiny_{family}.hf.safetensors"));
    std::fs::copy(from, folder.path().join("model.safetensors")).expect("copy");
    // Two heads of 16 cannot be told from the tensors.
    let config = r#"{"num_attention_heads": 2}"#;
    std::fs::write(folder.path().join("config.json"), config).expect("write");
    Weights::open(folder.path()).expect(family)
}

fn folded(weights: &Weights) -> Folded {
    let values = |name: &str| parameter(weights, name);
    Folded::load(weights.config(), PosEmbedRule::Published, &values).expect("sound weights")
}

fn picture(side: usize, seed: usize) -> Arc<[u8]> {
    let value =
        |i: usize| ((i / 3 % side * (3 + seed) + i / 3 / side * 5 + i * i * 7919) % 256) as u8;
    (0..side * side * 3).map(value).collect()
}

fn pictures(side: usize, count: usize) -> Vec<Arc<[u8]>> {
    (0..count).map(|seed| picture(side, seed)).collect()
}

fn choices(side: usize) -> Choices {
    Choices { side, precision: Precision::F32, recordings: false }
}

fn computer(machine: Plain, from: &Folded, side: usize) -> Computer<Plain> {
    Computer::new(machine, from, choices(side)).expect("loads")
}

fn embed(
    computer: &mut Computer<Plain>,
    pictures: &[Arc<[u8]>],
    ask: &Ask,
) -> Result<Vec<Vec<f32>>, Fault> {
    match computer.run(Job::Embed { pictures: pictures.to_vec(), ask: ask.clone() })? {
        Done::Values(values) => Ok(values),
        other => panic!("{other:?}"),
    }
}

/// The same by candle in f32: (layers, pictures, tokens, C) and the width.
fn reference(weights: &Weights, pictures: &[Arc<[u8]>], side: usize) -> Tensor {
    let model = VisionTransformer::load(weights, PosEmbedRule::Published, &Device::Cpu, DType::F32)
        .expect("loads");
    let values: Vec<f32> = pictures
        .iter()
        .flat_map(|picture| {
            let image = image::RgbImage::from_raw(side as u32, side as u32, picture.to_vec());
            normalise(&image.expect("size"))
        })
        .collect();
    let input = Tensor::from_vec(values, (pictures.len(), 3, side, side), &Device::Cpu);
    let layers: Vec<usize> = (0..weights.config().depth).collect();
    let features = model.intermediate_layers(&input.expect("shape"), &layers).expect("runs");
    let of = |f: &crate::Features| {
        let cls = f.cls_token.unsqueeze(1).expect("shape");
        Tensor::cat(&[&cls, &f.register_tokens, &f.patch_tokens], 1).expect("cat")
    };
    Tensor::stack(&features.iter().map(of).collect::<Vec<_>>(), 0).expect("stack")
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|t| t.to_vec1()).expect("values")
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    use crate::kernels::dot;
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn every_family_agrees_with_candle_in_all_layers_and_tokens() {
    for family in FAMILIES {
        let weights = open(family);
        let from = folded(&weights);
        let depth = weights.config().depth;
        for (side, count) in [(98, 3), (14, 1), (224, 1), (518, 1)] {
            let pictures = pictures(side, count);
            let expected = reference(&weights, &pictures, side);
            let mut computer = computer(Plain::default(), &from, side);
            let ask = Ask { side, layers: (0..depth).collect(), cls_only: false };
            let got = embed(&mut computer, &pictures, &ask).expect("computed");
            for (layer, values) in got.iter().enumerate() {
                let expected = flat(&expected.get(layer).expect("layer"));
                let off = furthest(values, &expected);
                assert!(off < 2e-4, "{family}, {count} of {side} px, layer {layer}: {off}");
            }
            let ask = Ask { side, layers: vec![depth - 1], cls_only: true };
            let cls = embed(&mut computer, &pictures, &ask).expect("computed").remove(0);
            let of_cls = expected.get(depth - 1).and_then(|t| t.narrow(1, 0, 1)).expect("CLS");
            assert!(furthest(&cls, &flat(&of_cls)) < 2e-4, "{family} CLS at {side} px");
        }
    }
}

#[cfg(feature = "shipped-model")]
#[test]
fn rounding_to_bf16_where_a_gpu_does_leaves_the_vector_in_place() {
    let weights = crate::shipped::weights().expect("sound").expect("built in");
    let (from, side) = (folded(&weights), 126);
    let ask = Ask { side, layers: vec![weights.config().depth - 1], cls_only: true };
    let pictures = pictures(side, 2);
    let run = |round| {
        let mut computer = computer(Plain { round, ..Plain::default() }, &from, side);
        embed(&mut computer, &pictures, &ask).expect("computed").remove(0)
    };
    let (exact, rounded) = (run(false), run(true));
    let dim = weights.config().embed_dim;
    for (exact, rounded) in exact.chunks_exact(dim).zip(rounded.chunks_exact(dim)) {
        let cosine = cosine(exact, rounded);
        assert!((0.999..0.999_999).contains(&cosine), "{cosine}");
    }
}

#[test]
fn memory_that_does_not_suffice_halves_batches_and_changes_no_value() {
    let weights = open("registers");
    let (from, side) = (folded(&weights), 42);
    let ask = Ask { side, layers: vec![0, 1], cls_only: false };
    let pictures = pictures(side, 7);
    let whole = embed(&mut computer(Plain::default(), &from, side), &pictures, &ask);
    let whole = whole.expect("computed");
    // The largest buffer of a batch of 3 does not fit, that of 2 does.
    let largest = |batch| {
        let sizes = Sizes::of(weights.config(), batch, side);
        sizes.qkv().max(sizes.rows() * sizes.up)
    };
    let machine = Plain { room: Some(largest(3) - 1), ..Plain::default() };
    let mut small = computer(machine, &from, side);
    assert_eq!(embed(&mut small, &pictures, &ask), Ok(whole));

    let machine = Plain { room: Some(largest(1) - 1), ..Plain::default() };
    let fault = embed(&mut computer(machine, &from, side), &pictures, &ask).expect_err("no room");
    let Fault::Refused(reason) = fault else { panic!("{fault:?}") };
    for part in ["single picture of 42 px", "GiB", "--size", "--device cpu"] {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn the_next_pictures_are_on_their_way_before_the_last_are_done() {
    let weights = open("plain");
    let (from, side) = (folded(&weights), 14);
    let room = |batch| Sizes::of(weights.config(), batch, side).qkv();
    let machine = Plain { room: Some(room(4)), ..Plain::default() };
    let mut computer = computer(machine, &from, side);
    let ask = Ask { side, layers: vec![1], cls_only: true };
    embed(&mut computer, &pictures(side, 8), &ask).expect("computed");
    // 8 do not fit; then 4, with the other 4 staged in the other place meanwhile.
    let staged = |computer: &mut Computer<Plain>| {
        let log = std::mem::take(&mut computer.machine_mut().log);
        log.into_iter().filter(|line| line.starts_with("stage")).collect::<Vec<_>>()
    };
    assert_eq!(staged(&mut computer), ["stage 4 in 0", "stage 4 in 1"]);
    embed(&mut computer, &pictures(side, 10), &ask).expect("computed");
    let expected = ["stage 4 in 0", "stage 4 in 1", "stage 2 in 0"];
    assert_eq!(staged(&mut computer), expected);
}

#[test]
fn small_passes_are_recorded_the_second_time_if_asked() {
    let weights = open("plain");
    let (from, side) = (folded(&weights), 14);
    let ask = Ask { side, layers: vec![1], cls_only: true };
    let run = |recordings| {
        let choices = Choices { recordings, ..choices(side) };
        let mut computer = Computer::new(Plain::default(), &from, choices).expect("loads");
        let one = pictures(side, 1);
        let first = embed(&mut computer, &one, &ask).expect("computed");
        for _ in 0..2 {
            assert_eq!(embed(&mut computer, &one, &ask).expect("computed"), first);
        }
        // More than one layer waits for the device on the way, which cannot be recorded.
        let both = Ask { layers: vec![0, 1], ..ask.clone() };
        embed(&mut computer, &one, &both).expect("computed");
        let log = std::mem::take(&mut computer.machine_mut().log);
        log.into_iter().filter(|line| !line.starts_with("stage")).collect::<Vec<_>>()
    };
    assert_eq!(run(false), ["forget"]);
    assert_eq!(run(true), ["forget", "record", "keep 1", "replay 1", "replay 1"]);
}

#[test]
fn a_device_too_small_for_the_weights_is_refused_with_numbers() {
    let weights = open("plain");
    let machine = Plain { free: Some(560 << 20), ..Plain::default() };
    let side = 1792;
    let Err(Fault::Refused(reason)) = Computer::new(machine, &folded(&weights), choices(side))
    else {
        panic!("loaded")
    };
    for part in ["the weights take", "1792 px", "0.55 GiB are free", "--device cpu"] {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn f16_is_refused_where_weights_or_activations_go_beyond_it() {
    let weights = open("swiglu");
    let (sound, side) = (folded(&weights), 28);
    let choices = Choices { precision: Precision::F16, ..choices(side) };
    assert!(Computer::new(Plain::default(), &sound, choices).is_ok());
    let reason = |from: &Folded| match Computer::new(Plain::default(), from, choices) {
        Err(Fault::Refused(reason)) => reason,
        _ => panic!("accepted"),
    };
    let mut large = sound.clone();
    large.blocks[1].up.weight[3] = -70_000.0;
    assert!(reason(&large).contains("a weight of this model reaches 70000"), "{}", reason(&large));
    let mut loud = sound.clone();
    loud.blocks[1].norm2.gain.iter_mut().for_each(|gain| *gain *= 1e6);
    let reason = reason(&loud);
    assert!(reason.contains("an activation") && reason.contains("--matmul bf16"), "{reason}");
}

#[test]
fn devices_share_a_batch_and_give_it_back_in_order() {
    let weights = open("plain");
    let (from, side) = (folded(&weights), 28);
    let names = |count: usize| (0..count).map(|n| format!("cuda:{n}")).collect::<Vec<_>>();
    let of = |count: usize| {
        GpuVit::load(names(count), |_| Ok(Plain::default()), from.clone(), choices(side))
            .expect("loads")
    };
    let pictures = pictures(side, 11);
    let (one, three) = (of(1), of(3));
    assert!(GpuVit::supports(one.config()) && one.config() == weights.config());
    let expected = one.tokens(&pictures, &[0, 1], false).expect("computed");
    assert_eq!(expected.len(), 2);
    assert_eq!(three.tokens(&pictures, &[0, 1], false).expect("computed"), expected);
    assert_eq!(three.tokens(&[], &[1], true).expect("nothing"), [Vec::<f32>::new()]);

    let batch = three.batch().expect("measured");
    assert!(batch.is_multiple_of(3) && (3..=3 * 512).contains(&batch), "{batch}");
    assert_eq!(three.batch().expect("known"), batch);
    assert!(three.peak(16).expect("measured") > 0.0);
    assert_eq!(three.tokens(&pictures, &[0, 1], false).expect("computed"), expected);

    let wrong = vec![picture(side, 0), picture(42, 0)];
    assert!(one.tokens(&wrong, &[1], true).is_err());

    let broken = |number| match number {
        2 => Err(Fault::Broken("no such device".to_owned())),
        _ => Ok(Plain::default()),
    };
    let error = GpuVit::load(names(3), broken, from.clone(), choices(side)).expect_err("fails");
    assert_eq!(error.to_string(), "device `cuda:2` cannot be used: no such device");
}
