//! Weights files that are not what they should be: each is refused by an error that names the
//! file, the tensor, what was found and what was needed.

use std::borrow::Cow;
use std::path::Path;

use candle_core::{DType, Device};
use engine::vit::{PosEmbedRule, VisionTransformer, Weights};
use engine::{DinoEmbedder, Embedder, ModelOptions, Pooling, RgbImage};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};

/// A tensor that can be altered.
#[derive(Clone)]
struct Owned {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for &Owned {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

type Tensors = Vec<(String, Owned)>;

fn tiny() -> Tensors {
    let bytes = std::fs::read(fixtures::path("golden/tiny_plain.hf.safetensors")).expect("golden");
    let own = |(name, view): (String, TensorView<'_>)| {
        let (dtype, shape) = (view.dtype(), view.shape().to_vec());
        (name, Owned { dtype, shape, data: view.data().to_vec() })
    };
    SafeTensors::deserialize(&bytes).expect("sound").tensors().into_iter().map(own).collect()
}

fn tensor<'a>(tensors: &'a mut Tensors, name: &str) -> &'a mut Owned {
    &mut tensors.iter_mut().find(|(known, _)| known == name).expect("a tensor").1
}

/// A model folder with these tensors and a config, and what opening and loading it says.
fn error_of(tensors: &Tensors) -> String {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("model.safetensors");
    let views = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
    safetensors::serialize_to_file(views, None, &path).expect("write");
    let config = r#"{"num_attention_heads": 2}"#;
    std::fs::write(folder.path().join("config.json"), config).expect("write");
    let load = |weights: &Weights| {
        VisionTransformer::load(weights, PosEmbedRule::Published, &Device::Cpu, DType::F32)
    };
    let error = match Weights::open(folder.path()) {
        Err(error) => error.to_string(),
        Ok(weights) => load(&weights).err().map(|error| error.to_string()).unwrap_or_default(),
    };
    assert!(error.is_empty() || error.contains("model.safetensors"), "{error}");
    error
}

#[test]
fn the_untouched_copy_loads() {
    assert_eq!(error_of(&tiny()), "");
}

#[test]
fn missing_surplus_misshaped_and_mistyped_tensors_are_named() {
    let mut missing = tiny();
    missing.retain(|(name, _)| name != "encoder.layer.1.norm2.bias");
    let expected = "`encoder.layer.1.norm2.bias` is missing (expected shape [32])";
    assert!(error_of(&missing).contains(expected), "{}", error_of(&missing));

    let mut surplus = tiny();
    let extra = surplus[0].1.clone();
    surplus.push(("classifier.weight".to_owned(), extra));
    let expected = "`classifier.weight` with shape";
    assert!(error_of(&surplus).contains(expected), "{}", error_of(&surplus));

    let mut shape = tiny();
    tensor(&mut shape, "encoder.layer.0.mlp.fc1.bias").shape = vec![2, 64];
    let expected = "`encoder.layer.0.mlp.fc1.bias` has shape [2, 64], expected [128]";
    assert!(error_of(&shape).contains(expected), "{}", error_of(&shape));

    let mut dtype = tiny();
    tensor(&mut dtype, "layernorm.bias").dtype = Dtype::I32;
    let expected = "`layernorm.bias` has dtype I32, expected F32, F16 or BF16";
    assert!(error_of(&dtype).contains(expected), "{}", error_of(&dtype));
}

#[test]
fn values_that_are_not_finite_are_named() {
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let mut tensors = tiny();
        let name = "encoder.layer.1.attention.attention.key.weight";
        tensor(&mut tensors, name).data[4 * 7..4 * 8].copy_from_slice(&value.to_le_bytes());
        let error = error_of(&tensors);
        let expected = format!("holds {shown} at element 7");
        assert!(error.contains(name) && error.contains(&expected), "{error}");
    }
}

