//! Duplicates: reports, decisions about their groups, and their removal from the collection.

mod apply;

use std::collections::{BTreeMap, BTreeSet};

use axum::Json as Answered;
use axum::extract::State;
use indexer::dedup::NotDuplicates;
use indexer::{ContentHash, ImageId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::paging::{cursor, limit};
use crate::extract::{Json, Path, Query};
use crate::items::Item;
use crate::problem::{Answer, Code, Problem, ProblemBody};
use crate::reports::{
    Action, Decided, Decision, GroupKind, Journal, Report, StoredGroup, StoredMember,
};
use crate::shelf::Served;
use crate::state::AppState;

/// Members up to which all pairs of a group can be remembered as no duplicates.
const MOST_MEMBERS: usize = 256;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(decide)).merge(apply::routes())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Where the page before ended: its `next_cursor`.
    cursor: Option<String>,
    /// Groups wanted, 1 to 200; by default 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Only groups of these kinds, with commas between: `same_file`, `edited`, `similar`,
    /// `same_subject`. A cursor goes on with the same kinds.
    #[param(
        pattern = "^((same_file|edited|similar|same_subject)(,(same_file|edited|similar|same_subject))*)?$"
    )]
    kind: Option<String>,
}

/// The kinds that are named; all when none is.
fn kinds(named: Option<&str>) -> Answer<BTreeSet<GroupKind>> {
    let Some(named) = named.filter(|named| !named.is_empty()) else {
        return Ok(GroupKind::ALL.into());
    };
    let find = |word: &str| {
        let kind = GroupKind::ALL.into_iter().find(|kind| kind.word() == word);
        kind.ok_or_else(|| {
            let known = GroupKind::ALL.map(GroupKind::word).join(", ");
            let detail = format!("`{word}` is no kind of duplicates; there are {known}");
            Problem::new(Code::BadRequest, detail.clone()).field("kind", detail)
        })
    };
    named.split(',').map(find).collect()
}

/// A page of a report.
#[derive(Debug, Serialize, ToSchema)]
struct GroupsAnswer {
    /// In the order of the report.
    groups: Vec<GroupBody>,
    /// Says where the next page starts; null when there is no other.
    next_cursor: Option<String>,
    /// What the whole report has.
    totals: Totals,
    /// Similarity from which on pairs were looked at.
    threshold: f32,
    /// Whether both pictures of each pair were looked at.
    verified: bool,
}

/// What a report has in all.
#[derive(Debug, Serialize, ToSchema)]
struct Totals {
    /// Groups.
    groups: usize,
    /// Images in them.
    images: usize,
    /// Groups by kind.
    #[schema(value_type = std::collections::BTreeMap<String, usize>)]
    by_kind: BTreeMap<GroupKind, usize>,
    /// Groups about which nothing is decided.
    pending: usize,
    /// Of those, groups by kind.
    #[schema(value_type = std::collections::BTreeMap<String, usize>)]
    pending_by_kind: BTreeMap<GroupKind, usize>,
    /// Images that go when the report is applied, as it stands; of all kinds.
    going: usize,
    /// Bytes of their files when the report was made.
    going_bytes: u64,
}

/// Images that are duplicates of each other, or may be.
#[derive(Debug, Serialize, ToSchema)]
struct GroupBody {
    /// Its number in the report.
    id: usize,
    /// The least that its members are to each other.
    kind: GroupKind,
    /// The image that stays unless somebody says otherwise.
    keep: u64,
    /// That image first.
    members: Vec<MemberBody>,
    /// What was decided.
    decided: Decided,
    /// Images that go when the report is applied.
    remove: Vec<u64>,
}

/// An image of a group.
#[derive(Debug, Serialize, ToSchema)]
struct MemberBody {
    #[serde(flatten)]
    image: Item,
    /// With the image `to`, cosine of the embeddings.
    similarity: f64,
    /// What it is to that image.
    kind: GroupKind,
    /// The image that is to stay.
    to: u64,
    /// Whether it is not in the collection any more, or has another file now.
    gone: bool,
}

