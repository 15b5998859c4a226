//! The model that is part of the program: `akin-ti14`, made by this crate's `train` (data, recipe
//! and scores in `engine/models/README.md`).

use crate::error::Result;
use crate::vit::Weights;

/// Name by which the model is asked for.
pub const NAME: &str = "akin-ti14";

#[cfg(feature = "shipped-model")]
static FILE: &[u8] = include_bytes!("../models/akin-ti14.safetensors");

/// The shipped weights; `None` in a build without the feature `shipped-model`.
///
/// # Errors
/// The embedded file is damaged.
pub fn weights() -> Result<Option<Weights>> {
    #[cfg(feature = "shipped-model")]
    return Ok(Some(Weights::embedded(NAME, FILE)?));
    #[cfg(not(feature = "shipped-model"))]
    Ok(None)
}

#[cfg(all(test, feature = "shipped-model"))]
mod tests {
    use super::*;

    #[test]
    fn it_is_small_sound_and_says_what_input_it_wants() -> Result<()> {
        assert!(FILE.len() <= 24_000_000, "{} bytes", FILE.len());
        let weights = weights()?.expect("built in");
        weights.check_values()?;
        let side = weights.preprocess()?.expect("declared").crop as usize;
        assert_eq!(side, weights.config().pos_embed_grid * crate::vit::config::PATCH_SIZE);
        Ok(())
    }
}
