//! The kernels' forward pass against one written as plainly as possible, in f64.

use std::collections::HashMap;
use std::convert::Infallible;

use super::super::config::{FfnKind, LAYER_NORM_EPS, PATCH_SIZE, PosEmbedRule, VitConfig};
use super::super::pos_embed;
use super::{Batch, CpuVit, Tokens};
use crate::kernels::{Isa, Precision, Team};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

/// Drawn parameters by canonical name, as [`CpuVit::load`] wants them.
pub(crate) struct Drawn(HashMap<String, Vec<f32>>);

fn noise(count: usize, mut state: u64, size: f32) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * size
    };
    (0..count).map(|_| next()).collect()
}

impl Drawn {
    pub(crate) fn new(config: &VitConfig) -> Self {
        let (dim, hidden) = (config.embed_dim, config.ffn_hidden_dim);
        let mut values = HashMap::new();
        let mut seed = 1;
        let mut draw = |name: String, count: usize, size: f32, offset: f32| {
            seed += 1;
            let drawn = noise(count, seed * 7919, size).into_iter().map(|x| x + offset).collect();
            values.insert(name, drawn);
        };
        let pixels = 3 * PATCH_SIZE * PATCH_SIZE;
        draw("patch_embed.proj.weight".into(), dim * pixels, 0.06, 0.0);
        draw("patch_embed.proj.bias".into(), dim, 0.2, 0.0);
        draw("cls_token".into(), dim, 1.0, 0.0);
        draw("register_tokens".into(), config.num_register_tokens * dim, 1.0, 0.0);
        draw("pos_embed".into(), config.pos_embed_grid.pow(2) * dim, 0.5, 0.0);
        draw("norm.weight".into(), dim, 0.3, 1.0);
        draw("norm.bias".into(), dim, 0.2, 0.0);
        let (up, up_width, down) = match config.ffn {
            FfnKind::Mlp => ("mlp.fc1", hidden, "mlp.fc2"),
            FfnKind::SwiGlu => ("mlp.w12", 2 * hidden, "mlp.w3"),
        };
        for i in 0..config.depth {
            let scale = |n: usize| 1.7 / (n as f32).sqrt();
            for (name, from, to) in [
                ("attn.qkv", dim, 3 * dim),
                ("attn.proj", dim, dim),
                (up, dim, up_width),
                (down, hidden, dim),
            ] {
                draw(format!("blocks.{i}.{name}.weight"), from * to, scale(from), 0.0);
                draw(format!("blocks.{i}.{name}.bias"), to, 0.2, 0.0);
            }
            for norm in ["norm1", "norm2"] {
                draw(format!("blocks.{i}.{norm}.weight"), dim, 0.4, 1.0);
                draw(format!("blocks.{i}.{norm}.bias"), dim, 0.2, 0.0);
            }
            for scale in ["ls1", "ls2"] {
                draw(format!("blocks.{i}.{scale}.gamma"), dim, 0.3, 0.5);
            }
        }
        Self(values)
    }

    pub(crate) fn values(&self, name: &str) -> Vec<f32> {
        self.0[name].clone()
    }

    pub(crate) fn load(&self, config: &VitConfig, isa: Isa, precision: Precision) -> CpuVit {
        let values = |name: &str| Ok::<_, Infallible>(self.values(name));
        let Ok(model) = CpuVit::load(config, PosEmbedRule::Published, isa, precision, &values);
        model.expect("an instruction set that is there, and a shape that fits")
    }

    /// `x W^T + b`, a row of x at a time.
    fn linear(&self, name: &str, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (weight, bias) = (&self.0[&format!("{name}.weight")], &self.0[&format!("{name}.bias")]);
        let row = |x: &Vec<f64>| {
            let columns = weight.chunks_exact(x.len()).zip(bias);
            let dot = |w: &[f32]| w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
            columns.map(|(w, b)| dot(w) + f64::from(*b)).collect()
        };
        x.iter().map(row).collect()
    }

    fn norm(&self, name: &str, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (weight, bias) = (&self.0[&format!("{name}.weight")], &self.0[&format!("{name}.bias")]);
        let row = |x: &Vec<f64>| {
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            let scale = 1.0 / (variance + LAYER_NORM_EPS).sqrt();
            let affine = weight.iter().zip(bias);
            x.iter()
                .zip(affine)
                .map(|(x, (w, b))| (x - mean) * scale * f64::from(*w) + f64::from(*b))
                .collect()
        };
        x.iter().map(row).collect()
    }

