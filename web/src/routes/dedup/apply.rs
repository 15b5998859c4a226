//! What was decided, done: duplicates leave the collection.

use std::collections::BTreeSet;

use axum::Json as Answered;
use axum::extract::State;
use indexer::{Collection, ImageId, Record};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::extract::{Json, Path};
use crate::problem::{Answer, Problem, ProblemBody};
use crate::reports::{Action, Decision};
use crate::state::AppState;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(apply))
}

/// Whether anything is done.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApplyBody {
    /// Only say what would be done.
    dry_run: bool,
}

/// What was done, or would be.
#[derive(Debug, Serialize, ToSchema)]
struct ApplyAnswer {
    /// In a dry run: images that would go.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_remove: Option<Vec<u64>>,
    /// Images that went.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<usize>,
    /// Bytes of their files, which stay where they are.
    bytes: u64,
}

/// Take decided duplicates out of the collection
///
/// Only groups about which `keep` was decided; images whose file has changed since stay. No file is
/// touched.
#[utoipa::path(
    post, path = "/collections/{name}/dedup/{report}/apply", tag = "duplicates",
    operation_id = "apply_duplicates",
    params(
        ("name" = String, Path, description = "Collection"),
        ("report" = String, Path, description = "Report"),
    ),
    request_body = ApplyBody,
    responses(
        (status = 200, description = "What was done", body = ApplyAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn apply(
    State(state): State<AppState>,
    Path((name, report)): Path<(String, String)>,
    Json(body): Json<ApplyBody>,
) -> Answer<Answered<ApplyAnswer>> {
    let served = state.collection(&name).await?;
    let of = state.clone();
    if body.dry_run {
        let look = move || {
            let view = served.view();
            let going = of.going(served.name(), &report, &|id| Ok(view.record(id)?))?;
            let would_remove = Some(going.ids.into_iter().collect());
            Ok(ApplyAnswer { would_remove, removed: None, bytes: going.bytes })
        };
        return state.searchers.run(look).await.map(Answered);
    }
    let (name, journal_of, at) = (served.name().to_owned(), state.clone(), report.clone());
    let note = move |collection: &mut Collection| {
        let going = of.going(collection.name(), &report, &|id| Ok(collection.record(id)?))?;
        for &id in &going.ids {
            collection.remove(ImageId(id))?;
        }
        Ok(going)
    };
    let settle = move |going: Going, _: &Collection| {
        let _writing = journal_of.reports.writing();
        let (_, mut journal) = journal_of.reports.open(&name, &at)?;
        let removed = |group| Decision {
            group,
            action: Action::Removed,
            remove: Vec::new(),
            pairs: Vec::new(),
        };
        let decisions = going.groups.into_iter().map(removed).collect();
        journal.add(decisions).map_err(Problem::internal)?;
        Ok(ApplyAnswer { would_remove: None, removed: Some(going.ids.len()), bytes: going.bytes })
    };
    served.change(&state.searchers, note, settle).await.map(Answered)
}

/// What goes when a report is applied.
struct Going {
    /// Images that are still as the report says.
    ids: BTreeSet<u64>,
    /// Bytes of their files.
    bytes: u64,
    /// Groups they are in.
    groups: Vec<usize>,
}

impl AppState {
    fn going(
        &self,
        collection: &str,
        report: &str,
        record: &dyn Fn(ImageId) -> Answer<Option<Record>>,
    ) -> Answer<Going> {
        let _writing = self.reports.writing();
        let (report, journal) = self.reports.open(collection, report)?;
        let mut going = Going { ids: BTreeSet::new(), bytes: 0, groups: Vec::new() };
        // Where all stay, nothing goes, now or later.
        let some_go = |(_, remove): &(usize, &[u64])| !remove.is_empty();
        for (number, remove) in journal.to_remove().into_iter().filter(some_go) {
            going.groups.push(number);
            for &id in remove {
                let expected = report.groups.get(number).and_then(|group| group.member(id));
                if let (Some(expected), Some(record)) = (expected, record(ImageId(id))?)
                    && record.sha256.as_str() == expected.sha256
                    && going.ids.insert(id)
                {
                    going.bytes += record.stamp.size;
                }
            }
        }
        Ok(going)
    }
}
