//! What the walk found, for people and for programs.

use std::path::Path;
use std::time::Duration;

use indexer::eval::PairReport;
use indexer::gallery::{Called, Part, VERSION};
use serde_json::{Value, json};

use super::{Demo, Took};
use crate::commands::search::{hit_json, hit_line};
use crate::outcome::{Outcome, print, print_json};
use crate::settings::Settings;

/// One document with everything.
pub fn json(demo: &Demo) -> Outcome<()> {
    let Demo { spec, gallery, pool, test, reports, judgement, hits, took, .. } = demo;
    let manifest = pool.manifest();
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let Took { draw, index, search, compare, total } = *took;
    let hits: Vec<Value> =
        hits.iter().enumerate().map(|(i, hit)| hit_json(i + 1, hit, manifest)).collect();
    let skipped: Vec<Value> = reports
        .iter()
        .flat_map(|report| &report.skipped)
        .map(|skipped| json!({"path": skipped.path.to_string_lossy(), "reason": skipped.reason}))
        .collect();
    let sum = |count: fn(&indexer::IngestReport) -> usize| reports.iter().map(count).sum::<usize>();
    print_json(&json!({
        "gallery": gallery.folder.to_string_lossy(),
        "version": VERSION,
        "seed": spec.seed,
        "model": manifest.model.name,
        "collection": pool.name(),
        "test_collection": test.name(),
        "counts": {
            "families": gallery.families,
            "pool": gallery.pool,
            "near_copies": gallery.planted_in(Part::Pool).count(),
            "test": gallery.test,
            "leaks": gallery.planted_in(Part::Test).count(),
            "drawn": gallery.drawn,
        },
        "index": {
            "images": pool.len() + test.len(),
            "added": sum(|report| report.added),
            "updated": sum(|report| report.updated),
            "unchanged": sum(|report| report.unchanged),
        },
        "search": {"query": demo.query.to_string_lossy(), "hits": hits},
        "near_copies": report_json(&judgement.near_copies, &judgement.copy_pairs),
        "leaks": report_json(&judgement.leaks, &judgement.leak_pairs),
        "knn": {
            "k": judgement.k,
            "queries": judgement.knn.queries,
            "correct": judgement.knn.correct,
            "top1_percent": judgement.knn.percent(),
        },
        "skipped": skipped,
        "took_ms": {
            "draw": ms(draw),
            "index": ms(index),
            "search": ms(search),
            "compare": ms(compare),
            "total": ms(total),
        },
    }))
}

fn report_json(report: &PairReport, called: &[Called]) -> Value {
    let pair = |called: &Called| {
        json!({
            "original": called.original.to_string_lossy(),
            "copy": called.copy.to_string_lossy(),
            "similarity": called.similarity,
            "edit": called.edit,
        })
    };
    json!({
        "threshold": report.threshold,
        "planted": report.copies,
        "called": report.called,
        "found": report.found,
        "precision_percent": report.precision().percent(),
        "recall_percent": report.recall().percent(),
        "pairs": called.iter().map(pair).collect::<Vec<_>>(),
    })
}

/// A short walk.
pub fn text(settings: &Settings, demo: &Demo) -> Outcome<()> {
    let Demo { gallery, pool, reports, judgement, took, .. } = demo;
    let near = |path: &Path| {
        path.strip_prefix(&gallery.folder).unwrap_or(path).to_string_lossy().into_owned()
    };
    let drawn = match gallery.drawn {
        0 => "drawn before".to_owned(),
        _ => format!("drawn in {:.1} s", took.draw.as_secs_f64()),
    };
    let (files, families) = (gallery.pool + gallery.test, gallery.families);
    print(&format!("1. A gallery: {files} pictures of {families} kinds, {drawn}."))?;
    print(&format!("   {}", gallery.folder.display()))?;

    let fresh: usize = reports.iter().map(|report| report.added + report.updated).sum();
    let seconds = took.index.as_secs_f64();
    let speed = match fresh {
        0 => "nothing new to read".to_owned(),
        _ => format!("{fresh} read in {seconds:.1} s"),
    };
    let (name, model) = (pool.name(), &pool.manifest().model.name);
    print(&format!("2. Indexed as collections `{name}` and `{name}-test` by {model}: {speed}."))?;

    print(&format!("3. What is akin to {}?", near(&demo.query)))?;
    for (i, hit) in demo.hits.iter().enumerate() {
        let path = near(&hit.record.path.to_path());
        print(&format!("   {}", hit_line(i + 1, hit, pool.manifest(), &path)))?;
    }
    let knn = judgement.knn;
    print(&format!(
        "   Asked of every picture, its neighbours name the right kind for {:.1} % of {}.",
        knn.percent(),
        knn.queries
    ))?;

    let copies = judgement.near_copies;
    print(&format!(
        "4. Near-copies: {} of the {} we planted (recompressed, cropped, mirrored, ...) and {}, \
         from a",
        copies.found,
        copies.copies,
        false_alarms(&copies)
    ))?;
    print(&format!(
        "   similarity of {:.4} on, which is where they are told from the rest best. Such as",
        copies.threshold
    ))?;
    some(&judgement.copy_pairs, &near)?;

    let leaks = judgement.leaks;
    print(&format!(
        "5. Leaks: {} of the {} pool pictures hidden in the test set and {}, at the same \
         similarity.",
        leaks.found,
        leaks.copies,
        false_alarms(&leaks)
    ))?;
    some(&judgement.leak_pairs, &near)?;
    match settings.quiet {
        true => Ok(()),
        false => what_next(settings, demo),
    }
}

fn false_alarms(report: &PairReport) -> String {
    match report.called - report.found {
        0 => "nothing else".to_owned(),
        1 => "1 false alarm".to_owned(),
        more => format!("{more} false alarms"),
    }
}

/// The least similar of the pairs that were found: the most surprising.
fn some(called: &[Called], near: &dyn Fn(&Path) -> String) -> Outcome<()> {
    for pair in called.iter().rev().filter(|pair| pair.edit.is_some()).take(3) {
        let Called { original, copy, similarity, .. } = pair;
        print(&format!("     {similarity:.4}  {}  is  {}", near(copy), near(original)))?;
    }
    Ok(())
}

fn what_next(settings: &Settings, demo: &Demo) -> Outcome<()> {
    let akin = program(settings);
    let Demo { gallery, pool, judgement, .. } = demo;
    let path = |path: &Path| quoted(&path.to_string_lossy());
    // A held-out picture: one that the collection does not hold.
    let leaks: Vec<&Path> = gallery.planted_in(Part::Test).map(|p| p.copy.as_path()).collect();
    let other = judgement.leak_pairs.first().map(|pair| pair.copy.as_path());
    let unseen = other.or(leaks.first().copied()).unwrap_or(&demo.query);
    print("Next:")?;
    for command in [
        format!("search {} -c {}", path(unseen), pool.name()),
        format!("eval copies --truth {} -c {}", path(&gallery.truth()), pool.name()),
        "index ~/Pictures".to_owned(),
        "search ANY_PICTURE".to_owned(),
    ] {
        print(&format!("  {akin} {command}"))?;
    }
    Ok(())
}

/// How this program was called, with the home folder if it was named.
fn program(settings: &Settings) -> String {
    let mut words = std::env::args();
    let name = quoted(&words.next().unwrap_or_else(|| "akin".to_owned()));
    match words.any(|word| word == "--home" || word.starts_with("--home=")) {
        true => format!("{name} --home {}", quoted(&settings.home.to_string_lossy())),
        false => name,
    }
}

/// For a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