    fn add(&self, gamma: &str, x: &mut [Vec<f64>], branch: &[Vec<f64>]) {
        for (x, branch) in x.iter_mut().zip(branch) {
            for ((x, branch), gamma) in x.iter_mut().zip(branch).zip(&self.0[gamma]) {
                *x += branch * f64::from(*gamma);
            }
        }
    }

    /// Final-normed tokens after every block.
    fn forward(
        &self,
        config: &VitConfig,
        image: &[f32],
        (height, width): (usize, usize),
    ) -> Vec<Vec<Vec<f64>>> {
        let dim = config.embed_dim;
        let (rows, columns) = (height / PATCH_SIZE, width / PATCH_SIZE);
        let patches: Vec<Vec<f64>> = (0..rows * columns)
            .map(|patch| {
                let (top, left) = (patch / columns * PATCH_SIZE, patch % columns * PATCH_SIZE);
                (0..3 * PATCH_SIZE * PATCH_SIZE)
                    .map(|i| {
                        let (channel, y, x) =
                            (i / 196, i / PATCH_SIZE % PATCH_SIZE, i % PATCH_SIZE);
                        f64::from(image[(channel * height + top + y) * width + left + x])
                    })
                    .collect()
            })
            .collect();
        let positions = pos_embed::resample(
            &self.0["pos_embed"],
            config,
            PosEmbedRule::Published,
            (rows, columns),
        );
        let mut prefix = self.0["cls_token"].clone();
        prefix.extend(&self.0["register_tokens"]);
        let mut x: Vec<Vec<f64>> = prefix
            .chunks_exact(dim)
            .map(|token| token.iter().map(|&v| f64::from(v)).collect())
            .collect();
        let embedded = self.linear("patch_embed.proj", &patches);
        x.extend(embedded.into_iter().zip(positions.chunks_exact(dim)).map(|(token, position)| {
            token.iter().zip(position).map(|(x, p)| x + f64::from(*p)).collect::<Vec<_>>()
        }));
        let mut layers = Vec::new();
        for i in 0..config.depth {
            let name = |part: &str| format!("blocks.{i}.{part}");
            let qkv = self.linear(&name("attn.qkv"), &self.norm(&name("norm1"), &x));
            let mixed = attention(&qkv, dim, config.num_heads);
            let branch = self.linear(&name("attn.proj"), &mixed);
            self.add(&name("ls1.gamma"), &mut x, &branch);
            let normed = self.norm(&name("norm2"), &x);
            let branch = match config.ffn {
                FfnKind::Mlp => {
                    let mut hidden = self.linear(&name("mlp.fc1"), &normed);
                    hidden.iter_mut().flatten().for_each(|x| *x *= phi(*x));
                    self.linear(&name("mlp.fc2"), &hidden)
                }
                FfnKind::SwiGlu => {
                    let both = self.linear(&name("mlp.w12"), &normed);
                    let gate = |row: &Vec<f64>| {
                        let (u, v) = row.split_at(config.ffn_hidden_dim);
                        u.iter().zip(v).map(|(u, v)| u / (1.0 + (-u).exp()) * v).collect()
                    };
                    self.linear(&name("mlp.w3"), &both.iter().map(gate).collect::<Vec<_>>())
                }
            };
            self.add(&name("ls2.gamma"), &mut x, &branch);
            layers.push(self.norm("norm", &x));
        }
        layers
    }
}

fn attention(qkv: &[Vec<f64>], dim: usize, heads: usize) -> Vec<Vec<f64>> {
    let width = dim / heads;
    let part = |row: &[f64], which: usize, head: usize| {
        let start = which * dim + head * width;
        row[start..start + width].to_vec()
    };
    qkv.iter()
        .map(|query| {
            (0..heads)
                .flat_map(|head| {
                    let query = part(query, 0, head);
                    let scores: Vec<f64> = qkv
                        .iter()
                        .map(|key| {
                            let key = part(key, 1, head);
                            let dot = query.iter().zip(&key).map(|(q, k)| q * k).sum::<f64>();
                            dot / (width as f64).sqrt()
                        })
                        .collect();
                    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    let mut sums = vec![0f64; width];
                    for (weight, value) in weights.iter().zip(qkv) {
                        let value = part(value, 2, head);
                        sums.iter_mut().zip(&value).for_each(|(s, v)| *s += weight / total * v);
                    }
                    sums
                })
                .collect()
        })
        .collect()
}

