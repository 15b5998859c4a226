//! A collection into one file below the home.

use std::sync::Arc;

use indexer::{Progress, Step};
use serde_json::{Value, json};

use super::{Context, Ended, Job, Kind};
use crate::problem::{Answer, Problem};
use crate::shelf::Served;
use crate::state::AppState;

impl AppState {
    /// Writes a snapshot into the home's folder `snapshots`, in the background.
    ///
    /// # Errors
    /// The line of jobs is full.
    pub fn snapshot(&self, served: Arc<Served>) -> Answer<Job> {
        let name = served.name().to_owned();
        let state = self.clone();
        let work = move |context: &Context| run(&state, &served, context);
        self.jobs.submit(Kind::Snapshot, &name, None, work)
    }
}

fn run(state: &AppState, served: &Served, context: &Context) -> Result<Value, Ended> {
    let folder = state.home.join("snapshots");
    std::fs::create_dir_all(&folder).map_err(Problem::internal)?;
    // A name of a collection and hexadecimal digits: nothing that leads out of the folder.
    let number = crate::random::hex::<4>().map_err(Problem::internal)?;
    let seconds = state.clock.unix().as_secs();
    let file = format!("{}-{seconds}-{number}.tar", served.name());
    context.stage("waiting for the collection's writer", None);
    let collection = served.write_blocking();
    let mut doing = "";
    let mut on_step = |step: Step| {
        if step.doing != doing {
            doing = step.doing;
            context.stage(doing, Some(step.of));
        }
        context.at(step.done, Some(step.of));
    };
    let mut progress = Progress::new(&mut on_step, context.cancel());
    let report = collection.snapshot(&folder.join(&file), &mut progress)?;
    Ok(json!({
        "file": file,
        "images": report.images,
        "failures": report.failures,
        "bytes": report.bytes,
    }))
}
