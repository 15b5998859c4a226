//! A curated run as files, below the home's folder `exports`.

use indexer::curate::{ImageSet, SetInfo};
use indexer::export::{self, ExportOptions, Files, Format, Selection};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Context, Ended, Job, Kind};
use crate::problem::{Answer, Code, Problem};
use crate::state::AppState;

/// How a run is written.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportBody {
    /// `parquet`, `jsonl`, `csv`, `imagefolder`, `webdataset` or `coco`.
    #[schema(value_type = String)]
    format: Format,
    /// How originals are brought along: `none`, `copy`, `hardlink` or `symlink`; by default copied
    /// for formats that hold pictures, not at all for tables.
    #[schema(value_type = Option<String>)]
    files: Option<Files>,
    /// Add the embeddings.
    #[serde(default)]
    embeddings: bool,
}

impl AppState {
    /// Exports a run, in the background. For threads that may wait.
    ///
    /// # Errors
    /// There is no such run, it is not finished, or the line of jobs is full.
    pub fn export(&self, name: &str, body: ExportBody) -> Answer<Job> {
        let info = self.runs.info(name)?.ok_or_else(|| {
            Problem::new(Code::Conflict, format!("the run `{name}` is not finished"))
        })?;
        let state = self.clone();
        let run_name = name.to_owned();
        let work = move |context: &Context| run(&state, &run_name, &body, context);
        self.jobs.submit(Kind::Export, &info.pool.collection, Some(name), work)
    }

    fn set_of(&self, set: &SetInfo) -> Answer<ImageSet> {
        let served = self.shelf.find_or_open(&set.collection)?;
        Ok(ImageSet::new(&set.name, served.view())?)
    }
}

fn run(state: &AppState, name: &str, body: &ExportBody, context: &Context) -> Result<Value, Ended> {
    let folder = state.home.join("exports");
    std::fs::create_dir_all(&folder).map_err(Problem::internal)?;
    let format = serde_json::to_value(body.format).map_err(Problem::internal)?;
    let number = crate::random::hex::<4>().map_err(Problem::internal)?;
    // Run names are checked where runs are looked up.
    let out = format!("{name}-{}-{number}", format.as_str().unwrap_or("export"));
    let options = ExportOptions {
        format: body.format,
        files: body.files,
        embeddings: body.embeddings,
        strict: false,
        shard_samples: 10_000,
        margin: 0.05,
    };
    let result = state.runs.with_patience(name, |run| {
        let info = run.info();
        let pool = state.set_of(&info.pool)?;
        let excluded: Vec<ImageSet> =
            info.excluded.iter().map(|set| state.set_of(set)).collect::<Answer<_>>()?;
        let selection = Selection::Run { run, pool: &pool, excluded: &excluded };
        context.stage("writing files", Some(info.kept as u64));
        let mut on_done = |count: usize| context.advance(count as u64);
        Ok(export::export(&folder.join(&out), selection, &options, &mut on_done, context.cancel()))
    });
    let report = result??;
    report.skipped.iter().for_each(|skipped| context.failed(skipped));
    let certificate = report.certificate.as_ref().map(|certificate| {
        let mut body = serde_json::to_value(certificate).unwrap_or_default();
        // Up to 10,000 pairs, which are in the export's own certificate.json.
        if let Some(fields) = body.as_object_mut() {
            fields.remove("pairs");
        }
        body
    });
    Ok(json!({
        "folder": folder.join(&out).to_string_lossy(),
        "name": out,
        "images": report.images,
        "skipped": report.skipped.len(),
        "certificate": certificate,
    }))
}
