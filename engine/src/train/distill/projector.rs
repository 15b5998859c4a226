//! From the student's width to the teacher's, where they differ.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};

use crate::error::Result;
use crate::train::augment::generator;
use crate::train::ops::{MatmulPrecision, linear};
use crate::train::student::init::{normal, variable};

/// Deviation of initial weights, that of the backbone's.
const STD: f64 = 0.02;

/// One linear layer for CLS and one for patch tokens: trained beside the student, left out of the
/// result.
#[derive(Debug)]
pub(super) struct Projector {
    /// `projector.{cls,patch}.{weight,bias}`: (teacher width, student width), (teacher width).
    parameters: BTreeMap<String, Var>,
    precision: MatmulPrecision,
}

impl Projector {
    pub fn random(
        (from, to): (usize, usize),
        precision: MatmulPrecision,
        device: &Device,
        seed: u64,
    ) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        for token in ["cls", "patch"] {
            let mut rng = generator(seed, &format!("initial projector {token}"), [0, 0]);
            let weight = variable(normal(&mut rng, to * from, STD), &[to, from], device)?;
            parameters.insert(format!("projector.{token}.weight"), weight);
            let bias = variable(vec![0.0; to], &[to], device)?;
            parameters.insert(format!("projector.{token}.bias"), bias);
        }
        Ok(Self { parameters, precision })
    }

    pub fn parameters(&self) -> &BTreeMap<String, Var> {
        &self.parameters
    }

    /// `tokens` (.., student width) of kind `cls` or `patch` to (.., teacher width).
    pub fn forward(&self, token: &str, tokens: &Tensor) -> Result<Tensor> {
        let part = |part: &str| &self.parameters[&format!("projector.{token}.{part}")];
        let mut shape = tokens.dims().to_vec();
        let rows = tokens.flatten_to(shape.len() - 2)?;
        let out = linear(&rows, part("weight"), part("bias"), self.precision)?;
        if let Some(width) = shape.last_mut() {
            *width = out.dim(1)?;
        }
        Ok(out.reshape(shape)?)
    }
}
