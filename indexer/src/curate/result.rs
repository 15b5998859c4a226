//! All steps together: which images are in, for which seed set, and the ledger of the whole pool.

use std::collections::BTreeMap;

use super::config::Step;
use super::ledger::{Because, LedgerRow};
use super::output::{Dropped, StepOutput};
use super::output::{Pick, Reference, Rule, SetRef};
use super::run_folder::Account;
use super::sets::{ImageSet, hash_text};
use super::steps::{Inputs, State};
use crate::error::Result;

/// One step, as done.
pub(crate) struct Done {
    /// Number and name.
    pub(crate) folder: String,
    pub(crate) step: Step,
    pub(crate) output: StepOutput,
}

/// For every image that is left and was retrieved, the pick that counts: the most similar, of the
/// first set of several.
fn winners(state: &State) -> BTreeMap<u32, &Pick> {
    let mut winners: BTreeMap<u32, &Pick> = BTreeMap::new();
    for pick in state.picks.iter().flatten() {
        let best = winners.entry(pick.item).or_insert(pick);
        if pick.similarity > best.similarity {
            *best = pick;
        }
    }
    winners
}

/// The accounting table.
pub(crate) fn accounts(done: &[Done], state: &State) -> Vec<Account> {
    let winners = winners(state);
    let picks = || state.picks.iter().flatten();
    let retrieved = done.iter().flat_map(|done| &done.output.retrieved);
    retrieved
        .enumerate()
        .map(|(set, retrieved)| {
            let left = picks().filter(|pick| pick.set as usize == set).count();
            let kept = winners.values().filter(|pick| pick.set as usize == set).count();
            Account { retrieved: retrieved.clone(), left, shared: left - kept, kept }
        })
        .collect()
}

/// One row for every image of the pool, by id.
pub(crate) fn ledger(inputs: &Inputs<'_>, done: &[Done], state: &State) -> Result<Vec<LedgerRow>> {
    let winners = winners(state);
    let mut dropped: BTreeMap<u32, (&str, &Dropped)> = BTreeMap::new();
    let mut components = BTreeMap::new();
    let mut clusters = BTreeMap::new();
    let mut leaks = BTreeMap::new();
    let mut retrieved_by = None;
    for Done { folder, step, output } in done {
        dropped.extend(output.dropped.iter().map(|d| (d.item, (folder.as_str(), d))));
        components.extend(output.components.iter().copied());
        clusters.extend(output.clusters.iter().copied());
        let threshold = output.threshold.unwrap_or(f32::INFINITY);
        leaks.extend(output.leaks.iter().map(|l| (l.item, (*l, l.similarity >= threshold))));
        if matches!(step, Step::Retrieve(_)) {
            retrieved_by = Some(folder.as_str());
        }
    }
    let mut names = Names { inputs, known: BTreeMap::new() };
    let mut rows = Vec::with_capacity(inputs.pool.images().len());
    for (item, image) in inputs.pool.images().iter().enumerate() {
        let item = item as u32;
        let record = inputs.pool.record(image.id)?;
        let leak = leaks.get(&item);
        let excluded =
            leak.map(|(leak, _)| Reference { set: SetRef::Excluded(leak.set), id: leak.id });
        let component = components.get(&item).map(|&first| inputs.pool.images()[first as usize].id);
        let mut row = LedgerRow {
            id: image.id,
            path: record.path,
            sha256: hash_text(&image.sha256),
            width: record.width,
            height: record.height,
            kept: true,
            step: "union".to_owned(),
            rule: Rule::Survived,
            seed: None,
            rank: None,
            because: None,
            similarity: None,
            component,
            cluster: clusters.get(&item).copied(),
            excluded: excluded.map(|of| names.name(of)).transpose()?,
            excluded_similarity: leak.map(|(leak, _)| leak.similarity),
            leak: leak.is_some_and(|(_, is_leak)| *is_leak),
        };
        if let Some((folder, dropped)) = dropped.get(&item) {
            row.kept = false;
            row.step = (*folder).to_owned();
            row.rule = dropped.rule;
            row.because = dropped.because.map(|of| names.name(of)).transpose()?;
            row.similarity = dropped.similarity;
        } else if let (Some(pick), Some(folder)) = (winners.get(&item), retrieved_by) {
            let seed = Reference { set: SetRef::Seeds(pick.set), id: pick.seed };
            row.step = folder.to_owned();
            row.rule = pick.rule;
            row.seed = Some(names.name(seed)?);
            row.rank = pick.rank;
            row.similarity = Some(pick.similarity);
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Paths of images that are reasons, each looked up once.
struct Names<'a> {
    inputs: &'a Inputs<'a>,
    known: BTreeMap<(u32, u32, u64), Because>,
}

impl Names<'_> {
    fn name(&mut self, Reference { set, id }: Reference) -> Result<Because> {
        let key = match set {
            SetRef::Pool => (0, 0, id.0),
            SetRef::Seeds(number) => (1, number, id.0),
            SetRef::Excluded(number) => (2, number, id.0),
        };
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let (name, set): (&str, &ImageSet) = match set {
            SetRef::Pool => ("pool", self.inputs.pool),
            SetRef::Seeds(number) => {
                let set = &self.inputs.seeds[number as usize];
                (set.name(), set)
            }
            SetRef::Excluded(number) => {
                let set = &self.inputs.excluded[number as usize];
                (set.name(), set)
            }
        };
        let because = Because { set: name.to_owned(), id, path: set.record(id)?.path };
        self.known.insert(key, because.clone());
        Ok(because)
    }
}
