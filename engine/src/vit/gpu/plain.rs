//! A machine made of loops: what each call means, in f32 or as if in bf16. Memory is counted, so that it
//! can run out.

use std::collections::HashMap;

use half::bf16;

use super::super::config::{LAYER_NORM_EPS, PATCH_SIZE};
use super::folded::Dense;
use super::machine::{
    Activation, Affine, Fault, Heads, Machine, Pictures, Recording, Rows, SLOTS, TokenShape,
};
use super::plan::PATCH_ROW;
use crate::kernels::dot;
use crate::preprocess::{IMAGENET_MEAN, IMAGENET_STD};

/// Values on the machine, counted against its memory for as long as they live.
pub(super) struct Values(Vec<f32>);

/// The machine.
#[derive(Default)]
pub(super) struct Plain {
    /// Whether factors of products are rounded to bf16.
    pub(super) round: bool,
    /// Values that a single buffer may hold; none may be larger.
    pub(super) room: Option<usize>,
    pub(super) free: Option<u64>,
    pub(super) slots: [Vec<Vec<u8>>; SLOTS],
    pub(super) largest: Option<f32>,
    /// What was asked of it, in words.
    pub(super) log: Vec<String>,
    /// Recordings as replayed results: only that they were made is kept.
    pub(super) recorded: HashMap<Recording, usize>,
}

impl Plain {
    fn buffer(&self, values: usize) -> Result<Values, Fault> {
        match self.room {
            Some(room) if values > room => Err(Fault::OutOfMemory),
            // Not zeros: nobody may count on them.
            _ => Ok(Values(vec![f32::NAN; values])),
        }
    }

    fn store(&mut self, value: f32) -> f32 {
        if let Some(largest) = &mut self.largest {
            *largest = largest.max(value.abs());
        }
        if self.round { bf16::from_f32(value).to_f32() } else { value }
    }

    fn multiply(&self, x: &Values, rows: usize, by: &Dense) -> Vec<f32> {
        let (inputs, outputs) = (by.inputs, by.outputs());
        let mut out = Vec::with_capacity(rows * outputs);
        for row in x.0[..rows * inputs].chunks_exact(inputs) {
            for (at, weights) in by.weight.chunks_exact(inputs).enumerate() {
                out.push(dot(row, weights) + by.bias.get(at).copied().unwrap_or(0.0));
            }
        }
        out
    }

    fn normed(x: &Values, rows: Rows, by: &Affine<Values>) -> Vec<f32> {
        let dim = by.gain.0.len();
        let mut out = Vec::with_capacity(rows.count * dim);
        for number in 0..rows.count {
            let row = &x.0[number * rows.step * dim..][..dim];
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / dim as f64;
            let variance =
                row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / dim as f64;
            let scale = 1.0 / (variance + LAYER_NORM_EPS).sqrt();
            out.extend(row.iter().zip(by.gain.0.iter().zip(&by.shift.0)).map(|(&v, (&g, &s))| {
                ((f64::from(v) - mean) * scale * f64::from(g) + f64::from(s)) as f32
            }));
        }
        out
    }
}

impl Machine for Plain {
    type Narrow = Values;
    type Wide = Values;
    type Matrix = Dense;

    fn matrix(&mut self, from: &Dense) -> Result<Dense, Fault> {
        let weight = from.weight.iter().map(|&value| self.store(value)).collect();
        Ok(Dense { weight, bias: from.bias.clone(), inputs: from.inputs })
    }

    fn upload(&mut self, values: &[f32]) -> Result<Values, Fault> {
        Ok(Values(values.to_vec()))
    }

    fn narrow(&mut self, values: usize) -> Result<Values, Fault> {
        self.buffer(values)
    }

    fn wide(&mut self, values: usize) -> Result<Values, Fault> {
        self.buffer(values)
    }

