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
        let pictures = [discs(side), rings(side)].map(|picture| normalised(&picture));
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

/// Discs of all colours on grey.
fn discs(side: usize) -> Vec<[usize; 3]> {
    let (mut draws, mut picture) = (Draws(1), vec![[128; 3]; side * side]);
    for _ in 0..DISCS {
        let (radius, centre, colour) = draws.disc(side);
        paint(&mut picture, side, centre, 0..=radius * radius, colour);
    }
    picture
}

/// Rings on white, most of them black.
fn rings(side: usize) -> Vec<[usize; 3]> {
    let (mut draws, mut picture) = (Draws(2), vec![[255; 3]; side * side]);
    for _ in 0..RINGS {
        let (radius, centre, colour) = draws.disc(side);
        let colour = if colour[0] < 200 { [0; 3] } else { colour };
        let inner = (radius - 2) * (radius - 2);
        paint(&mut picture, side, centre, inner + 1..=radius * radius, colour);
    }
    picture
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

/// CHW, as models take it.
fn normalised(picture: &[[usize; 3]]) -> Vec<f32> {
    let value = |channel: usize, pixel: &[usize; 3]| {
        (pixel[channel] as f32 / 255.0 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
    };
    (0..3).flat_map(|channel| picture.iter().map(move |pixel| value(channel, pixel))).collect()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::super::super::config::FfnKind;
    use super::super::tests::{Drawn, shape};
    use super::*;

    /// CRC-32 of the bytes that `fixtures/reference/int8_imitation.py` draws.
    #[test]
    fn pictures_are_those_of_the_imitation() {
        let checksum = |picture: Vec<[usize; 3]>| {
            let bytes: Vec<u8> = picture.into_iter().flatten().map(|value| value as u8).collect();
            crc32fast::hash(&bytes)
        };
        assert_eq!((checksum(discs(224)), checksum(discs(70))), (2587934233, 4264135487));
        assert_eq!((checksum(rings(224)), checksum(rings(70))), (1976090413, 2577419279));
    }

    #[test]
    fn what_is_seen_is_that_of_normed_rows_on_every_instruction_set() {
        let config = shape(64, 3, FfnKind::Mlp, 4);
        let drawn = Drawn::new(&config);
        let values = |name: &str| Ok::<_, Infallible>(drawn.values(name));
        let seen = |isa| {
            let Ok(largest) = Largest::of(&config, isa, &values);
            let largest = largest.expect("an instruction set that is there");
            let norms = (0..config.depth).flat_map(|block| [(block, 0), (block, 1)]);
            norms
                .flat_map(|(block, norm)| largest.of_norm(block, norm).to_vec())
                .collect::<Vec<_>>()
        };
        let portable = seen(Isa::Portable);
        // A normed value cannot be larger than the root of the width.
        assert!(portable.iter().all(|x| *x > 0.5 && *x < 8.0), "{portable:?}");
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for (a, b) in portable.iter().zip(seen(isa)) {
                assert!((a - b).abs() < 1e-4 * a, "{isa:?}: {a} {b}");
            }
        }
    }
}
