//! `akin dedup --calibrate`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use indexer::Collection;
use indexer::dedup::{
    self, Candidate, Count, Edge, Kind, Labelled, Method, Stage, Suggestion, Verifier, Wanted,
};
use indexer::eval::PairReport;
use serde_json::{Value, json};

use super::{image, open_model, with_progress};
use crate::args::DedupArgs;
use crate::outcome::{Failure, Outcome, Success, note, print, print_json};
use crate::plot::{self, Panel, Series};
use crate::progress::{CANCELLED, list_skipped};
use crate::settings::Settings;

/// Similarities on either side of a threshold that count as marginal.
const MARGIN: f32 = 0.02;
/// Marginal pairs shown.
const SHOWN: usize = 20;
/// Lowest similarity that is of interest without labels.
const FLOOR: f32 = 0.4;

pub(super) fn run(
    settings: &Settings,
    args: &DedupArgs,
    collection: &Collection,
    truth: Option<&Path>,
) -> Outcome {
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
    }
    match truth {
        Some(truth) => labelled(settings, args, collection, truth),
        None => unlabelled(settings, args, collection),
    }
}

fn labelled(
    settings: &Settings,
    args: &DedupArgs,
    collection: &Collection,
    truth: &Path,
) -> Outcome {
    let view = collection.view();
    let mut images: BTreeMap<u32, Candidate> = BTreeMap::new();
    let mut edges = Vec::new();
    for Labelled { a, b, copy } in dedup::read_truth(truth)? {
        let mut row = |name: &str| -> Outcome<u32> {
            let (id, record) = image(collection, name)?;
            let row = u32::try_from(record.row).unwrap_or(u32::MAX);
            images.entry(row).or_insert_with(|| Candidate::new(row, id, record));
            Ok(row)
        };
        let (row_a, row_b) = (row(&a)?, row(&b)?);
        if row_a == row_b {
            let path = truth.display();
            return Err(Failure::Failed(format!("{path}: it pairs image `{a}` with itself")));
        }
        let vector = |row: u32| view.vector(row, images[&row].id);
        let similarity = engine::kernels::dot(&vector(row_a)?, &vector(row_b)?);
        edges.push((Edge::new(row_a, row_b, similarity), copy));
    }
    let pairs: Vec<(f32, bool)> =
        edges.iter().map(|(edge, copy)| (edge.similarity, *copy)).collect();
    let found = dedup::suggest(&pairs, args.precision, args.seed)?;
    let curve = dedup::curve(&pairs);

    let known = dedup::thresholds(&view.manifest().model).map(|known| known.candidates);
    let from = args.threshold.or(known).unwrap_or(FLOOR);
    let mut skipped = Vec::new();
    let verified = match args.no_verify {
        true => None,
        false => {
            let opened = open_model(settings, &view)?;
            let verifier = Verifier::new(&opened.embedder);
            edges.sort_by_key(|(edge, _)| (edge.a, edge.b));
            edges.dedup_by_key(|(edge, _)| (edge.a, edge.b));
            let near: Vec<Edge> = edges
                .iter()
                .map(|(edge, _)| *edge)
                .filter(|edge| edge.similarity >= from)
                .collect();
            let of = |row: u32| Ok(images[&row].clone());
            let (judged, unreadable) = with_progress(settings, |on_stage, on_done| {
                on_stage(Stage::Pairs(near.len()));
                dedup::verify(&near, &of, &verifier, on_done, &CANCELLED)
            })?;
            skipped = unreadable;
            let called: Vec<(u32, u32)> = judged
                .iter()
                .filter(|judged| judged.kind == Kind::SamePicture)
                .map(|judged| (judged.edge.a, judged.edge.b))
                .collect();
            let is_called = |edge: &Edge| called.contains(&(edge.a, edge.b));
            // A pair of equal files needs no look.
            let same = |edge: &Edge| images[&edge.a].sha256 == images[&edge.b].sha256;
            let judged: Vec<(f32, bool)> = edges
                .iter()
                .map(|(edge, copy)| (f32::from(u8::from(is_called(edge) || same(edge))), *copy))
                .collect();
            Some(PairReport::at(0.5, &judged))
        }
    };
    if let Some(folder) = &args.out {
        write_curve(folder, &view.manifest().model.name, &curve)?;
    }
    let copies = pairs.iter().filter(|pair| pair.1).count();
    show(
        settings,
        &json!({
            "collection": view.name(),
            "model": view.manifest().model.name,
            "pairs": pairs.len(),
            "copies": copies,
            "by_similarity": suggestion(&found, args.precision),
            "verified": verified.map(|report| {
                let mut value = pair_report(&report);
                value["threshold"] = from.into();
                value
            }),
        }),
    )?;
    list_skipped(&skipped);
    Ok(Success::unless_skipped(skipped.len()))
}

fn suggestion(found: &Suggestion, wanted: f64) -> Value {
    let mut value = pair_report(&found.report);
    value["precision_wanted"] = wanted.into();
    value["precision_reached"] = found.is_precise.into();
    value["threshold_95"] = json!([found.interval.0, found.interval.1]);
    value["precision_95"] = json!([found.precision.0, found.precision.1]);
    value["recall_95"] = json!([found.recall.0, found.recall.1]);
    value
}

fn pair_report(report: &PairReport) -> Value {
    json!({
        "threshold": report.threshold,
        "called": report.called,
        "found": report.found,
        "precision": report.precision().percent() / 100.0,
        "recall": report.recall().percent() / 100.0,
    })
}

