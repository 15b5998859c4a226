//! What training runs share: gradients summed over passes, and models with their optimizers in
//! checkpoints.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use super::optim::AdamW;
use crate::error::Result;

/// A model under training or averaged, by the prefix its tensors have in checkpoints.
pub(super) type Model<'a> = (&'a str, &'a BTreeMap<String, Var>);

/// Adds the gradients of one more pass to those of the passes before.
///
/// # Errors
/// A failed tensor operation.
pub(super) fn add_gradients<'a>(
    sum: &mut Option<GradStore>,
    mut gradients: GradStore,
    parameters: impl IntoIterator<Item = &'a Var>,
) -> Result<()> {
    let Some(sum) = sum else {
        *sum = Some(gradients);
        return Ok(());
    };
    for parameter in parameters {
        if let Some(gradient) = gradients.remove(parameter) {
            let both = match sum.get(parameter) {
                Some(before) => (before + gradient)?,
                None => gradient,
            };
            sum.insert(parameter, both);
        }
    }
    Ok(())
}

/// Tensors of a checkpoint: `<model>.<name>` for parameters, `first.<prefix><name>` and
/// `second.<prefix><name>` for the moments of optimizers.
pub(super) fn tensors(models: &[Model], optimizers: &[(&str, &AdamW)]) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    for (model, parameters) in models {
        for (name, parameter) in *parameters {
            tensors.insert(format!("{model}.{name}"), parameter.as_detached_tensor());
        }
    }
    for (prefix, optimizer) in optimizers {
        for (name, first, second) in optimizer.moments() {
            tensors.insert(format!("first.{prefix}{name}"), first.clone());
            tensors.insert(format!("second.{prefix}{name}"), second.clone());
        }
    }
    tensors
}

/// Takes up what [`tensors`] gave, all of it or nothing.
///
/// # Errors
/// Why the tensors are not those of these models.
pub(super) fn restore(
    tensors: &BTreeMap<String, Tensor>,
    models: &[Model],
    optimizers: &mut [(&str, &mut AdamW)],
    optimizer_steps: usize,
) -> Result<(), String> {
    let found = |name: String, like: &Tensor| {
        let tensor = tensors.get(&name).filter(|tensor| tensor.shape() == like.shape());
        tensor.ok_or_else(|| format!("it is of another student (`{name}` differs)"))
    };
    let mut parameters = Vec::new();
    for (model, own) in models {
        for (name, parameter) in *own {
            parameters.push((parameter, found(format!("{model}.{name}"), parameter)?));
        }
    }
    for (prefix, optimizer) in &*optimizers {
        for (name, first, second) in optimizer.moments() {
            found(format!("first.{prefix}{name}"), first)?;
            found(format!("second.{prefix}{name}"), second)?;
        }
    }
    for (prefix, optimizer) in optimizers {
        let moment = |name: &str| {
            let get = |part| tensors.get(&format!("{part}.{prefix}{name}")).cloned();
            Some((get("first")?, get("second")?))
        };
        optimizer.restore(optimizer_steps, moment).map_err(|error| error.to_string())?;
    }
    for (parameter, tensor) in parameters {
        parameter.set(tensor).map_err(|error| error.to_string())?;
    }
    Ok(())
}
