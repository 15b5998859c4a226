//! What was listed against what is known: both in the order of their bytes, one pass.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::gone::{GoneImage, Tally};
use super::{Run, Tallies};
use crate::collection::Collection;
use crate::error::Result;
use crate::id::ImageId;
use crate::locator::{Locator, LocatorKind};
use crate::pipeline::Skipped;
use crate::record::{Known, Record, Seen, SeenKind};
use crate::source::{Block, Entry, Scope, ScopeState, no_such};

/// From this many entries outside of listed folders on, all that is known under their common path
/// is walked, instead of asking for each.
const ASK_EACH: usize = 1000;

/// What to do with one block.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) wanted: Vec<Entry>,
    /// Images known at the paths of wanted entries.
    pub(super) priors: Priors,
    /// Unchanged images whose payload may have changed.
    pub(super) recheck: Vec<(Entry, ImageId)>,
    pub(super) gone: Vec<GoneImage>,
    pub(super) tallies: Tallies,
}

/// Images by the path they were known at.
pub(super) type Priors = HashMap<Locator, (ImageId, Record)>;

impl Run<'_> {
    /// Sorts the entries of a block by what is to be done with them.
    pub(super) fn plan(&mut self, block: Block) -> Result<Plan> {
        let Block { entries, unreadable, scopes } = block;
        let mut plan = Plan::default();
        let lenient: Vec<&Path> = unreadable.iter().map(|(path, _)| path.as_path()).collect();
        let mut covered = vec![false; entries.len()];
        for scope in &scopes {
            let range = self.join_scope(scope, &entries, &mut plan)?;
            covered[range].fill(true);
        }
        self.check_missing(&scopes, &lenient, &plan)?;
        // Those of no scope: files named one by one, URLs, rows.
        let alone = entries.into_iter().zip(covered).filter(|(_, covered)| !covered);
        let alone = alone.map(|(entry, _)| entry).collect();
        self.join_alone(alone, &mut plan)?;
        for (path, reason) in unreadable {
            self.note(Skipped { path, reason, not_a_picture: false });
        }
        Ok(plan)
    }

    /// A place that is not there must at least be known.
    fn check_missing(&self, scopes: &[Scope], lenient: &[&Path], plan: &Plan) -> Result<()> {
        for scope in scopes.iter().filter(|scope| scope.state == ScopeState::Missing) {
            let known = plan.tallies.get(&scope.root).is_some_and(|tally| tally.anything);
            if !known && !lenient.contains(&scope.path.as_path()) {
                return Err(no_such(&scope.path));
            }
        }
        Ok(())
    }

    /// Joins what lies in a scope; says which entries that are.
    fn join_scope(
        &mut self,
        scope: &Scope,
        entries: &[Entry],
        plan: &mut Plan,
    ) -> Result<Range<usize>> {
        let tally = plan.tallies.entry(scope.root.clone()).or_insert_with(|| Tally::new(scope));
        let start = entries.partition_point(|entry| entry.locator.as_bytes() < &*scope.prefix);
        let end = start
            + entries[start..]
                .partition_point(|entry| entry.locator.as_bytes().starts_with(&scope.prefix));
        // A single file, not there: what is known under longer names is other files.
        if !scope.is_whole_folder() {
            let known = self.collection.known(&Locator::from_bytes(&scope.prefix))?;
            tally.anything |= known.is_some();
            match known {
                Some(Known::Image(id, record)) => {
                    tally.known += 1;
                    plan.gone.push(GoneImage::image(id, record.path, scope));
                }
                Some(Known::Failed(failure)) => {
                    plan.gone.push(GoneImage::failure(failure.path, scope));
                }
                None => {}
            }
            return Ok(0..0);
        }
        tally.listed += end - start;
        let mut entries = entries[start..end].iter().peekable();
        let mut decisions = Vec::new();
        for known in self.collection.known_under(&scope.prefix) {
            let (path, seen) = known?;
            while let Some(entry) =
                entries.next_if(|entry| entry.locator.as_bytes() < path.as_bytes())
            {
                decisions.push((entry, None));
            }
            let image = matches!(seen.kind, SeenKind::Image(_));
            if let Some(entry) =
                entries.next_if(|entry| entry.locator.as_bytes() == path.as_bytes())
            {
                tally.anything = true;
                tally.known += usize::from(image);
                decisions.push((entry, Some(seen)));
            } else if scope.holds(&path) {
                tally.anything = true;
                tally.known += usize::from(image);
                if scope.has_lost(&path) {
                    plan.gone.push(match seen.kind {
                        SeenKind::Image(id) => GoneImage::image(id, path, scope),
                        SeenKind::Failed => GoneImage::failure(path, scope),
                    });
                }
            }
        }
        decisions.extend(entries.map(|entry| (entry, None)));
        for (entry, seen) in decisions {
            self.decide(entry, seen, plan)?;
        }
        Ok(start..end)
    }

    fn join_alone(&mut self, entries: Vec<Entry>, plan: &mut Plan) -> Result<()> {
        let prefix = common_prefix(&entries);
        let is_files = prefix.starts_with(b"/");
        if entries.len() < ASK_EACH || !is_files {
            for entry in &entries {
                let seen = seen(self.collection, &entry.locator)?;
                self.decide(entry, seen, plan)?;
            }
            return Ok(());
        }
        let mut waiting = entries.iter().peekable();
        let mut decisions = Vec::new();
        for known in self.collection.known_under(&prefix) {
            let (path, seen) = known?;
            while let Some(entry) =
                waiting.next_if(|entry| entry.locator.as_bytes() < path.as_bytes())
            {
                decisions.push((entry, None));
            }
            if let Some(entry) =
                waiting.next_if(|entry| entry.locator.as_bytes() == path.as_bytes())
            {
                decisions.push((entry, Some(seen)));
            }
        }
        decisions.extend(waiting.map(|entry| (entry, None)));
        for (entry, seen) in decisions {
            self.decide(entry, seen, plan)?;
        }
        Ok(())
    }

    fn decide(&mut self, entry: &Entry, seen: Option<Seen>, plan: &mut Plan) -> Result<()> {
        // Nothing is known of a URL's content before it is fetched, and nothing is fetched twice.
        let is_url = matches!(entry.locator.kind(), LocatorKind::Url(_));
        let same = |seen: &Seen| is_url || seen.stamp == entry.stamp;
        match seen {
            Some(seen) if same(&seen) => match seen.kind {
                SeenKind::Image(id) => {
                    self.report.unchanged += 1;
                    if self.metadata.changes_alone() || (is_url && !entry.payload.is_empty()) {
                        plan.recheck.push((entry.clone(), id));
                    }
                    return Ok(());
                }
                SeenKind::Failed if !self.options.retry_failed => {
                    if let Some(Known::Failed(failure)) = self.collection.known(&entry.locator)? {
                        self.note(Skipped {
                            path: failure.path.to_path(),
                            reason: failure.reason,
                            not_a_picture: failure.not_a_picture,
                        });
                    }
                    return Ok(());
                }
                SeenKind::Failed => {}
            },
            Some(Seen { kind: SeenKind::Image(id), .. }) => {
                if let Some(record) = self.collection.record(id)? {
                    plan.priors.insert(entry.locator.clone(), (id, record));
                }
            }
            _ => {}
        }
        plan.wanted.push(entry.clone());
        Ok(())
    }
}

