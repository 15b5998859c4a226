//! Space of removed images given back.

use std::sync::Arc;
use std::time::Duration;

use indexer::{Progress, Step};
use serde_json::{Value, json};

use super::{Context, Ended, Job, Kind};
use crate::problem::Answer;
use crate::shelf::Served;
use crate::state::AppState;

/// Longest wait for searches that began before: longer than any request is worked on.
const SEARCHES_END: Duration = Duration::from_secs(90);

impl AppState {
    /// Gives back the space of embeddings that belong to no image any more, in the background.
    ///
    /// # Errors
    /// The line of jobs is full.
    pub fn compact(&self, served: Arc<Served>) -> Answer<Job> {
        let name = served.name().to_owned();
        let work = move |context: &Context| run(&served, context);
        self.jobs.submit(Kind::Compact, &name, None, work)
    }
}

fn run(served: &Served, context: &Context) -> Result<Value, Ended> {
    context.stage("waiting for the collection's writer", None);
    let mut collection = served.write_blocking();
    let mut doing = "";
    let mut on_step = |step: Step| {
        let of = Some(step.of).filter(|&of| of > 0);
        if step.doing != doing {
            doing = step.doing;
            context.stage(doing, of);
        }
        context.at(step.done, of);
    };
    let mut progress = Progress::new(&mut on_step, context.cancel());
    let (report, old) = collection.compact(false, &mut progress)?;
    served.written(&collection);
    drop(collection);
    if let Some(old) = old {
        context.stage("waiting for searches that began before", None);
        if !old.remove(SEARCHES_END)? {
            tracing::warn!(
                collection = served.name(),
                "replaced data is in use; it goes when the collection is opened the next time"
            );
        }
    }
    Ok(json!({
        "rewritten": report.is_rewritten,
        "images": report.images,
        "dead_rows": report.dead_rows,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
    }))
}
