//! Where one picture may lie within the other: all places and some sizes, mirrored or not, on the
//! coarsest level. Finds crops and frames whose patches look too different to be matched.

use super::Affine;
use super::plane::{Plane, Planes};

/// Part of the larger picture that the smaller one spans, along the side that limits it.
const SCALES: [f32; 5] = [0.42, 0.5, 0.6, 0.71, 0.84];
/// Proposals of each direction and mirroring.
const EACH: usize = 2;

/// Maps from the first picture to the second.
pub(super) fn propose(first: &Planes, second: &Planes) -> Vec<Affine> {
    let mut maps = within(second, first);
    // Found the other way round.
    maps.extend(within(first, second).iter().filter_map(Affine::inverse));
    maps
}

/// Maps from `large` to `small`, whose whole frame lies in that of `large`.
fn within(small: &Planes, large: &Planes) -> Vec<Affine> {
    let (plane, template) = (&large.level(0).grey, &small.level(0).grey);
    let aspect = |size: (u32, u32)| size.0 as f32 / size.1 as f32;
    let stretch = aspect(small.size()) / aspect(large.size());
    let mut maps = Vec::new();
    for mirrored in [false, true] {
        let mut found: Vec<(f32, Affine)> = Vec::new();
        for scale in SCALES {
            // Width and height of the small frame, relative to the large one.
            let (wide, high) =
                if stretch >= 1.0 { (scale, scale / stretch) } else { (scale * stretch, scale) };
            let size = |part: f32, length: usize| (part * length as f32).round() as usize;
            let (width, height) = (size(wide, plane.width), size(high, plane.height));
            if width < 6 || height < 6 || width > plane.width || height > plane.height {
                continue;
            }
            let patch = Patch::new(template, width, height, mirrored);
            for y in 0..=plane.height - height {
                for x in 0..=plane.width - width {
                    let score = patch.correlation(plane, x, y);
                    if found.len() < EACH || found.last().is_some_and(|last| score > last.0) {
                        let left = x as f32 / plane.width as f32;
                        let top = y as f32 / plane.height as f32;
                        // Relative to the frame the template was rounded to.
                        let wide = width as f32 / plane.width as f32;
                        let high = height as f32 / plane.height as f32;
                        insert(&mut found, score, place(left, top, wide, high, mirrored));
                    }
                }
            }
        }
        maps.extend(found.into_iter().map(|(_, map)| map));
    }
    maps
}

/// The map that takes a rectangle to the whole frame.
fn place(left: f32, top: f32, wide: f32, high: f32, mirrored: bool) -> Affine {
    let down = [0.0, 1.0 / high, -top / high];
    match mirrored {
        false => Affine([[1.0 / wide, 0.0, -left / wide], down]),
        true => Affine([[-1.0 / wide, 0.0, 1.0 + left / wide], down]),
    }
}

/// Keeps the best, of neighbouring places one.
fn insert(found: &mut Vec<(f32, Affine)>, score: f32, map: Affine) {
    let near = |other: &Affine| {
        let centre = |map: &Affine| map.inverse().map(|back| (back.apply(0.5, 0.5), back.0[0][0]));
        match (centre(&map), centre(other)) {
            (Some(((x, y), a)), Some(((u, v), b))) => {
                (x - u).abs() + (y - v).abs() < 0.1 && (a - b).abs() < 0.15
            }
            _ => false,
        }
    };
    if let Some(place) = found.iter().position(|(_, other)| near(other)) {
        if found[place].0 >= score {
            return;
        }
        found.remove(place);
    }
    let place = found.partition_point(|(other, _)| *other >= score);
    found.insert(place, (score, map));
    found.truncate(EACH);
}

/// A picture scaled to a template, its mean removed and its length one.
struct Patch {
    width: usize,
    values: Vec<f32>,
}

impl Patch {
    fn new(plane: &Plane, width: usize, height: usize, mirrored: bool) -> Self {
        // Means over the area of each pixel, in a few samples.
        let steps = (plane.width.div_ceil(width)).max(plane.height.div_ceil(height)).clamp(1, 4);
        let part = |i: usize, step: usize, length: usize| {
            (i as f32 + (step as f32 + 0.5) / steps as f32) / length as f32
        };
        let mut values = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let mut sum = 0.0;
                for i in 0..steps {
                    for j in 0..steps {
                        let at = part(x, j, width);
                        let at = if mirrored { 1.0 - at } else { at };
                        sum += plane.at(at, part(y, i, height));
                    }
                }
                values.push(sum / (steps * steps) as f32);
            }
        }
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        values.iter_mut().for_each(|value| *value -= mean);
        let length = values.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-3);
        values.iter_mut().for_each(|value| *value /= length);
        Self { width, values }
    }

    fn correlation(&self, plane: &Plane, x: usize, y: usize) -> f32 {
        let (mut sum, mut squares, mut product) = (0.0f32, 0.0f32, 0.0f32);
        for (row, own) in self.values.chunks_exact(self.width).enumerate() {
            let start = (y + row) * plane.width + x;
            for (&value, own) in plane.values[start..start + self.width].iter().zip(own) {
                let value = f32::from(value);
                sum += value;
                squares += value * value;
                product += value * own;
            }
        }
        let variance = squares - sum * sum / self.values.len() as f32;
        product / (variance.max(0.0) + 1.0).sqrt()
    }
}
