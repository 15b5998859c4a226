//! Every invariant of a collection, looked at one by one; and repair of what can be made again.
//!
//! A check opens nothing the way a search does, so that it also works on what cannot be opened, and
//! changes nothing. Repair takes the mildest way that cures all it found: new graphs, the removal of
//! single images, or a copy of everything sound that takes the place of the damaged data.

mod report;
mod survey;
mod entries;
mod repair;

use self::repair::repair;
pub(super) use self::report::unsound_vector;
pub use self::report::{CheckReport, Violation};
use self::survey::Survey;
use super::layout::{Collections, Lock, manifest_path};
use super::progress::Progress;
use super::rewrite;
use crate::error::{IndexerError, Result};
use crate::manifest::Manifest;

impl Collections {
    /// Looks at everything in a collection and lists what is not as it must be. With `repair`, what
    /// is derived is made again, and images whose record or vector is damaged are removed, so that
    /// the next `index` reads their files; then everything is looked at once more.
    ///
    /// Damage is in the report, even where nothing can be opened.
    ///
    /// # Errors
    /// No such collection, it is in use or of a later format, the disk refuses, or `progress` says to
    /// stop.
    pub fn check(
        &self,
        name: &str,
        with_repair: bool,
        progress: &mut Progress<'_>,
    ) -> Result<CheckReport> {
        let folder = self.path(name)?;
        if !folder.is_dir() {
            self.require(name)?;
        }
        let lock = Lock::acquire(&folder, name)?;
        match Manifest::read(&manifest_path(&folder), name) {
            Ok(manifest) if manifest.format_version == 1 => {
                // Its data has no checks of its own; being rewritten is one.
                rewrite::from_format_1(&folder, &manifest)?;
            }
            Err(error @ IndexerError::NewerFormat { .. }) => return Err(error),
            _ => {}
        }
        let survey = Survey::take(&folder, name, progress)?;
        if !with_repair {
            return Ok(survey.report());
        }
        let actions = repair(self, &folder, name, &lock, &survey, progress)?;
        let mut report = survey.report();
        report.remaining = match actions.is_empty() {
            true => report.found,
            false => Survey::take(&folder, name, progress)?.report().found,
        };
        report.actions = actions;
        Ok(report)
    }
}

#[cfg(test)]
mod tests;
