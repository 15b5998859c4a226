//! Indexing folders that the operator allowed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexer::metadata::Metadata;
use indexer::source::{self, SourceOptions};
use indexer::{IngestEvent, IngestOptions, ingest_sources};
use serde_json::{Value, json};

use super::{Context, Ended, Job, Kind};
use crate::problem::{Answer, Code, Problem};
use crate::shelf::Served;
use crate::state::AppState;

/// Sources of one job.
const MOST_SOURCES: usize = 100;

impl AppState {
    /// Brings a collection up to date with files and folders, in the background. Whoever calls this
    /// vouches for the paths: see [`allowed`].
    ///
    /// # Errors
    /// The line of jobs is full.
    pub fn index(&self, served: Arc<Served>, sources: Vec<PathBuf>) -> Answer<Job> {
        let name = served.name().to_owned();
        let state = self.clone();
        let work = move |context: &Context| run(&state, &served, &sources, context);
        self.jobs.submit(Kind::Index, &name, None, work)
    }
}

/// The real paths of what a request wants indexed, all at or below an allowed folder.
///
/// # Errors
/// One is not. Nothing tells whether it exists, so that nobody maps the disk by asking.
pub fn allowed(named: &[String], roots: &[PathBuf]) -> Answer<Vec<PathBuf>> {
    if named.is_empty() || named.len() > MOST_SOURCES {
        let detail = format!("{} sources are named, 1 to {MOST_SOURCES} can be", named.len());
        return Err(Problem::new(Code::BadRequest, detail.clone()).field("sources", detail));
    }
    let roots: Vec<PathBuf> = roots.iter().filter_map(|root| root.canonicalize().ok()).collect();
    named.iter().enumerate().map(|(number, name)| below(name, &roots, number)).collect()
}

fn below(name: &str, roots: &[PathBuf], number: usize) -> Answer<PathBuf> {
    let refused = || {
        let detail = "this is at or below no folder that may be indexed by request";
        Problem::new(Code::Forbidden, detail)
            .remedy("the operator allows folders with --index DIR or --allow-root DIR")
            .field(format!("sources[{number}]"), detail)
    };
    let path = Path::new(name);
    if name.contains('\0') || !path.is_absolute() {
        return Err(refused());
    }
    // Without links and `..`, so that what is compared is what is read.
    let path = path.canonicalize().map_err(|_| refused())?;
    let is_below = roots.iter().any(|root| path.starts_with(root));
    is_below.then_some(path).ok_or_else(refused)
}

fn run(
    state: &AppState,
    served: &Served,
    sources: &[PathBuf],
    context: &Context,
) -> Result<Value, Ended> {
    context.stage("waiting for the collection's writer", None);
    let model = state.models.for_collection(served.view().manifest())?;
    let mut collection = served.write_blocking();
    context.stage("listing files", None);
    let mut sources = source::open(sources, &SourceOptions::default())?;
    let mut has_begun = false;
    let attending = served.attending();
    let mut on_event = |event: IngestEvent<'_>| match event {
        IngestEvent::Between(collection) => served.attend(collection),
        IngestEvent::Listed { to_read } => {
            if !std::mem::replace(&mut has_begun, true) {
                context.stage("reading pictures", Some(0));
            }
            context.expect(to_read as u64);
        }
        IngestEvent::Done => context.advance(1),
        IngestEvent::Skipped(skipped) => {
            context.advance(1);
            if !skipped.not_a_picture {
                context.failed(skipped);
            }
        }
    };
    let report = ingest_sources(
        &mut collection,
        &*model,
        &mut sources,
        &Metadata::none(),
        IngestOptions::default(),
        &mut on_event,
        context.cancel(),
    );
    drop(attending);
    served.written(&collection);
    let report = report?;
    if report.cancelled {
        return Err(Ended::Cancelled);
    }
    let held_back: Vec<String> = report.held_back.iter().map(ToString::to_string).collect();
    Ok(json!({
        "added": report.added,
        "updated": report.updated,
        "moved": report.moved,
        "removed": report.removed,
        "unchanged": report.unchanged,
        "copied": report.copied,
        "not_pictures": report.not_pictures,
        "skipped": report.skipped.len(),
        "held_back": held_back,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_below_allowed_folders() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["in/deep", "in-not", "out"] {
            std::fs::create_dir_all(path(name)).expect("create");
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(path("out"), path("in/link")).expect("link");
        let roots = [path("in")];
        let ok = |name: PathBuf| allowed(&[name.to_string_lossy().into_owned()], &roots).is_ok();
        assert!(ok(path("in")) && ok(path("in/deep")) && ok(path("in/deep/..")));
        for name in ["out", "in-not", "in/../out", "in/link", "in/nothing", "in/link/../in/\0"] {
            assert!(!ok(path(name)), "{name}");
        }
        for name in ["", "in", "../in", "/", "/etc/passwd", "http://127.0.0.1/", "file:///etc"] {
            assert!(!ok(PathBuf::from(name)), "{name}");
        }
        assert!(
            allowed(&[], &roots).is_err() && allowed(&vec![String::new(); 101], &roots).is_err()
        );
        assert!(allowed(&["/".to_owned()], &[]).is_err(), "no folder is allowed by default");
    }
}
