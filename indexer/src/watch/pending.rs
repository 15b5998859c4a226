//! Touched paths that have not come to rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What happened below one root and was not handed on yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// When something last happened to each.
    paths: BTreeMap<PathBuf, Instant>,
    /// Everything is to be listed again; when that came up, first and last.
    all: Option<(Instant, Instant)>,
    /// When the oldest of it happened.
    first: Option<Instant>,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    pub(super) fn touch(&mut self, path: &Path, now: Instant) {
        self.first.get_or_insert(now);
        if let Some((_, last)) = &mut self.all {
            *last = now;
            return;
        }
        self.paths.insert(path.to_path_buf(), now);
    }

    pub(super) fn touch_all(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.paths.clear();
        let first = self.all.map_or(now, |(first, _)| first);
        self.all = Some((first, now));
    }

    /// What is at rest; an empty list stands for everything. As long as anything is not at rest all
    /// of it is held back, but at most for `at_most`.
    pub(super) fn take(
        &mut self,
        now: Instant,
        quiet: Duration,
        at_most: Duration,
    ) -> Option<Vec<PathBuf>> {
        let overdue = now.saturating_duration_since(self.first?) >= at_most;
        let rests = |last: Instant| now.saturating_duration_since(last) >= quiet;
        if let Some((first, last)) = self.all {
            let due = rests(last) || now.saturating_duration_since(first) >= at_most;
            return due.then(|| {
                *self = Self::default();
                Vec::new()
            });
        }
        if !overdue && !self.paths.values().all(|&last| rests(last)) {
            return None;
        }
        let mut at_rest = Vec::new();
        for (path, last) in &mut self.paths {
            if rests(*last) {
                // Not every write is told as an event; the time of the file tells too.
                match was_just_written(path, quiet) {
                    true => *last = now,
                    false => at_rest.push(path.clone()),
                }
            }
        }
        for path in &at_rest {
            self.paths.remove(path);
        }
        self.first = self.paths.values().min().copied();
        (!at_rest.is_empty()).then_some(at_rest)
    }
}

fn was_just_written(path: &Path, quiet: Duration) -> bool {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|modified| modified.elapsed().ok());
    age.is_some_and(|age| age < quiet)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(500);
    const AT_MOST: Duration = Duration::from_secs(5);

    #[test]
    fn paths_are_handed_on_once_when_all_are_at_rest() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut pending = Pending::default();
        assert_eq!(pending.take(at(0), QUIET, AT_MOST), None);
        for ms in [0, 100, 300] {
            pending.touch(Path::new("/r/a"), at(ms));
        }
        pending.touch(Path::new("/r/b"), at(400));
        assert_eq!(pending.take(at(850), QUIET, AT_MOST), None, "b is not at rest");
        let paths = ["/r/a", "/r/b"].map(PathBuf::from).to_vec();
        assert_eq!(pending.take(at(900), QUIET, AT_MOST), Some(paths));
        assert_eq!(pending.take(at(9000), QUIET, AT_MOST), None);
    }

    #[test]
    fn one_that_never_rests_does_not_hold_back_the_others_for_long() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut pending = Pending::default();
        pending.touch(Path::new("/r/a"), at(0));
        for ms in (0..5000).step_by(100) {
            pending.touch(Path::new("/r/growing"), at(ms));
            assert_eq!(pending.take(at(ms), QUIET, AT_MOST), None);
        }
        assert_eq!(pending.take(at(5000), QUIET, AT_MOST), Some(vec![PathBuf::from("/r/a")]));
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn everything_swallows_the_single_paths() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.touch(Path::new("/r/a"), start);
        pending.touch_all(start);
        pending.touch(Path::new("/r/b"), start);
        assert_eq!(pending.len(), 0);
        assert_eq!(pending.take(start + QUIET, QUIET, AT_MOST), Some(Vec::new()));
        assert_eq!(pending.take(start + AT_MOST, QUIET, AT_MOST), None);
    }
}