/// Show a report of duplicates
#[utoipa::path(
    get, path = "/collections/{name}/dedup/{report}", tag = "duplicates", operation_id = "show_duplicates",
    params(
        ("name" = String, Path, description = "Collection"),
        ("report" = String, Path, description = "Report"),
        Page,
    ),
    responses(
        (status = 200, description = "One page", body = GroupsAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn show(
    State(state): State<AppState>,
    Path((name, report)): Path<(String, String)>,
    Query(page): Query<Page>,
) -> Answer<Answered<GroupsAnswer>> {
    let served = state.collection(&name).await?;
    let (first, limit) = (cursor(page.cursor.as_deref())?, limit(page.limit, 50, 200)?);
    let kinds = kinds(page.kind.as_deref())?;
    let of = state.clone();
    let look = move || {
        let (report, journal) = of.reports.open(served.name(), &report)?;
        let wanted = |(_, group): &(usize, &StoredGroup)| kinds.contains(&group.kind);
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let mut rest = report.groups.iter().enumerate().skip(first).filter(wanted);
        let mut groups = Vec::new();
        for (number, group) in rest.by_ref().take(limit) {
            let remove = match journal.last(number) {
                Some(decision) if decision.action == Action::Keep => decision.remove.clone(),
                _ => Vec::new(),
            };
            let keep = group.keep().unwrap_or_default();
            let member = |member| of.group_member(&served, member, keep);
            let members = group.members.iter().map(member).collect::<Answer<_>>()?;
            let (kind, decided) = (group.kind, journal.decided(number));
            groups.push(GroupBody { id: number, kind, keep, members, decided, remove });
        }
        let next_cursor = rest.next().map(|(number, _)| number.to_string());
        let totals = totals(&report, &journal);
        let Report { threshold, verified, .. } = *report;
        Ok(GroupsAnswer { groups, next_cursor, totals, threshold, verified })
    };
    state.searchers.run(look).await.map(Answered)
}

fn totals(report: &Report, journal: &Journal) -> Totals {
    let (mut by_kind, mut pending_by_kind) = (BTreeMap::new(), BTreeMap::new());
    for (number, group) in report.groups.iter().enumerate() {
        *by_kind.entry(group.kind).or_default() += 1;
        let pending = pending_by_kind.entry(group.kind).or_default();
        *pending += usize::from(journal.decided(number) == Decided::Pending);
    }
    let mut going = BTreeMap::new();
    for (number, remove) in journal.to_remove() {
        let Some(group) = report.groups.get(number) else { continue };
        let members = group.members.iter().filter(|member| remove.contains(&member.id));
        going.extend(members.map(|member| (member.id, member.bytes)));
    }
    Totals {
        groups: report.groups.len(),
        images: report.groups.iter().map(|group| group.members.len()).sum(),
        by_kind,
        pending: pending_by_kind.values().sum(),
        pending_by_kind,
        going: going.len(),
        going_bytes: going.values().sum(),
    }
}

impl AppState {
    fn group_member(&self, served: &Served, member: &StoredMember, to: u64) -> Answer<MemberBody> {
        let id = ImageId(member.id);
        let record = served.view().record(id)?;
        let gone = record.as_ref().is_none_or(|record| record.sha256.as_str() != member.sha256);
        let image = match record {
            Some(record) => self.item(served.name(), id, record),
            None => Item {
                id: member.id,
                path: member.path.clone(),
                width: member.width,
                height: member.height,
                bytes: member.bytes,
                modified: None,
                sha256: member.sha256.clone(),
                warning: None,
                payload: BTreeMap::new(),
                thumbnail: String::new(),
                original: String::new(),
            },
        };
        let &StoredMember { similarity, kind, .. } = member;
        Ok(MemberBody { image, similarity, kind, to, gone })
    }
}

/// What to do about a group.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DecisionBody {
    /// Number of the group.
    group: usize,
    /// `keep`: some stay, the others go when the report is applied. `not_duplicate`: all stay, and
    /// are not called duplicates again. `undo`: takes the last decision about the group back.
    action: Action,
    /// `keep`: images that stay; without, the one that the report keeps.
    #[serde(default)]
    keep: Vec<u64>,
    /// `keep`: images that go; without, all others.
    #[serde(default)]
    remove: Vec<u64>,
}

/// What stands about a group.
#[derive(Debug, Serialize, ToSchema)]
struct DecidedAnswer {
    /// Number of the group.
    group: usize,
    /// What was decided.
    decided: Decided,
    /// Images that go when the report is applied.
    remove: Vec<u64>,
}

/// Decide about a group
///
/// The decision is written to a journal; nothing is removed before the report is applied.
#[utoipa::path(
    post, path = "/collections/{name}/dedup/{report}/decisions", tag = "duplicates",
    operation_id = "decide_duplicates",
    params(
        ("name" = String, Path, description = "Collection"),
        ("report" = String, Path, description = "Report"),
    ),
    request_body = DecisionBody,
    responses(
        (status = 200, description = "What stands now", body = DecidedAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn decide(
    State(state): State<AppState>,
    Path((name, report)): Path<(String, String)>,
    Json(body): Json<DecisionBody>,
) -> Answer<Answered<DecidedAnswer>> {
    let served = state.collection(&name).await?;
    let of = state.clone();
    let work = move || of.decide(&served, &report, &body);
    state.searchers.run(work).await.map(Answered)
}

impl AppState {
    fn decide(&self, served: &Served, report: &str, body: &DecisionBody) -> Answer<DecidedAnswer> {
        let _writing = self.reports.writing();
        let (report, mut journal) = self.reports.open(served.name(), report)?;
        let number = body.group;
        let group = report.groups.get(number).ok_or_else(|| {
            let detail = format!("the report has {} groups, none is {number}", report.groups.len());
            Problem::new(Code::BadRequest, detail.clone()).field("group", detail)
        })?;
        if journal.decided(number) == Decided::Removed {
            let detail = "images of this group have been removed, which cannot be taken back here";
            return Err(Problem::new(Code::Conflict, detail)
                .remedy("index their files again; no file was touched"));
        }
        let action = body.action;
        let mut decision =
            Decision { group: number, action, remove: Vec::new(), pairs: Vec::new() };
        match action {
            Action::Keep => decision.remove = chosen(group, body)?,
            Action::NotDuplicate => decision.pairs = self.remember(served, group)?,
            Action::Undo => match journal.last(number).cloned() {
                Some(last) => self.forget(served, &last)?,
                None => {
                    let detail = "nothing is decided about this group";
                    return Err(Problem::new(Code::Conflict, detail));
                }
            },
            Action::Removed => {
                let detail = "this is noted when a report is applied, and not by request";
                return Err(Problem::new(Code::BadRequest, detail).field("action", detail));
            }
        }
        journal.add(vec![decision]).map_err(Problem::internal)?;
        let decided = journal.decided(number);
        let remove = match journal.last(number) {
            Some(last) if last.action == Action::Keep => last.remove.clone(),
            _ => Vec::new(),
        };
        Ok(DecidedAnswer { group: number, decided, remove })
    }

    /// Remembers all pairs of a group as no duplicates; those that were not known before.
    fn remember(&self, served: &Served, group: &StoredGroup) -> Answer<Vec<(String, String)>> {
        let members = &group.members;
        if members.len() > MOST_MEMBERS {
            let detail = format!(
                "the group has {} members; up to {MOST_MEMBERS} can be called no duplicates at once",
                members.len()
            );
            return Err(Problem::new(Code::Conflict, detail).remedy("keep them all instead"));
        }
        let mut known = NotDuplicates::read(served.folder())?;
        let mut added = Vec::new();
        for (number, a) in members.iter().enumerate() {
            for b in &members[..number] {
                if let (Some(x), Some(y)) =
                    (ContentHash::parse(&a.sha256), ContentHash::parse(&b.sha256))
                    && known.insert(&x, &y)
                {
                    added.push((a.sha256.clone(), b.sha256.clone()));
                }
            }
        }
        if added.is_empty() && members.windows(2).all(|two| two[0].sha256 == two[1].sha256) {
            let detail = "these are equal files, and duplicates whatever anybody says";
            return Err(Problem::new(Code::Conflict, detail).remedy("keep them all instead"));
        }
        known.write(served.folder())?;
        Ok(added)
    }

    fn forget(&self, served: &Served, decision: &Decision) -> Answer<()> {
        if decision.pairs.is_empty() {
            return Ok(());
        }
        let mut known = NotDuplicates::read(served.folder())?;
        for (a, b) in &decision.pairs {
            if let (Some(a), Some(b)) = (ContentHash::parse(a), ContentHash::parse(b)) {
                known.remove(&a, &b);
            }
        }
        Ok(known.write(served.folder())?)
    }
}

/// Images of a group that are to go.
fn chosen(group: &StoredGroup, body: &DecisionBody) -> Answer<Vec<u64>> {
    let bad = |field: &str, detail: String| {
        Err(Problem::new(Code::BadRequest, detail.clone()).field(field, detail))
    };
    for (field, ids) in [("keep", &body.keep), ("remove", &body.remove)] {
        if let Some(id) = ids.iter().find(|&&id| group.member(id).is_none()) {
            return bad(field, format!("image {id} is not in this group"));
        }
    }
    let keep: BTreeSet<u64> = match body.keep.is_empty() && body.remove.is_empty() {
        true => group.keep().into_iter().collect(),
        false => body.keep.iter().copied().collect(),
    };
    let all = group.members.iter().map(|member| member.id);
    let remove: BTreeSet<u64> = match body.remove.is_empty() {
        true => all.filter(|id| !keep.contains(id)).collect(),
        false => body.remove.iter().copied().collect(),
    };
    if let Some(id) = remove.intersection(&keep).next() {
        return bad("remove", format!("image {id} cannot both stay and go"));
    }
    if remove.len() == group.members.len() {
        return bad("remove", "one image of a group must stay".to_owned());
    }
    Ok(remove.into_iter().collect())
}

#[cfg(test)]
mod tests;
