//! Models on a GPU against the same in f32 on the CPU. Without a GPU each test says so and passes.
#![cfg(feature = "cuda")]

use std::collections::HashMap;
use std::path::Path;

use engine::vit::{FfnKind, VARIANTS, VitConfig};
use engine::{Devices, DinoEmbedder, Embedder, ModelOptions, Precision, Preprocess, RgbImage};
use half::f16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn gpu() -> Option<Devices> {
    match Devices::open("cuda") {
        Ok(devices) => Some(devices),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// Numbers that look like those of a normal distribution, the same every time.
struct Lot(u64);

impl Lot {
    fn draw(&mut self) -> f32 {
        let mut sum = 0.0;
        for _ in 0..4 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            sum += (self.0 >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        }
        sum * 3f32.sqrt()
    }
}

/// Writes drawn weights of a shape, in f16 and by the names of the original release.
fn draw_weights(config: &VitConfig, to: &Path) -> Result {
    let (dim, hidden) = (config.embed_dim, config.ffn_hidden_dim);
    let mut shapes: Vec<(String, Vec<usize>, f32, f32)> = Vec::new();
    let mut add = |name: &str, shape: &[usize], mean: f32, scale: f32| {
        shapes.push((name.to_owned(), shape.to_vec(), mean, scale));
    };
    let of = |inputs: usize| (inputs as f32).powf(-0.5);
    let positions = config.pos_embed_grid.pow(2) + 1;
    add("cls_token", &[1, 1, dim], 0.0, 0.5);
    add("pos_embed", &[1, positions, dim], 0.0, 0.3);
    add("mask_token", &[1, dim], 0.0, 0.1);
    if config.num_register_tokens > 0 {
        add("register_tokens", &[1, config.num_register_tokens, dim], 0.0, 0.5);
    }
    add("patch_embed.proj.weight", &[dim, 3, 14, 14], 0.0, of(588));
    add("patch_embed.proj.bias", &[dim], 0.0, 0.1);
    for block in 0..config.depth {
        let (up, down, outputs) = match config.ffn {
            FfnKind::Mlp => ("mlp.fc1", "mlp.fc2", hidden),
            FfnKind::SwiGlu => ("mlp.w12", "mlp.w3", 2 * hidden),
        };
        for (part, rows, columns) in [
            ("attn.qkv", 3 * dim, dim),
            ("attn.proj", dim, dim),
            (up, outputs, dim),
            (down, dim, hidden),
        ] {
            add(&format!("blocks.{block}.{part}.weight"), &[rows, columns], 0.0, of(columns));
            add(&format!("blocks.{block}.{part}.bias"), &[rows], 0.0, 0.1);
        }
        for norm in ["norm1", "norm2"] {
            add(&format!("blocks.{block}.{norm}.weight"), &[dim], 1.0, 0.2);
            add(&format!("blocks.{block}.{norm}.bias"), &[dim], 0.0, 0.1);
        }
        for scale in ["ls1", "ls2"] {
            add(&format!("blocks.{block}.{scale}.gamma"), &[dim], 0.3, 0.1);
        }
    }
    add("norm.weight", &[dim], 1.0, 0.2);
    add("norm.bias", &[dim], 0.0, 0.1);

    let mut lot = Lot(7);
    let mut bytes = HashMap::new();
    for (name, shape, mean, scale) in &shapes {
        let count: usize = shape.iter().product();
        let values =
            (0..count).flat_map(|_| f16::from_f32(mean + scale * lot.draw()).to_le_bytes());
        bytes.insert(name.clone(), values.collect::<Vec<u8>>());
    }
    let views = shapes.iter().map(|(name, shape, ..)| {
        Ok((name.clone(), TensorView::new(Dtype::F16, shape.clone(), &bytes[name])?))
    });
    let views: Vec<(String, TensorView<'_>)> = views.collect::<Result<_>>()?;
    safetensors::serialize_to_file(views, None, to)?;
    Ok(())
}

fn pictures(count: usize) -> Vec<RgbImage> {
    let value = |seed: u32, x: u32, y: u32, c: u32| {
        (x * (3 + seed) + y * 5 + (x * y / 7) * c + x.wrapping_mul(y * 7919) % 64) as u8
    };
    let picture = |seed| {
        RgbImage::from_fn(640, 600, |x, y| image::Rgb([0, 1, 2].map(|c| value(seed, x, y, c))))
    };
    (0..count as u32).map(picture).collect()
}

fn options(side: u32, precision: Precision) -> Result<ModelOptions> {
    let preprocess = Preprocess::for_size(side)?;
    Ok(ModelOptions { preprocess, precision, ..ModelOptions::default() })
}

/// Embeddings of some pictures, in one batch.
fn embed(model: &DinoEmbedder, pictures: &[RgbImage]) -> Result<Vec<engine::Embedding>> {
    let pixels = pictures.iter().map(|picture| model.prepare(picture));
    Ok(model.embed(&pixels.collect::<engine::Result<Vec<_>>>()?)?)
}

/// The least cosine of two models' embeddings.
fn least(a: &DinoEmbedder, b: &DinoEmbedder, pictures: &[RgbImage]) -> Result<f32> {
    let (a, b) = (embed(a, pictures)?, embed(b, pictures)?);
    Ok(a.iter().zip(&b).map(|(a, b)| a.similarity(b)).fold(f32::MAX, f32::min))
}

#[test]
fn drawn_weights_are_a_model_with_or_without_a_gpu() -> Result {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("s.safetensors");
    let config = VitConfig { depth: 2, ..VARIANTS[7].config() };
    draw_weights(&config, &file)?;
    let cpu = DinoEmbedder::open(&file, &options(98, Precision::F32)?, &Devices::CPU)?;
    assert_eq!(cpu.config(), &config);
    let embeddings = embed(&cpu, &pictures(2))?;
    // Vectors that all look alike would agree with anything.
    let alike = embeddings[0].similarity(&embeddings[1]);
    assert!(alike < 0.99, "{alike}");
    Ok(())
}

#[test]
fn every_size_agrees_with_the_cpu() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    // Without and with registers; ViT-g has both SwiGLU and them.
    for (name, at_224, at_518) in
        [("vits14", 7, 3), ("vitb14_reg", 5, 1), ("vitl14", 3, 1), ("vitg14_reg", 3, 1)]
    {
        let variant = VARIANTS.iter().find(|variant| variant.name == name).ok_or(name)?;
        let file = folder.path().join(format!("{name}.safetensors"));
        draw_weights(&variant.config(), &file)?;
        for (side, count) in [(224, at_224), (518, at_518)] {
            let pictures = pictures(count);
            let open = |precision, devices: &Devices| -> Result<DinoEmbedder> {
                Ok(DinoEmbedder::open(&file, &options(side, precision)?, devices)?)
            };
            let cpu = open(Precision::F32, &Devices::CPU)?;
            for (precision, wanted) in [(Precision::Bf16, 0.999), (Precision::F32, 0.999_99)] {
                let cosine = least(&open(precision, &gpu)?, &cpu, &pictures)?;
                println!("{name} at {side} px in {precision}: {cosine:.6}");
                assert!(cosine >= wanted, "{name} at {side} px in {precision}: {cosine}");
            }
            // Refused where the values do not allow it, right where they do.
            match open(Precision::F16, &gpu) {
                Ok(half) => assert!(least(&half, &cpu, &pictures)? >= 0.999, "{name} in f16"),
                Err(reason) => {
                    println!("{name}: {reason}");
                    assert!(reason.to_string().contains("f16 is used up to"), "{reason}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn all_that_a_model_gives_agrees() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("s.safetensors");
    draw_weights(&VARIANTS[4].config(), &file)?;
    let cpu = DinoEmbedder::open(&file, &options(224, Precision::F32)?, &Devices::CPU)?;
    let on_gpu = DinoEmbedder::open(&file, &options(224, Precision::F32)?, &gpu)?;
    let pixels = |model: &DinoEmbedder| {
        pictures(3).iter().map(|p| model.prepare(p)).collect::<engine::Result<Vec<_>>>()
    };
    let furthest = |a: &[f32], b: &[f32]| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    let (theirs, ours) = (cpu.embed_dense(&pixels(&cpu)?)?, on_gpu.embed_dense(&pixels(&on_gpu)?)?);
    for (a, b) in theirs.iter().zip(&ours) {
        assert!(furthest(&a.patch_tokens, &b.patch_tokens) < 1e-2);
        assert!(a.embedding.similarity(&b.embedding) > 0.999_99);
    }
    let (theirs, ours) =
        (cpu.probe_tokens(&pixels(&cpu)?, 4)?, on_gpu.probe_tokens(&pixels(&on_gpu)?, 4)?);
    for (a, b) in theirs.iter().zip(&ours) {
        assert!(furthest(&a.cls, &b.cls) < 1e-2 && furthest(&a.mean_patch, &b.mean_patch) < 1e-2);
    }
    // Input that was made for a CPU is taken, too.
    let (theirs, ours) = (cpu.embed(&pixels(&cpu)?)?, on_gpu.embed(&pixels(&cpu)?)?);
    assert!(theirs.iter().zip(&ours).all(|(a, b)| a.similarity(b) > 0.999_99));
    Ok(())
}

#[test]
fn batches_and_recordings_change_nothing() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("s.safetensors");
    draw_weights(&VARIANTS[0].config(), &file)?;
    let plain = options(224, Precision::Bf16)?;
    let model = DinoEmbedder::open(&file, &plain, &gpu)?;
    let recorded = ModelOptions { cuda_graphs: true, ..plain };
    let recorded = DinoEmbedder::open(&file, &recorded, &gpu)?;
    let pictures = pictures(131);
    let together = embed(&model, &pictures)?;
    let batch = model.batch();
    println!("batches of {batch}");
    assert!(batch >= 1);
    for count in [1, 2, 3, 5, 1, 2, 3, 5, 1, 2, 3, 5, 17, 131] {
        for model in [&model, &recorded] {
            let some = embed(model, &pictures[..count])?;
            for (at, (some, all)) in some.iter().zip(&together).enumerate() {
                let cosine = some.similarity(all);
                // How a shape is multiplied depends on the batch, and so does rounding.
                assert!(cosine > 0.9999, "picture {at} of {count}: {cosine}");
            }
        }
    }
    Ok(())
}