fn unlabelled(settings: &Settings, args: &DedupArgs, collection: &Collection) -> Outcome {
    let view = collection.view();
    let wanted = Wanted { k: args.k, floor: FLOOR, method: args.method.into() };
    let graph = with_progress(settings, |on_stage, on_done| {
        on_stage(Stage::Neighbours(view.len()));
        dedup::neighbours((&view, None), None, wanted, on_done, &CANCELLED)
    })?;
    let thresholds: Vec<f32> = (40..=99).map(|hundredth| hundredth as f32 / 100.0).collect();
    let counts = dedup::counts(&graph, &thresholds);
    let known = dedup::thresholds(&view.manifest().model).map(|known| known.candidates);
    let at = args.threshold.or(known).unwrap_or(0.9);
    let marginal = dedup::marginal(&graph.edges(FLOOR), at, MARGIN, SHOWN, args.seed);
    let shown = |edge: &Edge| -> Outcome<Value> {
        let (a, b) = (Candidate::of(&view, edge.a)?, Candidate::of(&view, edge.b)?);
        Ok(json!({
            "similarity": edge.similarity,
            "a": a.path.to_string(),
            "b": b.path.to_string(),
        }))
    };
    let marginal = marginal.iter().map(shown).collect::<Outcome<Vec<_>>>()?;
    if let Some(folder) = &args.out {
        write_counts(folder, &view.manifest().model.name, &counts)?;
    }
    let each = |count: &Count| {
        json!({
            "threshold": count.threshold,
            "pairs": count.pairs,
            "groups": count.groups,
            "grouped": count.grouped,
            "largest": count.largest,
            "chain": count.chain,
        })
    };
    show(
        settings,
        &json!({
            "collection": view.name(),
            "model": view.manifest().model.name,
            "images": view.len(),
            "by_threshold": counts.iter().map(each).collect::<Vec<_>>(),
            "marginal_at": at,
            "marginal": marginal,
        }),
    )?;
    if matches!(args.method.into(), Method::Hnsw) && !view.is_approximate() && !settings.quiet {
        note("this collection has no HNSW graph; every pair was compared");
    }
    Ok(Success::Done)
}

/// JSON, or a line for each value and each row.
fn show(settings: &Settings, result: &Value) -> Outcome<()> {
    if settings.json {
        return print_json(result);
    }
    let number = |value: &Value| match value {
        Value::Number(number) if number.is_f64() => {
            format!("{:.4}", number.as_f64().unwrap_or_default())
        }
        Value::String(text) => text.clone(),
        Value::Array(both) => format!(
            "[{}]",
            both.iter()
                .map(|value| format!("{:.4}", value.as_f64().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        value => value.to_string(),
    };
    let row = |value: &Value| {
        let fields = value.as_object().into_iter().flatten();
        fields
            .map(|(name, value)| format!("{name} {}", number(value)))
            .collect::<Vec<_>>()
            .join("  ")
    };
    for (name, value) in result.as_object().into_iter().flatten() {
        match value {
            Value::Array(rows) => rows.iter().try_for_each(|value| print(&row(value)))?,
            Value::Object(_) => print(&format!("{name:14} {}", row(value)))?,
            Value::Null => {}
            _ => print(&format!("{name:14} {}", number(value)))?,
        }
    }
    Ok(())
}

fn write_curve(folder: &Path, model: &str, curve: &[PairReport]) -> Outcome<()> {
    let mut csv = "threshold,called,found,copies,precision,recall\n".to_owned();
    for report in curve {
        let PairReport { threshold, called, found, copies } = report;
        let precision = match called {
            0 => String::new(),
            _ => format!("{:.6}", report.precision().percent() / 100.0),
        };
        let recall = report.recall().percent() / 100.0;
        let _ = writeln!(csv, "{threshold:.2},{called},{found},{copies},{precision},{recall:.6}");
    }
    let line = |name: &str, value: fn(&PairReport) -> f64, called: bool| Series {
        name: name.to_owned(),
        points: curve
            .iter()
            .filter(|report| !called || report.called > 0)
            .map(|report| (f64::from(report.threshold), value(report) / 100.0))
            .collect(),
    };
    let series = vec![
        line("precision", |report| report.precision().percent(), true),
        line("recall", |report| report.recall().percent(), false),
    ];
    let panel = Panel { title: "pairs called copies by similarity alone".to_owned(), series };
    write_both(folder, model, &csv, &[panel])
}

fn write_counts(folder: &Path, model: &str, counts: &[Count]) -> Outcome<()> {
    let mut csv = "threshold,pairs,groups,grouped,largest,chain\n".to_owned();
    for Count { threshold, pairs, groups, grouped, largest, chain } in counts {
        let _ = writeln!(csv, "{threshold:.2},{pairs},{groups},{grouped},{largest},{chain}");
    }
    let line = |name: &str, value: fn(&Count) -> usize| Series {
        name: name.to_owned(),
        points: counts.iter().map(|c| (f64::from(c.threshold), value(c) as f64)).collect(),
    };
    let panels = [
        Panel { title: "pairs".to_owned(), series: vec![line("pairs", |count| count.pairs)] },
        Panel {
            title: "images in groups".to_owned(),
            series: vec![
                line("all", |count| count.grouped),
                line("largest group", |count| count.largest),
                line("groups", |count| count.groups),
            ],
        },
    ];
    write_both(folder, model, &csv, &panels)
}

fn write_both(folder: &Path, model: &str, csv: &str, panels: &[Panel]) -> Outcome<()> {
    let svg = plot::svg(&format!("Duplicates at each threshold, {model}"), "similarity", panels);
    for (name, text) in [("calibration.csv", csv), ("calibration.svg", &svg)] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| cannot("write", &path, &error))?;
    }
    Ok(())
}

fn cannot(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot {action} {}: {error}", path.display()))
}
