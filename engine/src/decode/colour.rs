//! ICC profiles to sRGB.

use moxcms::{ColorProfile, DataColorSpace, Layout, Transform8BitExecutor, TransformOptions};

use super::pixels::Colour;

/// Pixels converted at a time: the transform cannot work in place.
const CHUNK: usize = 4096;

/// A profile that moves no probe colour by more than this is taken for sRGB itself, so that the
/// rounding of the transform does not touch ordinary pictures.
const SRGB_TOLERANCE: u8 = 2;

/// Converts from an RGB or gray profile to sRGB with the profile's own rendering intent.
///
/// Alpha is kept. Profiles that are broken, of another colour space (CMYK, Lab) or as good as
/// sRGB leave the pixels alone; so does a gray profile on a picture that has colours.
pub(super) fn convert_to_srgb(colour: &mut Colour, icc: &[u8]) {
    let Ok(profile) = ColorProfile::new_from_slice(icc) else {
        return;
    };
    match profile.color_space {
        DataColorSpace::Rgb => convert_rgb(colour, &profile),
        DataColorSpace::Gray => convert_gray(colour, &profile),
        _ => {}
    }
}

type Transform = std::sync::Arc<Transform8BitExecutor>;

fn transform(profile: &ColorProfile, from: Layout, to: Layout) -> Option<Transform> {
    let options = TransformOptions {
        rendering_intent: profile.rendering_intent,
        ..TransformOptions::default()
    };
    profile.create_transform_8bit(from, &ColorProfile::new_srgb(), to, options).ok()
}

fn convert_rgb(colour: &mut Colour, profile: &ColorProfile) {
    let Some(probe) = transform(profile, Layout::Rgb, Layout::Rgb) else {
        return;
    };
    if leaves_probes_alone(&probe) {
        return;
    }
    let (channels, layout) = if colour.alpha { (4, Layout::Rgba) } else { (3, Layout::Rgb) };
    let Some(transform) = transform(profile, layout, layout) else {
        return;
    };
    let mut stored = Vec::with_capacity(CHUNK * channels);
    for chunk in colour.data.chunks_mut(CHUNK * channels) {
        stored.clear();
        stored.extend_from_slice(chunk);
        if transform.transform(&stored, chunk).is_err() {
            // Only the shapes of the buffers can fail, so this is the first chunk or none.
            return;
        }
    }
}

fn leaves_probes_alone(transform: &Transform) -> bool {
    const STEPS: [u8; 6] = [0, 51, 102, 153, 204, 255];
    let probes: Vec<u8> = STEPS
        .iter()
        .flat_map(|&r| STEPS.iter().flat_map(move |&g| STEPS.iter().flat_map(move |&b| [r, g, b])))
        .collect();
    let mut converted = vec![0; probes.len()];
    transform.transform(&probes, &mut converted).is_ok()
        && probes.iter().zip(&converted).all(|(a, b)| a.abs_diff(*b) <= SRGB_TOLERANCE)
}

fn convert_gray(colour: &mut Colour, profile: &ColorProfile) {
    let channels = if colour.alpha { 4 } else { 3 };
    let is_gray = |pixel: &[u8]| pixel[0] == pixel[1] && pixel[1] == pixel[2];
    if !colour.data.chunks_exact(channels).all(is_gray) {
        return;
    }
    let ramp: [u8; 256] = std::array::from_fn(|value| value as u8);
    let mut table = [0; 256 * 3];
    let Some(transform) = transform(profile, Layout::Gray, Layout::Rgb) else {
        return;
    };
    if transform.transform(&ramp, &mut table).is_err() {
        return;
    }
    let (table, _) = table.as_chunks::<3>();
    if ramp.iter().zip(table).all(|(v, rgb)| v.abs_diff(rgb[1]) <= SRGB_TOLERANCE) {
        return;
    }
    for pixel in colour.data.chunks_exact_mut(channels) {
        let value = usize::from(pixel[0]);
        pixel[..3].copy_from_slice(&table[value]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(data: &[u8], alpha: bool, icc: &[u8]) -> Vec<u8> {
        let mut colour = Colour { data: data.to_vec(), alpha };
        convert_to_srgb(&mut colour, icc);
        colour.data
    }

    #[test]
    fn srgb_and_broken_profiles_change_nothing() {
        let pixels = [1, 2, 3, 200, 100, 50];
        let srgb = ColorProfile::new_srgb().encode().expect("a profile");
        assert_eq!(converted(&pixels, false, &srgb), pixels);
        assert_eq!(converted(&pixels, false, &srgb[..200]), pixels);
        assert_eq!(converted(&pixels, false, b"no profile"), pixels);
    }

    #[test]
    fn wide_gamut_colours_grow_more_vivid_and_alpha_stays() {
        let p3 = ColorProfile::new_display_p3().encode().expect("a profile");
        let rgb = converted(&[200, 100, 50], false, &p3);
        assert!(rgb[0] > 205 && rgb[2] < 45, "{rgb:?}");
        let rgba = converted(&[200, 100, 50, 77], true, &p3);
        assert_eq!(rgba, [rgb.as_slice(), &[77]].concat());
    }

    #[test]
    fn gray_profiles_apply_to_gray_only() {
        let linear = ColorProfile::new_gray_with_gamma(1.0).encode().expect("a profile");
        let gray = converted(&[128, 128, 128], false, &linear);
        assert!(gray[0].abs_diff(188) <= 1 && gray[0] == gray[1], "{gray:?}");
        assert_eq!(converted(&[128, 100, 128], false, &linear), [128, 100, 128]);
    }
}
