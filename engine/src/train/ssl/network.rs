//! Backbone and heads of one side, student or teacher.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};

use super::config::SslConfig;
use crate::error::Result;
use crate::train::head::ProjectionHead;
use crate::train::ops::MatmulPrecision;
use crate::train::student::Student;

/// A backbone with its heads.
#[derive(Debug)]
pub(super) struct Network {
    pub backbone: Student,
    dino: ProjectionHead,
    /// Absent where the DINO head serves patches too.
    ibot: Option<ProjectionHead>,
}

impl Network {
    /// A backbone with new heads, drawn anew for each `side`.
    pub fn new(
        backbone: Student,
        config: &SslConfig,
        precision: MatmulPrecision,
        side: &str,
    ) -> Result<Self> {
        let (width, device) = (backbone.config().embed_dim, backbone.device().clone());
        let head = |name: &str| {
            let name = format!("{side}{name}");
            ProjectionHead::random(width, config.head, precision, &device, (config.seed, &name))
        };
        let dino = head("DINO head")?;
        let ibot = (!config.shared_head).then(|| head("iBOT head")).transpose()?;
        Ok(Self { backbone, dino, ibot })
    }

    /// A copy with parameters of its own, without gradients: the teacher at its start.
    pub fn frozen_copy(&self) -> Result<Self> {
        Ok(Self {
            backbone: self.backbone.frozen_copy()?,
            dino: self.dino.frozen_copy()?,
            ibot: self.ibot.as_ref().map(ProjectionHead::frozen_copy).transpose()?,
        })
    }

    /// Sets the heads to those of a checkpoint's teacher.
    ///
    /// # Errors
    /// The first parameter that is missing or of another shape, by name.
    pub fn take_heads(
        &self,
        tensors: &BTreeMap<String, Tensor>,
    ) -> std::result::Result<(), String> {
        let heads = self.modules().into_iter().skip(1);
        for (module, parameters) in heads {
            for (name, parameter) in parameters {
                let full = format!("teacher.{module}.{name}");
                let found = tensors.get(&full).ok_or_else(|| format!("it has no `{full}`"))?;
                if found.shape() != parameter.shape() {
                    return Err(format!(
                        "its `{full}` is {:?} and the heads here want {:?}; use the --hidden, \
                         --bottleneck and --prototypes of that run",
                        found.dims(),
                        parameter.dims()
                    ));
                }
                parameter.set(found).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Parameters of each module, which are clipped apart.
    pub fn modules(&self) -> Vec<(&'static str, &BTreeMap<String, Var>)> {
        let mut modules =
            vec![("backbone", self.backbone.parameters()), ("dino_head", self.dino.parameters())];
        modules.extend(self.ibot.as_ref().map(|head| ("ibot_head", head.parameters())));
        modules
    }

    /// Every parameter.
    pub fn parameters(&self) -> impl Iterator<Item = &Var> {
        self.modules().into_iter().flat_map(|(_, parameters)| parameters.values())
    }

    /// Scores of CLS tokens (n, C) over prototypes, (n, K).
    pub fn cls_logits(&self, cls: &Tensor) -> Result<Tensor> {
        self.dino.forward(cls)
    }

    /// Scores of patch tokens (n, C) over prototypes, (n, K).
    pub fn patch_logits(&self, patches: &Tensor) -> Result<Tensor> {
        self.ibot.as_ref().unwrap_or(&self.dino).forward(patches)
    }

    pub fn device(&self) -> &Device {
        self.backbone.device()
    }
}