    fn stage(&mut self, slot: usize, pictures: &[&[u8]]) -> Result<(), Fault> {
        self.log.push(format!("stage {} in {slot}", pictures.len()));
        self.slots[slot] = pictures.iter().map(|picture| picture.to_vec()).collect();
        Ok(())
    }

    fn await_slot(&mut self, _: usize) -> Result<(), Fault> {
        Ok(())
    }

    fn free_slot(&mut self, _: usize) -> Result<(), Fault> {
        Ok(())
    }

    fn patches(
        &mut self,
        slot: usize,
        Pictures { batch, side }: Pictures,
        out: &mut Values,
    ) -> Result<(), Fault> {
        let (grid, pictures) = (side / PATCH_SIZE, std::mem::take(&mut self.slots[slot]));
        assert_eq!(pictures.len(), batch);
        let mut rows = out.0.chunks_exact_mut(PATCH_ROW);
        for (picture, at) in pictures.iter().flat_map(|p| (0..grid * grid).map(move |at| (p, at))) {
            let row = rows.next().expect("room");
            row.fill(0.0);
            for (column, value) in row[..3 * PATCH_SIZE * PATCH_SIZE].iter_mut().enumerate() {
                let (channel, inside) = (column / PATCH_SIZE.pow(2), column % PATCH_SIZE.pow(2));
                let y = at / grid * PATCH_SIZE + inside / PATCH_SIZE;
                let x = at % grid * PATCH_SIZE + inside % PATCH_SIZE;
                let byte = f32::from(picture[(y * side + x) * 3 + channel]);
                let normal = (byte / 255.0 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel];
                *value = self.store(normal);
            }
        }
        self.slots[slot] = pictures;
        Ok(())
    }

