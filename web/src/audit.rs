//! How much searches through a graph find, watched by the server itself: now and then a few stored
//! vectors are searched with, once through the graph and once by comparing all.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indexer::eval;

use crate::state::AppState;

/// Time between two audits; one of a million images takes about two seconds.
const EVERY: Duration = Duration::from_secs(600);
/// Stored vectors that are searched with.
const QUERIES: usize = 20;
/// Neighbours of each.
const K: usize = 10;

/// What the last audit found, by collection.
#[derive(Debug, Default)]
pub struct Recall(Mutex<BTreeMap<String, f64>>);

impl Recall {
    /// Share of the ten nearest images that were found, by collection; only of those with a graph.
    pub fn last(&self) -> Vec<(String, f64)> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().map(|(name, recall)| (name.clone(), *recall)).collect()
    }
}

impl AppState {
    /// Audits every collection that has a graph. For threads that may wait.
    pub fn audit(&self, seed: u64) {
        let mut found = BTreeMap::new();
        for served in self.shelf.all() {
            let view = served.view();
            if !view.is_approximate() {
                continue;
            }
            match eval::recall(&view, QUERIES, K, seed) {
                Ok(report) => {
                    found.insert(served.name().to_owned(), report.recall);
                }
                Err(error) => tracing::warn!(collection = served.name(), %error, "no audit"),
            }
        }
        *self.recall.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// Audits again and again until the server ends.
    pub(crate) async fn keep_auditing(self) {
        for seed in 0.. {
            let state = self.clone();
            let audit = tokio::task::spawn_blocking(move || state.audit(seed));
            if let Err(error) = audit.await {
                tracing::warn!(%error, "an audit failed");
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.drained() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::Embedder;
    use engine::testing::ThumbnailEmbedder;
    use indexer::{Collections, CreateOptions};

    use crate::testing::Server;

    #[tokio::test]
    async fn only_collections_with_a_graph_are_audited() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let home = folder.path().join("home");
        let pictures = folder.path().join("pictures");
        std::fs::create_dir_all(&pictures).expect("create");
        for number in 0..200 {
            let path = pictures.join(format!("{number}.png"));
            crate::testing::picture(number).save(path).expect("save");
        }
        let model = ThumbnailEmbedder::default();
        let options = CreateOptions { ann_from: Some(100), ..CreateOptions::default() };
        drop(Collections::new(&home).create("graph", model.identity(), options).expect("created"));
        crate::testing::index(&home, "graph", &pictures);
        drop(Collections::new(&home).create("small", model.identity(), CreateOptions::default()));
        let server = Server::over(folder, crate::Options::default());
        server.state.audit(1);
        let last = server.state.recall.last();
        assert_eq!(last.len(), 1);
        assert!(last[0].0 == "graph" && last[0].1 > 0.5 && last[0].1 <= 1.0, "{last:?}");
        let text = String::from_utf8(server.get("/metrics").await.body).expect("text");
        assert!(text.contains("akin_recall{collection=\"graph\"}"), "{text}");
    }
}
