//! What was found, for people, for programs, and as a file.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use indexer::View;
use indexer::dedup::{DedupReport, Dropped, Group, Kind, Member, Pair};
use serde_json::{Value, json};

use super::Threshold;
use crate::args::DedupArgs;
use crate::outcome::{Failure, Outcome, note, print, print_json};
use crate::settings::Settings;

/// A run that is over.
pub(super) struct Run<'a> {
    pub(super) args: &'a DedupArgs,
    pub(super) view: &'a View,
    pub(super) threshold: &'a Threshold,
    pub(super) report: &'a DedupReport,
    pub(super) removed: usize,
}

impl Run<'_> {
    pub(super) fn print(&self, settings: &Settings) -> Outcome<()> {
        if settings.json {
            return print_json(&self.json());
        }
        self.report.groups.iter().try_for_each(text)?;
        if !settings.quiet {
            self.summary().iter().for_each(|line| note(line));
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let Self { args, view, threshold, report, removed } = self;
        let skipped = |one: &indexer::pipeline::Skipped| json!({"path": one.path.to_string_lossy(), "reason": one.reason});
        json!({
            "collection": view.name(),
            "model": view.manifest().model.name,
            "images": report.images,
            "threshold": threshold.value,
            "threshold_measured_for": threshold.measured_for,
            "k": args.k,
            "verified": !args.no_verify,
            "groups": report.groups.iter().map(group).collect::<Vec<_>>(),
            "dropped": report.dropped().count(),
            "dropped_by_kind": kinds(report.dropped().map(|dropped| dropped.kind)),
            "pairs_by_kind": kinds(report.pairs.iter().map(|pair| pair.kind)),
            "unseen_pairs": report.unseen,
            "remembered_pairs": report.remembered,
            "images_with_more_neighbours": report.truncated,
            "removed_from_collection": removed,
            "skipped": report.skipped.iter().map(skipped).collect::<Vec<_>>(),
        })
    }

    fn summary(&self) -> Vec<String> {
        let Self { args, view, threshold, report, removed } = self;
        let kinds = kinds(report.dropped().map(|dropped| dropped.kind));
        let kinds: Vec<String> =
            kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let mut lines = vec![format!(
            "{}: {} images, {} groups, {} duplicates{}",
            view.name(),
            report.images,
            report.groups.len(),
            report.dropped().count(),
            if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) },
        )];
        let measured = match &threshold.measured_for {
            Some(model) => format!(", measured for {model}"),
            None => String::new(),
        };
        let looked = if args.no_verify { "unseen" } else { "then looked at" };
        lines.push(format!("pairs from similarity {:.3} on{measured}, {looked}", threshold.value));
        let alike = report.pairs.iter().filter(|pair| pair.kind == Kind::SameSubject).count();
        let mut say = |count: usize, what: &str| {
            if count > 0 {
                lines.push(format!("{count} {what}"));
            }
        };
        say(alike, "similar pairs are different pictures, and stay (--report lists them)");
        say(
            report.unseen,
            "pairs could not be looked at, since an original is gone or changed, and stay",
        );
        say(report.remembered, "pairs are remembered as no duplicates");
        say(
            report.truncated,
            "images have as many similar neighbours as were looked for; a larger -k may find more",
        );
        match removed {
            0 if report.groups.is_empty() || args.remove_from_collection => {}
            0 => lines.push(
                "nothing was changed; --remove-from-collection takes them out of the collection"
                    .to_owned(),
            ),
            removed => {
                lines.push(format!("{removed} removed from the collection; no file was touched"))
            }
        }
        lines
    }
}

fn kinds(kinds: impl Iterator<Item = Kind>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind.to_string()).or_default() += 1;
    }
    counts
}

fn text(group: &Group) -> Outcome<()> {
    let line = |action: &str, member: &Member, what: &str| {
        let image = &member.image;
        let from = member.reference.as_ref().map_or(String::new(), |name| format!("{name}: "));
        print(&format!("{action} {from}{}  {}x{}{what}", image.path, image.width, image.height))
    };
    for member in &group.kept {
        line("keep  ", member, "")?;
    }
    for Dropped { member, similarity, kind, direct, .. } in &group.dropped {
        let through = if *direct { "" } else { ", through others" };
        line("  drop", member, &format!("  {similarity:.3} {kind}{through}"))?;
    }
    if group.chain > 1 {
        let least = if group.chain_is_exact { "" } else { "at least " };
        let bound = if group.spread.exact { "" } else { "no less than " };
        print(&format!(
            "  a chain of {least}{} links; the least similar two have {bound}{:.3}, the weakest \
             link {:.3}",
            group.chain, group.spread.lowest, group.weakest
        ))?;
    }
    print("")
}

fn member(member: &Member) -> Value {
    let image = &member.image;
    json!({
        "id": image.id,
        "path": image.path.to_string(),
        "reference": member.reference,
        "width": image.width,
        "height": image.height,
        "bytes": image.bytes,
        "sha256": image.sha256,
    })
}

fn group(group: &Group) -> Value {
    let dropped = |dropped: &Dropped| {
        let mut line = member(&dropped.member);
        line["similarity"] = dropped.similarity.into();
        line["kind"] = json!(dropped.kind);
        line["direct"] = dropped.direct.into();
        line["evidence"] = json!(dropped.evidence);
        line
    };
    json!({
        "kept": group.kept.iter().map(member).collect::<Vec<_>>(),
        "dropped": group.dropped.iter().map(dropped).collect::<Vec<_>>(),
        "weakest_link": group.weakest,
        "chain": group.chain,
        "chain_is_exact": group.chain_is_exact,
        "lowest_similarity": group.spread.lowest,
        "lowest_similarity_is_exact": group.spread.exact,
    })
}

fn pair(pair: &Pair) -> Value {
    json!({
        "a": member(&pair.a),
        "b": member(&pair.b),
        "similarity": pair.similarity,
        "kind": pair.kind,
        "evidence": pair.evidence,
    })
}

/// Groups, then pairs, one JSON object a line, told apart by `type`. Written beside and renamed.
pub(super) fn write(path: &Path, report: &DedupReport) -> Outcome<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = Path::new(&name);
    let lines = || -> std::io::Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(part)?);
        let groups = report.groups.iter().map(|one| ("group", group(one)));
        let pairs = report.pairs.iter().map(|one| ("pair", pair(one)));
        for (kind, mut line) in groups.chain(pairs) {
            line["type"] = kind.into();
            serde_json::to_writer(&mut file, &line)?;
            file.write_all(b"\n")?;
        }
        file.into_inner()?.sync_all()?;
        std::fs::rename(part, path)
    };
    lines().map_err(|error| {
        let _ = std::fs::remove_file(part);
        Failure::Failed(format!("cannot write {}: {error}", path.display()))
    })
}
