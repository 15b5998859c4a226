//! What a check tells.

use crate::vectors::Precision;

/// Violations that are listed; more are counted.
pub(super) const LISTED: usize = 1000;

/// What a check found, and what a repair did about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Images whose record could be read.
    pub images: u64,
    /// Files that gave none.
    pub failures: u64,
    /// Rows, those of no image too.
    pub rows: u64,
    /// Violations found.
    pub found: u64,
    /// The first thousand of them.
    pub violations: Vec<Violation>,
    /// What is unusual and does no harm.
    pub notes: Vec<String>,
    /// What a repair did.
    pub actions: Vec<String>,
    /// Violations left: all of them without repair.
    pub remaining: u64,
}

impl CheckReport {
    /// Whether nothing is wrong, or no longer.
    pub fn is_sound(&self) -> bool {
        self.remaining == 0
    }
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Image, entry or file.
    pub subject: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to run.
    pub remedy: String,
}

/// What makes a violation go away, from the mildest to the impossible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cure {
    /// Nothing is wrong.
    #[default]
    None,
    /// Graphs are built again.
    Graphs,
    /// Single images are removed; everything else is sound.
    Removal,
    /// Everything sound is copied, and what is derived is made again.
    Copy,
    /// Nothing here can.
    Backup,
}

impl Cure {
    pub(super) fn remedy(self, collection: &str) -> String {
        match self {
            Self::None | Self::Graphs | Self::Copy => {
                format!("akin collection check {collection} --repair")
            }
            Self::Removal => format!(
                "akin collection check {collection} --repair, then `akin index` with its folder"
            ),
            Self::Backup => format!(
                "akin collection restore SNAPSHOT --as {collection} --replace; without a snapshot, \
                 index the folders into a new collection"
            ),
        }
    }
}

/// Why no model can have given this vector; `None` for a sound one.
pub(in crate::collection) fn unsound_vector(
    values: &[f32],
    precision: Precision,
) -> Option<String> {
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Some(format!("its vector holds {value}"));
    }
    let length = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    // Half precision moves each value, and so the length, by up to 2^-11 of it.
    let tolerance = match precision {
        Precision::F16 => 1e-3,
        Precision::F32 => 1e-5,
    };
    ((length - 1.0).abs() > tolerance).then(|| format!("its vector has length {length:.4}, not 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_must_be_finite_and_of_unit_length() {
        let sound = [0.6, -0.8];
        assert_eq!(unsound_vector(&sound, Precision::F32), None);
        assert!(unsound_vector(&[0.6, -0.799], Precision::F32).is_some());
        assert_eq!(unsound_vector(&[0.6, -0.7995], Precision::F16), None);
        assert!(unsound_vector(&[0.0, 0.0], Precision::F16).is_some());
        let text = unsound_vector(&[f32::NAN, 1.0], Precision::F16).unwrap_or_default();
        assert!(text.contains("NaN"), "{text}");
    }
}