#[test]
fn other_architectures_are_refused() {
    let mut patch = tiny();
    tensor(&mut patch, "embeddings.patch_embeddings.projection.weight").shape = vec![32, 3, 7, 28];
    assert!(error_of(&patch).contains("only patch size 14"), "{}", error_of(&patch));

    let other: Tensors = tiny().into_iter().take(3).map(|(n, t)| (format!("x.{n}"), t)).collect();
    assert!(error_of(&other).contains("does not hold a DINOv2 backbone"), "{}", error_of(&other));
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("model.safetensors");
    let sound = std::fs::read(fixtures::path("golden/tiny_plain.hf.safetensors")).expect("golden");
    let error_of =
        |path: &Path| Weights::open(path).err().map(|error| error.to_string()).unwrap_or_default();
    let contents: [(&[u8], &str); 5] = [
        (b"", "the file is empty"),
        (b"these are words", "cut short, damaged, or not safetensors"),
        (&sound[..sound.len() - 1], "cut short"),
        (&sound[..100], "cut short"),
        (b"PK\x03\x04 but no zip file", "PyTorch zip file"),
    ];
    for (content, expected) in contents {
        std::fs::write(&path, content).expect("write");
        let error = error_of(&path);
        assert!(error.contains(expected) && error.contains("model.safetensors"), "{error}");
    }
    std::fs::remove_file(&path).expect("remove");
    assert!(error_of(&path).contains("cannot read weights file"), "{}", error_of(&path));

    // Two heads of 16 look like half a head of 64.
    let no_config = error_of(&fixtures::path("golden/tiny_plain.hf.safetensors"));
    assert!(no_config.contains("config.json with `num_attention_heads`"), "{no_config}");
}

#[test]
fn a_folder_may_hold_one_weights_file_of_any_name() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let error_of = || Weights::open(folder.path()).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error_of().contains("no model.safetensors and 0 other"), "{}", error_of());
    let config = r#"{"num_attention_heads": 2}"#;
    std::fs::write(folder.path().join("config.json"), config).expect("write");
    let golden = fixtures::path("golden/tiny_plain.hf.safetensors");
    std::fs::copy(&golden, folder.path().join("own.safetensors")).expect("copy");
    assert_eq!(error_of(), "");
    std::fs::copy(&golden, folder.path().join("other.safetensors")).expect("copy");
    assert!(error_of().contains("2 other"), "{}", error_of());
    std::fs::copy(&golden, folder.path().join("model.safetensors")).expect("copy");
    assert_eq!(error_of(), "");
}

fn open_tiny(options: &ModelOptions) -> DinoEmbedder {
    let folder = tempfile::tempdir().expect("temporary folder");
    let golden = fixtures::path("golden/tiny_plain.hf.safetensors");
    std::fs::copy(golden, folder.path().join("model.safetensors")).expect("copy");
    let config = r#"{"num_attention_heads": 2}"#;
    std::fs::write(folder.path().join("config.json"), config).expect("write");
    DinoEmbedder::open(folder.path(), options, &Device::Cpu).expect("open")
}

fn pictures() -> Vec<RgbImage> {
    let picture = |seed: u32| {
        RgbImage::from_fn(300, 260, |x, y| {
            image::Rgb([(x * seed) as u8, (y * 3 + seed) as u8, (x * y / 40) as u8])
        })
    };
    (1..=7).map(picture).collect()
}

#[test]
fn a_picture_embeds_the_same_alone_and_in_a_batch() {
    for pooling in [Pooling::Cls, Pooling::MeanPatch, Pooling::ClsMeanPatch, Pooling::Gem] {
        let model = open_tiny(&ModelOptions { pooling, ..ModelOptions::default() });
        let pixels: Vec<_> =
            pictures().iter().map(|picture| model.prepare(picture).expect("prepare")).collect();
        let together = model.embed(&pixels).expect("embed");
        assert_eq!(together.len(), 7);
        for (pixels, together) in pixels.chunks(1).zip(&together) {
            let alone = model.embed(pixels).expect("embed").remove(0);
            assert_eq!(alone.dim(), model.identity().dim);
            let pairs = alone.as_slice().iter().zip(together.as_slice());
            let worst = pairs.fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst <= 1e-5, "{pooling}: {worst}");
        }
        let dense = model.embed_dense(&pixels[..1]).expect("embed").remove(0);
        assert_eq!(dense.patch_tokens.len(), 16 * 16 * 32);
        assert!(dense.embedding.similarity(&together[0]) > 0.99999);
    }
}

#[test]
fn every_choice_that_changes_vectors_changes_the_fingerprint() {
    let base = ModelOptions::default();
    let choices = [
        base.clone(),
        ModelOptions { pooling: Pooling::Gem, ..base.clone() },
        ModelOptions { pos_embed: PosEmbedRule::Transformers, ..base.clone() },
        ModelOptions { icc: engine::decode::IccPolicy::ConvertToSrgb, ..base.clone() },
        ModelOptions {
            preprocess: engine::Preprocess::for_size(448).expect("size"),
            ..base.clone()
        },
    ];
    let mut fingerprints: Vec<_> =
        choices.iter().map(|options| open_tiny(options).identity().fingerprint()).collect();
    assert_eq!(fingerprints[0], open_tiny(&base).identity().fingerprint());
    fingerprints.sort();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), choices.len());
}
