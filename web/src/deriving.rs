//! What is derived from a collection's images, brought up to date after single changes.
//!
//! In large collections that takes longer than the change, and a restart would have to do it again:
//! so it is done in the background, once for many changes, and saved when the server ends.

use std::time::Duration;

use crate::state::AppState;

/// How often it is looked whether there is anything to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl AppState {
    /// Does what is due, until the server ends.
    pub async fn keep_deriving(self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.drained() => return,
            }
            for served in self.shelf.all() {
                if !served.is_derivation_due() {
                    continue;
                }
                let work = move || match served.derive() {
                    Ok(()) => tracing::debug!(collection = served.name(), "graphs are up to date"),
                    Err(problem) => {
                        tracing::warn!(collection = served.name(), %problem.detail, "not derived");
                    }
                };
                let _ = tokio::task::spawn_blocking(work).await;
            }
        }
    }

    /// Saves graphs that lack what was added, `longest` at most.
    pub async fn save_graphs(&self, longest: Duration) {
        let all = self.shelf.all();
        let save = tokio::task::spawn_blocking(move || {
            for served in all.into_iter().filter(|served| served.lacks_derivation()) {
                if let Err(problem) = served.save_graphs() {
                    tracing::warn!(collection = served.name(), %problem.detail, "not saved");
                }
            }
        });
        if tokio::time::timeout(longest, save).await.is_err() {
            tracing::warn!("graphs were not saved in time; the next start adds what they lack");
        }
    }
}
