//! What is derived from the images, brought up to date: the graphs and the yardstick of similarity.
//!
//! Both can be made again at any time, and searches are right without them. Building a graph may take
//! minutes; changes can be committed meanwhile.

use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

use super::Collection;
use crate::ann::Layers;
use crate::background;
use crate::error::Result;

/// Rows in no graph that are compared one by one before a commit adds them to one: about 1 ms of a
/// search.
const UNCOVERED: u64 = 20_000;
/// How often others may change the collection while graphs are made.
const BETWEEN: Duration = Duration::from_millis(20);

/// How what is derived stands.
#[derive(Debug, Default)]
pub(super) struct Derived {
    /// There are committed changes that it does not know of.
    pub(super) is_stale: bool,
    /// It is being made at this moment: graphs are not to be touched.
    pub(super) is_at_work: bool,
}

/// Changes the collection while something else goes on.
type Between<'a> = dyn FnMut(&mut Collection) + 'a;

impl Collection {
    /// Commits, and brings what is derived from the images up to date.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn finish(&mut self) -> Result<()> {
        self.finish_between(&mut |_| {})
    }

    /// [`finish`](Self::finish) that lets others change the collection and commit while graphs are
    /// made, several times a second. What they changed is then not in the graphs yet.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn finish_between(&mut self, between: &mut Between<'_>) -> Result<()> {
        self.commit()?;
        if !self.derived.is_stale || self.derived.is_at_work {
            return Ok(());
        }
        self.derived.is_stale = false;
        let done = self.derive(between);
        // What failed is to be tried again.
        self.derived.is_stale |= done.is_err();
        done
    }

    /// Whether there are committed changes that what is derived does not know of, and that it has to
    /// be brought up to date for: by [`finish`](Self::finish).
    pub fn is_derived_stale(&self) -> bool {
        self.derived.is_stale
    }

    /// Puts what searches compare one by one into the small graph and writes that, but builds no
    /// large one: what a restart would otherwise have to do again.
    ///
    /// # Errors
    /// A row is damaged, or the disk refuses.
    pub fn save_graphs(&mut self) -> Result<()> {
        self.commit()?;
        if !self.derived.is_stale || self.derived.is_at_work || self.layers.is_none() {
            return Ok(());
        }
        self.extend_layers()?;
        let (rows, folder) = (self.vectors.snapshot(), self.data_folder().join("ann"));
        let Some(layers) = &self.layers else { return Ok(()) };
        if layers.is_overgrown(&self.alive) {
            // It stays stale, and the next run makes a large graph of both.
            tracing::debug!("the small graph of `{}` has grown large", self.name);
        } else {
            self.manifest.background = background::quantiles(&rows, &self.alive)?;
            self.derived.is_stale = false;
        }
        layers.save_tail(&folder)?;
        self.publish();
        self.write_manifest()
    }

    /// Builds everything derived again, whatever state it is in.
    pub(super) fn derive_again(&mut self) -> Result<()> {
        self.layers = None;
        self.derived.is_stale = true;
        self.finish()
    }

    fn derive(&mut self, between: &mut Between<'_>) -> Result<()> {
        self.manifest.background = background::quantiles(&self.vectors.snapshot(), &self.alive)?;
        self.bring_layers_up_to_date(between)?;
        self.publish();
        self.write_manifest()
    }

    fn bring_layers_up_to_date(&mut self, between: &mut Between<'_>) -> Result<()> {
        if self.alive.len() < self.manifest.ann_from {
            self.layers = None;
            return Ok(());
        }
        let (rows, alive) = (self.vectors.snapshot(), self.alive.clone());
        let folder = self.data_folder().join("ann");
        let layers = self.layers.clone();
        let work = move || match layers {
            Some(mut layers) => {
                layers.extend(&rows, &alive)?;
                layers.save(&folder, &rows, &alive)?;
                Ok(layers)
            }
            None => Layers::build(&folder, &rows, &alive),
        };
        self.derived.is_at_work = true;
        let made = std::thread::scope(|scope| {
            // Closed when the work is over, whichever way.
            let (open, is_over) = crossbeam_channel::bounded::<()>(0);
            let worker = scope.spawn(move || {
                let made = work();
                drop(open);
                made
            });
            while is_over.recv_timeout(BETWEEN) == Err(RecvTimeoutError::Timeout) {
                between(self);
            }
            worker.join()
        });
        self.derived.is_at_work = false;
        self.layers = Some(made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        Ok(())
    }

    /// Rows that searches compare one by one beside the graphs.
    fn uncovered(&self) -> u64 {
        let covered = self.layers.as_ref().map(Layers::rows);
        covered.map_or(0, |covered| self.meta.rows.saturating_sub(covered))
    }

    pub(super) fn extend_layers_if_due(&mut self) -> Result<()> {
        if self.uncovered() > UNCOVERED && !self.derived.is_at_work {
            self.extend_layers()?;
        }
        Ok(())
    }

    fn extend_layers(&mut self) -> Result<()> {
        let Some(layers) = &mut self.layers else { return Ok(()) };
        layers.extend(&self.vectors.snapshot(), &self.alive)
    }
}