fn seen(collection: &Collection, path: &Locator) -> Result<Option<Seen>> {
    Ok(collection.known(path)?.map(|known| match known {
        Known::Image(id, record) => Seen { kind: SeenKind::Image(id), stamp: record.stamp },
        Known::Failed(failure) => Seen { kind: SeenKind::Failed, stamp: failure.stamp },
    }))
}

/// What all paths start with; the entries are sorted, so that the first and the last decide.
fn common_prefix(entries: &[Entry]) -> Vec<u8> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Vec::new() };
    let (first, last) = (first.locator.as_bytes(), last.locator.as_bytes());
    let same = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    first[..same].to_vec()
}

impl Scope {
    /// Whether it is a folder or archive with all that is in it.
    pub(super) fn is_whole_folder(&self) -> bool {
        self.prefix.ends_with(b"/") || self.prefix.ends_with(b"\\")
    }

    fn is_archive(&self) -> bool {
        self.prefix.ends_with(b"!/")
    }

    /// Whether a known path is one of those that this scope lists: archives in a folder, and what
    /// is in them, are not.
    fn holds(&self, path: &Locator) -> bool {
        self.is_archive() || path.kind() == LocatorKind::File
    }

    /// Whether a known path that was not listed has gone. What is excluded now, hidden or out of
    /// reach is still there.
    fn has_lost(&self, path: &Locator) -> bool {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        match self.state {
            ScopeState::Partial => false,
            ScopeState::Missing => true,
            _ if self.is_archive() => true,
            ScopeState::Listed | ScopeState::Vanished => {
                let error = std::fs::symlink_metadata(path.to_path()).err();
                error.is_some_and(|error| matches!(error.kind(), NotFound | NotADirectory))
            }
        }
    }
}
