//! How large normed values get, channel by channel: what the steps of bytes are shared by between rows
//! and weights.
//!
//! The pictures are drawn, so that no file is needed and a model always gets the same bytes: discs
//! that cover each other (their edges and sizes are distributed as those of photographs, Lee et al.,
//! "Occlusion models for natural images", 2001), and rings on white for drawings. Channels that are
//! large for photographs are large for them, too (docs/performance.md).

use std::sync::{Mutex, PoisonError};

use super::super::config::{LAYER_NORM_EPS, PATCH_SIZE, PosEmbedRule, VitConfig};
use super::{Batch, CpuVit, Tokens};
use crate::kernels::{Isa, Precision, Team};
use crate::preprocess::{IMAGENET_MEAN, IMAGENET_STD};

/// Largest side of the pictures, in patches: 224 px.
const SIDE: usize = 16;
const DISCS: usize = 400;
const RINGS: usize = 24;

/// Largest sizes of normed values for each block: of the rows of its queries, keys and values, and of
/// those of its feed-forward network.
#[derive(Debug)]
pub(super) struct Largest(Vec<[Vec<f32>; 2]>);

impl Largest {
    /// Of a model in f32, on this machine's instructions `isa`; `None` where it lacks them.
    pub(super) fn of<E: Send>(
        config: &VitConfig,
        isa: Isa,
        values: &(dyn Fn(&str) -> Result<Vec<f32>, E> + Sync),
    ) -> Result<Option<Self>, E> {
        let rule = PosEmbedRule::Published;
        let Some(model) = CpuVit::load(config, rule, isa, Precision::F32, values)? else {
            return Ok(None);
        };
        let side = config.pos_embed_grid.clamp(1, SIDE) * PATCH_SIZE;
        let pictures = [discs(side), rings(side)];
        let images = pictures.each_ref().map(Vec::as_slice);
        let batch = Batch { images: &images, height: side, width: side };
        let mut out = vec![0f32; images.len() * model.tokens(side, side) * config.embed_dim];
        let seen = Seen::new(config);
        let layers = [config.depth - 1];
        model.observed(Team::global(), batch, &layers, Tokens::All, &mut out, Some(&seen));
        Ok(Some(Self(seen.0.into_inner().unwrap_or_else(PoisonError::into_inner))))
    }

    /// Of the first (0) or second (1) norm of a block.
    pub(super) fn of_norm(&self, block: usize, norm: usize) -> &[f32] {
        &self.0[block][norm]
    }
}

/// What is being collected, by all threads of a pass.
#[derive(Debug)]
pub(super) struct Seen(Mutex<Vec<[Vec<f32>; 2]>>);

impl Seen {
    fn new(config: &VitConfig) -> Self {
        let none = || vec![0f32; config.embed_dim];
        Self(Mutex::new((0..config.depth).map(|_| [none(), none()]).collect()))
    }

    /// Adds a row before its norm. The order does not matter.
    pub(super) fn add(&self, block: usize, norm: usize, row: &[f32]) {
        let mean = row.iter().sum::<f32>() / row.len() as f32;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / row.len() as f32;
        let factor = 1.0 / (variance + LAYER_NORM_EPS as f32).sqrt();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (largest, x) in all[block][norm].iter_mut().zip(row) {
            *largest = largest.max(((x - mean) * factor).abs());
        }
    }
}

/// Numbers that look drawn.
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    /// Radius, centre and colour of a disc on a picture of this side. Small ones are most frequent.
    fn disc(&mut self, side: usize) -> (usize, [usize; 2], [usize; 3]) {
        let radius = 3 + side / 3 * 10 / (10 + self.below(100));
        let centre = [self.below(side), self.below(side)];
        (radius, centre, [self.below(256), self.below(256), self.below(256)])
    }
}

/// Discs of all colours on grey, CHW, normalised.
fn discs(side: usize) -> Vec<f32> {
    let (mut draws, mut picture) = (Draws(1), vec![[128; 3]; side * side]);
    for _ in 0..DISCS {
        let (radius, centre, colour) = draws.disc(side);
        paint(&mut picture, side, centre, 0..=radius * radius, colour);
    }
    normalised(&picture)
}

/// Rings on white, most of them black.
fn rings(side: usize) -> Vec<f32> {
    let (mut draws, mut picture) = (Draws(2), vec![[255; 3]; side * side]);
    for _ in 0..RINGS {
        let (radius, centre, colour) = draws.disc(side);
        let colour = if colour[0] < 200 { [0; 3] } else { colour };
        let inner = (radius - 2) * (radius - 2);
        paint(&mut picture, side, centre, inner + 1..=radius * radius, colour);
    }
    normalised(&picture)
}

/// Colours the pixels whose squared distance from the centre is one of `distances`.
fn paint(
    picture: &mut [[usize; 3]],
    side: usize,
    [cx, cy]: [usize; 2],
    distances: std::ops::RangeInclusive<usize>,
    colour: [usize; 3],
) {
    for (at, pixel) in picture.iter_mut().enumerate() {
        let (x, y) = (at % side, at / side);
        if distances.contains(&(x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2))) {
            *pixel = colour;
        }
    }
}

fn normalised(picture: &[[usize; 3]]) -> Vec<f32> {
    let value = |channel: usize, pixel: &[usize; 3]| {
        (pixel[channel] as f32 / 255.0 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
    };
    (0..3).flat_map(|channel| picture.iter().map(move |pixel| value(channel, pixel))).collect()
}