    fn tokens(
        &mut self,
        patches: &Values,
        prefix: &Values,
        positions: &Values,
        shape: TokenShape,
        out: &mut Values,
    ) -> Result<(), Fault> {
        let TokenShape { batch, prefix: before, patches: count, dim } = shape;
        let mut rows = out.0.chunks_exact_mut(dim);
        for picture in 0..batch {
            for token in 0..before + count {
                let row = rows.next().expect("room");
                match token.checked_sub(before) {
                    None => row.copy_from_slice(&prefix.0[token * dim..][..dim]),
                    Some(patch) => {
                        let from = &patches.0[(picture * count + patch) * dim..][..dim];
                        let position = &positions.0[patch * dim..][..dim];
                        for ((out, a), b) in row.iter_mut().zip(from).zip(position) {
                            *out = a + b;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn product(
        &mut self,
        x: &Values,
        rows: usize,
        by: &Dense,
        act: Activation,
        out: &mut Values,
    ) -> Result<(), Fault> {
        for (value, out) in self.multiply(x, rows, by).into_iter().zip(&mut out.0) {
            let value = match act {
                Activation::None => value,
                Activation::Gelu => {
                    // As CUDA has it for half precision; close to the exact form below bf16's steps.
                    let inner = 0.797_884_6 * (value + 0.044_715 * value.powi(3));
                    if self.round { 0.5 * value * (1.0 + inner.tanh()) } else { gelu(value) }
                }
            };
            *out = self.store(value);
        }
        Ok(())
    }

    fn product_wide(
        &mut self,
        x: &Values,
        rows: usize,
        by: &Dense,
        add: bool,
        out: &mut Values,
    ) -> Result<(), Fault> {
        for (value, out) in self.multiply(x, rows, by).into_iter().zip(&mut out.0) {
            *out = if add { *out + value } else { value };
        }
        Ok(())
    }

    fn norm(
        &mut self,
        x: &Values,
        rows: Rows,
        by: &Affine<Values>,
        out: &mut Values,
    ) -> Result<(), Fault> {
        for (value, out) in Self::normed(x, rows, by).into_iter().zip(&mut out.0) {
            *out = self.store(value);
        }
        Ok(())
    }

    fn norm_wide(
        &mut self,
        x: &Values,
        rows: Rows,
        by: &Affine<Values>,
        out: &mut Values,
    ) -> Result<(), Fault> {
        Self::normed(x, rows, by).into_iter().zip(&mut out.0).for_each(|(value, out)| *out = value);
        Ok(())
    }

    fn attention(&mut self, qkv: &Values, shape: Heads) -> Result<Values, Fault> {
        let Heads { batch, tokens, heads, width } = shape;
        let dim = heads * width;
        let mut out = self.buffer(batch * tokens * dim)?;
        for (picture, head) in (0..batch).flat_map(|p| (0..heads).map(move |h| (p, h))) {
            let part = |which: usize, token: usize| {
                &qkv.0[((picture * tokens + token) * 3 + which) * dim + head * width..][..width]
            };
            for query in 0..tokens {
                let scale = (width as f32).powf(-0.5);
                let mut scores: Vec<f32> =
                    (0..tokens).map(|key| scale * dot(part(0, query), part(1, key))).collect();
                let most = scores.iter().copied().fold(f32::MIN, f32::max);
                scores.iter_mut().for_each(|score| *score = (*score - most).exp());
                let sum: f32 = scores.iter().sum();
                for at in 0..width {
                    let value: f32 =
                        scores.iter().enumerate().map(|(key, s)| s / sum * part(2, key)[at]).sum();
                    out.0[(picture * tokens + query) * dim + head * width + at] = self.store(value);
                }
            }
        }
        Ok(out)
    }

    fn swiglu(
        &mut self,
        x: &Values,
        rows: usize,
        hidden: usize,
        out: &mut Values,
    ) -> Result<(), Fault> {
        let pairs = x.0[..rows * 2 * hidden].chunks_exact(2 * hidden).flat_map(|row| {
            let (a, b) = row.split_at(hidden);
            a.iter().zip(b)
        });
        for ((a, b), out) in pairs.zip(&mut out.0) {
            *out = self.store(a / (1.0 + (-a).exp()) * b);
        }
        Ok(())
    }

    fn download(&mut self, from: &Values, values: usize, out: &mut Vec<f32>) -> Result<(), Fault> {
        out.extend(&from.0[..values]);
        Ok(())
    }

    fn narrow_bytes(&self) -> usize {
        if self.round { 2 } else { 4 }
    }

    fn in_pieces(&self, _: usize) -> bool {
        false
    }

    fn memory(&mut self) -> Result<(u64, u64), Fault> {
        Ok((self.free.unwrap_or(u64::MAX / 8), u64::MAX / 8))
    }

    fn watch(&mut self) -> Result<(), Fault> {
        self.largest = Some(0.0);
        Ok(())
    }

    fn watched(&mut self) -> Result<f32, Fault> {
        Ok(self.largest.take().unwrap_or(f32::NAN))
    }

    fn record(&mut self) -> Result<bool, Fault> {
        self.log.push("record".to_owned());
        Ok(true)
    }

    fn keep(&mut self, key: Recording) -> Result<(), Fault> {
        self.log.push(format!("keep {}", key.batch));
        self.recorded.insert(key, 0);
        Ok(())
    }

    fn replay(&mut self, key: Recording) -> Result<bool, Fault> {
        // The loops have run already when something is kept: only a later replay needs them again,
        // which this machine cannot do, so the tests look at the log.
        Ok(self.recorded.get_mut(&key).is_some_and(|times| {
            *times += 1;
            self.log.push(format!("replay {}", key.batch));
            true
        }))
    }

    fn forget(&mut self) {
        self.log.push("forget".to_owned());
        self.recorded.clear();
    }
}

/// The exact form, by Abramowitz and Stegun 7.1.26 in f64.
fn gelu(value: f32) -> f32 {
    let z = f64::from(value) / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z.abs());
    let poly = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let erf = (1.0 - poly * (-z * z).exp()).copysign(z);
    (0.5 * f64::from(value) * (1.0 + erf)) as f32
}