/// Normal distribution function, by its series (error below 1e-12 for what occurs here).
fn phi(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-17 && n < 400.0 {
        term *= x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    let value = 0.5 + sum * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if x > 8.0 {
        1.0
    } else if x < -8.0 {
        0.0
    } else {
        value
    }
}

pub(crate) fn shape(dim: usize, depth: usize, ffn: FfnKind, registers: usize) -> VitConfig {
    let mlp = VitConfig::mlp(dim, depth, dim / 64, 5);
    VitConfig {
        ffn,
        num_register_tokens: registers,
        ffn_hidden_dim: if ffn == FfnKind::Mlp { 4 * dim } else { dim * 8 / 3 / 32 * 32 },
        ..mlp
    }
}

/// Smallest cosine of a token and largest difference relative to the largest value.
fn compare(got: &[f32], want: &[Vec<f64>]) -> (f64, f64) {
    let scale = want.iter().flatten().fold(0f64, |max, x| max.max(x.abs()));
    let mut worst = (1f64, 0f64);
    for (got, want) in got.chunks_exact(want[0].len()).zip(want) {
        let pairs = || got.iter().map(|&g| f64::from(g)).zip(want.iter().copied());
        let (gg, ww, gw) = pairs()
            .fold((0.0, 0.0, 0.0), |(gg, ww, gw), (g, w)| (gg + g * g, ww + w * w, gw + g * w));
        worst.0 = worst.0.min(gw / (gg * ww).sqrt());
        worst.1 = pairs().fold(worst.1, |max, (g, w)| max.max((g - w).abs() / scale));
    }
    worst
}

/// Runs a model on a batch whose images are the same but for the last, and compares every layer of
/// the first and last image with the plain pass.
fn check(
    config: &VitConfig,
    isa: Isa,
    precision: Precision,
    threads: usize,
    (images, height, width): (usize, usize, usize),
) {
    // The first block is never of bytes, nor is much of the last one.
    let depth = if precision == Precision::Int8 { 3 } else { config.depth };
    let config = &VitConfig { depth, ..config.clone() };
    let drawn = Drawn::new(config);
    let model = drawn.load(config, isa, precision);
    let team = Team::new(threads);
    let pixels = 3 * height * width;
    let (first, last) = (noise(pixels, 5, 2.0), noise(pixels, 6, 2.0));
    let batch: Vec<&[f32]> =
        (0..images).map(|i| if i + 1 < images { &first[..] } else { &last[..] }).collect();
    let batch = Batch { images: &batch, height, width };
    let tokens = model.tokens(height, width);
    let per_image = tokens * config.embed_dim;
    let layers: Vec<usize> = (0..config.depth).rev().collect();
    let mut out = vec![f32::NAN; layers.len() * images * per_image];
    model.forward(&team, batch, &layers, Tokens::All, &mut out);
    let case = format!("{isa:?} {precision} x{threads}, {images} of {height}x{width}");
    let (least, most) = match precision {
        Precision::F32 => (0.999_999_9, 2e-5),
        Precision::Bf16 | Precision::F16 => (0.9995, 0.05),
        Precision::Int8 => (0.995, 0.15),
    };
    for (image, source) in [(0, &first), (images - 1, &last)] {
        if images == 1 && image == 0 && source.as_ptr() == first.as_ptr() {
            continue;
        }
        let want = drawn.forward(config, source, (height, width));
        for (at, &layer) in layers.iter().enumerate() {
            let got = &out[(at * images + image) * per_image..][..per_image];
            let (cosine, difference) = compare(got, &want[layer]);
            assert!(
                cosine >= least && difference <= most,
                "{case}: image {image}, layer {layer}: cosine {cosine}, difference {difference}"
            );
        }
    }
    // CLS alone is the same to the bit, on a used workspace; and so it is alone in its batch, and
    // whatever the number of threads.
    let mut cls = vec![f32::NAN; images * config.embed_dim];
    let last_layer = [config.depth - 1];
    model.forward(&team, batch, &last_layer, Tokens::Cls, &mut cls);
    for (image, alone) in cls.chunks_exact(config.embed_dim).enumerate() {
        let all = &out[image * per_image..][..config.embed_dim];
        assert_eq!(all, alone, "{case}: CLS of image {image}");
    }
    let mut alone = vec![f32::NAN; config.embed_dim];
    let batch = Batch { images: &batch.images[images - 1..], ..batch };
    model.forward(&Team::new(1), batch, &last_layer, Tokens::Cls, &mut alone);
    assert_eq!(cls[(images - 1) * config.embed_dim..], alone, "{case}: CLS in a batch of one");
}

/// Every instruction set of this machine; what it lacks is said.
fn everywhere(test: impl Fn(Isa)) {
    for isa in Isa::ALL {
        if isa.is_available() {
            test(isa);
        } else {
            eprintln!("skipped: this machine has no {}", isa.name());
        }
    }
}

#[test]
fn odd_sizes_and_batches_agree_with_the_plain_pass() {
    let plain = shape(192, 2, FfnKind::Mlp, 0);
    let registers = shape(128, 2, FfnKind::Mlp, 4);
    everywhere(|isa| {
        for precision in PRECISIONS {
            for threads in [1, 2, 3] {
                // 2, 5, 13 and 31 tokens; batches that leave a rest.
                for size in [(1, 14, 14), (33, 28, 28), (2, 42, 56), (5, 70, 84)] {
                    check(&plain, isa, precision, threads, size);
                }
                check(&registers, isa, precision, threads, (3, 28, 42));
            }
            // One token more than whole tiles, and several threads to a part of the rows.
            check(&plain, isa, precision, 16, (1, 112, 112));
            check(&plain, isa, precision, 6, (1, 28, 28));
        }
    });
}

#[test]
fn wide_and_gated_networks_agree_with_the_plain_pass() {
    everywhere(|isa| {
        for precision in PRECISIONS {
            for dim in [384, 768, 1024] {
                check(&shape(dim, 1, FfnKind::Mlp, 0), isa, precision, 2, (2, 28, 28));
            }
            check(&shape(1536, 1, FfnKind::SwiGlu, 4), isa, precision, 2, (1, 28, 28));
            check(&shape(128, 2, FfnKind::SwiGlu, 0), isa, precision, 1, (4, 42, 42));
        }
    });
}

#[test]
fn int8_is_not_bf16_after_the_first_block() {
    let config = shape(128, 2, FfnKind::Mlp, 0);
    let drawn = Drawn::new(&config);
    let image = noise(3 * 42 * 42, 5, 2.0);
    everywhere(|isa| {
        let [bf16, int8] = [Precision::Bf16, Precision::Int8].map(|precision| {
            let model = drawn.load(&config, isa, precision);
            let batch = Batch { images: &[&image], height: 42, width: 42 };
            let mut out = vec![0f32; 2 * 10 * 128];
            model.forward(&Team::new(2), batch, &[0, 1], Tokens::All, &mut out);
            out
        });
        let (first, second) = bf16.split_at(10 * 128);
        assert_eq!(first, &int8[..10 * 128], "{isa:?}");
        assert_ne!(second, &int8[10 * 128..], "{isa:?}");
    });
}

#[test]
fn long_sequences_agree_with_the_plain_pass() {
    // 1,370 tokens and four registers: several blocks of keys.
    let config = shape(64, 2, FfnKind::Mlp, 4);
    everywhere(|isa| {
        for precision in PRECISIONS {
            check(&config, isa, precision, 2, (1, 518, 518));
        }
    });
}

#[test]
fn hidden_widths_that_fill_no_tile_agree_with_the_plain_pass() {
    everywhere(|isa| {
        for precision in PRECISIONS {
            for ffn in [FfnKind::Mlp, FfnKind::SwiGlu] {
                let config = VitConfig { ffn_hidden_dim: 88, ..shape(64, 2, ffn, 0) };
                check(&config, isa, precision, 2, (2, 28, 28));
            }
        }
    });
}

#[test]
fn heads_of_sixteen_are_done_in_f32_and_refused_otherwise() {
    let config = VitConfig { num_heads: 4, ..shape(64, 2, FfnKind::Mlp, 1) };
    everywhere(|isa| check(&config, isa, Precision::F32, 2, (3, 42, 28)));
    assert!(!CpuVit::supports(&config, Precision::Bf16));
    assert!(!CpuVit::supports(&config, Precision::Int8));
    assert!(!CpuVit::supports(&VitConfig { num_heads: 8, ..config }, Precision::F32));
}

#[test]
fn a_picture_that_is_not_finite_leaves_the_next_one_alone() {
    let config = shape(128, 2, FfnKind::Mlp, 0);
    let drawn = Drawn::new(&config);
    let team = Team::new(2);
    let check = |isa: Isa, precision: Precision| {
        let model = drawn.load(&config, isa, precision);
        let (good, mut bad) = (noise(3 * 42 * 42, 5, 2.0), noise(3 * 42 * 42, 7, 2.0));
        bad[99] = f32::NAN;
        let run = |image: &[f32]| {
            let batch = Batch { images: &[image], height: 42, width: 42 };
            let mut out = vec![0f32; 10 * 128];
            model.forward(&team, batch, &[1], Tokens::All, &mut out);
            out
        };
        let before = run(&good);
        assert!(run(&bad).iter().all(|x| x.is_nan()));
        assert_eq!(run(&good), before, "{isa:?} {precision}");
    };
    everywhere(|isa| PRECISIONS.into_iter().for_each(|precision| check(isa, precision)));
}
