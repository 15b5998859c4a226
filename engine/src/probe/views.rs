//! Random views for training heads, as the reference draws them.

use image::RgbImage;

use crate::embedder::Pixels;
use crate::train::augment::{Augmentation, generator};

/// `make_classification_train_transform` of the reference: torchvision's `RandomResizedCrop` with
/// its default scale, and a horizontal flip.
const TRAINING: Augmentation = Augmentation {
    scale: (0.08, 1.0),
    flip: 0.5,
    jitter: 0.0,
    grayscale: 0.0,
    blur: 0.0,
    solarise: 0.0,
};

/// View number `view` of a picture, `size` x `size` pixels: random resized crop and flip. It
/// depends on nothing but the seed, the picture's own number (such as a hash) and `view`.
pub fn training_view(picture: &RgbImage, size: u32, seed: u64, number: u64, view: u64) -> Pixels {
    let mut rng = generator(seed, "probe view", [number, view]);
    let drawn = TRAINING.draw(picture.width(), picture.height(), &mut rng);
    Pixels::from_chw(drawn.to_chw(picture, size))
}
