//! Finding duplicates: a report to be decided about.

use std::sync::Arc;

use indexer::dedup::{
    self, DedupOptions, Keep, NotDuplicates, Originals, Stage, Thresholds, Verifier,
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Context, Ended, Job, Kind};
use crate::problem::{Answer, Code, Problem};
use crate::reports::Report;
use crate::shelf::Served;
use crate::state::AppState;

/// Neighbours of an image that can be asked for.
const MOST_NEIGHBOURS: usize = 1000;

/// How duplicates are looked for.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DedupBody {
    /// Similarity from which on a pair is looked at; by default what was measured for the model.
    #[schema(minimum = -1, maximum = 1)]
    threshold: Option<f32>,
    /// Neighbours of each image that are considered; by default 64.
    #[schema(minimum = 1, maximum = 1000)]
    k: Option<usize>,
    /// Which image of a group stays: `best`, `largest`, `oldest` or `path-order`.
    #[schema(value_type = Option<String>)]
    keep: Option<Keep>,
    /// Whether both pictures of a pair are looked at, rather than their embeddings alone; true
    /// unless said otherwise.
    verify: Option<bool>,
}

impl AppState {
    /// Looks for duplicates, in the background.
    ///
    /// # Errors
    /// A number is out of range, no threshold is known, or the line of jobs is full.
    pub fn dedup(&self, served: Arc<Served>, body: &DedupBody) -> Answer<Job> {
        let verify = body.verify.unwrap_or(true);
        let mut options = DedupOptions::new(threshold(&served, body, verify)?);
        options.k = body.k.unwrap_or(options.k);
        if !(1..=MOST_NEIGHBOURS).contains(&options.k) {
            let detail = format!("k is {}; it must be from 1 to {MOST_NEIGHBOURS}", options.k);
            return Err(Problem::new(Code::BadRequest, detail.clone()).field("k", detail));
        }
        options.keep = body.keep.unwrap_or_default();
        let name = served.name().to_owned();
        let state = self.clone();
        let work = move |context: &Context| run(&state, &served, options, verify, context);
        self.jobs.submit(Kind::Dedup, &name, None, work)
    }
}

fn threshold(served: &Served, body: &DedupBody, verify: bool) -> Answer<f32> {
    if let Some(value) = body.threshold {
        return match (-1.0..=1.0).contains(&value) {
            true => Ok(value),
            false => {
                let detail = format!("threshold is {value}; a cosine lies between -1 and 1");
                Err(Problem::new(Code::BadRequest, detail.clone()).field("threshold", detail))
            }
        };
    }
    let view = served.view();
    let model = &view.manifest().model;
    match dedup::thresholds(model) {
        Some(Thresholds { candidates, alone }) => Ok(if verify { candidates } else { alone }),
        None => {
            let detail = format!("no threshold has been measured for the model {}", model.name);
            Err(Problem::new(Code::BadRequest, detail.clone())
                .remedy("name a threshold; `akin dedup --calibrate` shows what each would do")
                .field("threshold", detail))
        }
    }
}

fn run(
    state: &AppState,
    served: &Served,
    mut options: DedupOptions,
    verify: bool,
    context: &Context,
) -> Result<Value, Ended> {
    let view = served.view();
    options.not_duplicates = NotDuplicates::read(served.folder())?;
    let model = match verify && !view.is_empty() {
        true => Some(state.models.for_collection(view.manifest())?),
        false => None,
    };
    let verifier = model.as_ref().map(|model| match model.with_patches() {
        Some(model) => Verifier::new(model),
        None => Verifier::of_pixels(),
    });
    let on_stage = |stage: Stage| {
        let (message, steps) = match stage {
            Stage::Neighbours(steps) => ("looking for similar images", steps),
            Stage::Pixels(steps) => ("comparing pixels", steps),
            Stage::Pairs(steps) => ("looking at similar pairs", steps),
        };
        context.stage(message, Some(steps as u64));
    };
    let on_done = |steps: usize| context.advance(steps as u64);
    let originals = Originals { pixels: None, verifier: verifier.as_ref() };
    let found = dedup::dedup(&view, &options, originals, &on_stage, &on_done, context.cancel())?;
    found.skipped.iter().for_each(|skipped| context.failed(skipped));
    let report = Report::new(served.name(), options.threshold, verify, &found);
    let id = state.reports.keep(&report)?;
    Ok(json!({
        "report": id,
        "images": report.images,
        "groups": found.groups.len(),
        "duplicates": found.dropped().count(),
        "threshold": report.threshold,
        "verified": report.verified,
        "unseen_pairs": report.unseen,
        "remembered_pairs": report.remembered,
        "images_with_more_neighbours": report.truncated,
    }))
}
