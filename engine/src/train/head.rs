//! The projection head of DINO and iBOT: tokens to scores over prototypes (reference:
//! `dino_head.py`).

use std::collections::BTreeMap;

use candle_core::{D, Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::augment::generator;
use super::losses::normalise;
use super::ops::{MatmulPrecision, gelu, linear};
use super::student::init::{normal, uniform, variable};
use crate::error::{EngineError, Result};

/// Parameters whose name starts so are held still at first.
pub(super) const LAST_LAYER: &str = "last_layer.";
/// Standard deviation of the matrices of the MLP.
const STD: f64 = 0.02;

/// Widths of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadConfig {
    /// Inner width of the MLP.
    pub hidden: usize,
    /// Width in which tokens meet prototypes.
    pub bottleneck: usize,
    /// Number of prototypes (K).
    pub prototypes: usize,
}

impl Default for HeadConfig {
    /// The published widths, with as many prototypes as the smaller published models.
    fn default() -> Self {
        Self { hidden: 2048, bottleneck: 256, prototypes: 65_536 }
    }
}

/// Three linear layers with GELU between them, L2 normalisation, and a linear layer without bias
/// whose rows are `weight_g` times the direction of `weight_v`.
#[derive(Debug)]
pub struct ProjectionHead {
    config: HeadConfig,
    precision: MatmulPrecision,
    /// By the names of the reference, the outer module's left off.
    parameters: BTreeMap<String, Var>,
    /// The same values, detached when frozen.
    tensors: BTreeMap<String, Tensor>,
    no_bias: Tensor,
}

impl ProjectionHead {
    /// Random, a function of the seed and `name`, for tokens `width` wide.
    ///
    /// # Errors
    /// A width of 0, or a device that refuses the memory.
    pub fn random(
        width: usize,
        config: HeadConfig,
        precision: MatmulPrecision,
        device: &Device,
        (seed, name): (u64, &str),
    ) -> Result<Self> {
        let HeadConfig { hidden, bottleneck, prototypes } = config;
        if width * hidden * bottleneck * prototypes == 0 {
            let reason = format!(
                "a head {hidden} wide with a bottleneck of {bottleneck} and {prototypes} \
                 prototypes cannot be made; each must be at least 1"
            );
            return Err(EngineError::Training { reason });
        }
        let mut parameters = BTreeMap::new();
        let layers = [(0, width, hidden), (2, hidden, hidden), (4, hidden, bottleneck)];
        for (layer, input, output) in layers {
            let mut rng = generator(seed, &format!("initial {name} {layer}"), [0, 0]);
            let weight = variable(normal(&mut rng, input * output, STD), &[output, input], device)?;
            parameters.insert(format!("mlp.{layer}.weight"), weight);
            let bias = variable(vec![0.0; output], &[output], device)?;
            parameters.insert(format!("mlp.{layer}.bias"), bias);
        }
        let mut rng = generator(seed, &format!("initial {name} last"), [0, 0]);
        let directions = uniform(&mut rng, prototypes * bottleneck, bottleneck);
        let directions = variable(directions, &[prototypes, bottleneck], device)?;
        parameters.insert(format!("{LAST_LAYER}weight_v"), directions);
        let lengths = variable(vec![1.0; prototypes], &[prototypes, 1], device)?;
        parameters.insert(format!("{LAST_LAYER}weight_g"), lengths);
        Self::new(config, precision, parameters)
    }

    fn new(
        config: HeadConfig,
        precision: MatmulPrecision,
        parameters: BTreeMap<String, Var>,
    ) -> Result<Self> {
        let tensors: BTreeMap<String, Tensor> =
            parameters.iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
        let like = parameters.values().next().map_or(&Device::Cpu, |v| v.device());
        let no_bias = Tensor::zeros(config.prototypes, candle_core::DType::F32, like)?;
        Ok(Self { config, precision, parameters, tensors, no_bias })
    }

    /// A copy with parameters of its own, without gradients.
    ///
    /// # Errors
    /// The device refuses the memory.
    pub fn frozen_copy(&self) -> Result<Self> {
        let copy = |(name, parameter): (&String, &Var)| -> Result<(String, Var)> {
            Ok((name.clone(), Var::from_tensor(&parameter.as_detached_tensor().copy()?)?))
        };
        let parameters = self.parameters.iter().map(copy).collect::<Result<_>>()?;
        let mut copy = Self::new(self.config, self.precision, parameters)?;
        copy.tensors.values_mut().for_each(|tensor| *tensor = tensor.detach());
        Ok(copy)
    }

    /// Every trainable parameter.
    pub fn parameters(&self) -> &BTreeMap<String, Var> {
        &self.parameters
    }

    /// Scores over prototypes: tokens (n, C) to (n, K). Differentiable.
    ///
    /// # Errors
    /// Tokens of another width, or a failed tensor operation.
    pub fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let layer = |i: usize, x: &Tensor| {
            let weight = self.get(&format!("mlp.{i}.weight"))?;
            linear(x, weight, self.get(&format!("mlp.{i}.bias"))?, self.precision)
        };
        let x = gelu(&layer(0, tokens)?)?;
        let x = gelu(&layer(2, &x)?)?;
        let x = normalise(&layer(4, &x)?, 1e-12)?;
        let directions = self.get("last_layer.weight_v")?;
        let norms = directions.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        let scale = (self.get("last_layer.weight_g")? / norms)?;
        linear(&x, &directions.broadcast_mul(&scale)?, &self.no_bias, self.precision)
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| EngineError::Training {
            reason: format!("the head has no parameter `{name}`"),
        })
    }
}
