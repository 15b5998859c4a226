//! `akin bench`: the speed of the model (`embed`), of files to a collection (`pipeline`), and of making
//! and searching a collection of vectors given.

mod embed;
mod pipeline;

use std::path::Path;
use std::time::{Duration, Instant};

use engine::{Embedding, ModelIdentity};
use indexer::{
    Collections, ContentHash, CreateOptions, FileStamp, Locator, NewImage, Payload,
    table::NpyReader,
};
use serde_json::json;

use crate::args::{BenchCommand, BenchIndexArgs, BenchSearchArgs};
use crate::outcome::{Failure, Outcome, Success, note, print, print_json};
use crate::progress::CANCELLED;
use crate::settings::Settings;
use crate::usage::{cpu_time, memory};

/// Rows read, and images committed, at a time.
const BLOCK: usize = 1000;
/// What the vectors' model is called; such a collection holds nothing to keep.
const MODEL: &str = "bench";

pub fn run(settings: &Settings, command: &BenchCommand) -> Outcome {
    match command {
        BenchCommand::Embed(args) => embed::run(settings, args),
        BenchCommand::Pipeline(args) => pipeline::run(settings, args),
        BenchCommand::Index(args) => index(settings, args),
        BenchCommand::Search(args) => search(settings, args),
    }
}

fn index(settings: &Settings, args: &BenchIndexArgs) -> Outcome {
    let mut vectors = NpyReader::open(&args.vectors)?;
    let collections = Collections::new(&settings.home);
    if args.replace && collections.exists(&args.collection)? {
        if collections.manifest(&args.collection)?.model.name != MODEL {
            return Err(Failure::Failed(format!(
                "`{}` was not made by `akin bench index` and is left alone; choose another name",
                args.collection
            )));
        }
        collections.delete(&args.collection)?;
    }
    let identity = ModelIdentity {
        name: MODEL.to_owned(),
        weights_sha256: ContentHash::of(b"akin bench").as_str().to_owned(),
        dim: vectors.dim(),
        pooling: engine::Pooling::default(),
        pos_embed: engine::vit::PosEmbedRule::default(),
        preprocess: engine::Preprocess::default(),
        icc: engine::decode::IccPolicy::Ignore,
        precision: engine::Precision::F32,
        decode: engine::decode::DecodeMode::Exact,
    };
    let options = CreateOptions { ann_from: args.ann_from, ..CreateOptions::default() };
    let (start, cpu) = (Instant::now(), cpu_time());
    let mut collection = collections.create(&args.collection, &identity, options)?;
    let mut row = 0;
    loop {
        let block = vectors.next_rows(BLOCK)?;
        if block.is_empty() {
            break;
        }
        for values in block.chunks_exact(vectors.dim()) {
            // Rows of two collections are not the same file.
            let name = format!("/bench/{}/{row:010}", args.collection);
            let image = NewImage {
                path: Locator::from(Path::new(&name)),
                sha256: ContentHash::of(name.as_bytes()),
                stamp: FileStamp { size: 0, mtime_ns: 0 },
                width: 1,
                height: 1,
                warning: None,
                payload: Payload::new(),
            };
            collection.put(image, &Embedding::normalised(values.to_vec())?)?;
            row += 1;
        }
        collection.commit()?;
        if CANCELLED.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Failure::Failed("stopped".to_owned()));
        }
    }
    let stored = start.elapsed();
    collection.finish()?;
    let (build, cpu) = (start.elapsed(), cpu_time().saturating_sub(cpu));
    let memory = memory();
    if settings.json {
        print_json(&json!({
            "collection": args.collection,
            "images": row,
            "store_s": stored.as_secs_f64(),
            "build_s": build.as_secs_f64(),
            "build_cpu_s": cpu.as_secs_f64(),
            "rss_bytes": memory.resident,
        }))?;
    } else {
        print(&format!(
            "{row} vectors stored in {:.1} s, searchable through {} in {:.1} s ({:.1} s of CPU)",
            stored.as_secs_f64(),
            if collection.view().is_approximate() { "HNSW" } else { "exact search" },
            build.as_secs_f64(),
            cpu.as_secs_f64()
        ))?;
    }
    Ok(Success::Done)
}

fn search(settings: &Settings, args: &BenchSearchArgs) -> Outcome {
    let mut file = NpyReader::open(&args.queries)?;
    let values = file.next_rows(file.rows())?;
    let queries: Vec<Embedding> = values
        .chunks_exact(file.dim())
        .map(|values| Embedding::normalised(values.to_vec()))
        .collect::<engine::Result<_>>()?;
    if queries.is_empty() {
        return Err(Failure::Failed(format!("{} has no rows", args.queries.display())));
    }
    let before = memory();
    let start = Instant::now();
    let collection = Collections::new(&settings.home).open(&args.collection)?;
    let opened = start.elapsed();
    let reader = collection.reader();
    let mut times = Vec::with_capacity(queries.len());
    let mut found = Vec::with_capacity(queries.len());
    let mut round = |keep: bool| -> Outcome<()> {
        for query in &queries {
            let start = Instant::now();
            let ids: Vec<u64> = if args.exact {
                let near = reader.view().nearest_exact(query.as_slice(), args.k, None)?;
                near.iter().map(|near| near.id.0).collect()
            } else {
                let hits = reader.search(query, args.k)?;
                hits.iter().map(|hit| hit.id.0).collect()
            };
            if keep {
                times.push(start.elapsed());
                found.push(ids);
            }
        }
        Ok(())
    };
    // The first time pays for pages that were not in memory.
    round(false)?;
    let (start, cpu) = (Instant::now(), cpu_time());
    round(true)?;
    let (wall, cpu) = (start.elapsed(), cpu_time().saturating_sub(cpu));
    let memory = memory();
    let count = queries.len() as f64;
    let us = |duration: Duration| duration.as_secs_f64() / count * 1e6;
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    if settings.json {
        print_json(&json!({
            "collection": args.collection,
            "images": collection.len(),
            "approximate": collection.view().is_approximate() && !args.exact,
            "queries": queries.len(),
            "k": args.k,
            "open_ms": opened.as_secs_f64() * 1e3,
            "us": us(wall),
            "cpu_us": us(cpu),
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "rss_bytes": memory.resident,
            "anonymous_bytes": memory.anonymous,
            "memory_bytes": memory.resident.saturating_sub(before.resident),
            "found": found,
        }))?;
        return Ok(Success::Done);
    }
    print(&format!(
        "{} queries over {} images, k {}: {:.0} us each ({:.0} us of CPU), p50 {:.0}, p99 {:.0}",
        queries.len(),
        collection.len(),
        args.k,
        us(wall),
        us(cpu),
        at(0.5),
        at(0.99)
    ))?;
    note(&format!(
        "opened in {:.0} ms; {} MiB resident, {} MiB of it not backed by files",
        opened.as_secs_f64() * 1e3,
        memory.resident >> 20,
        memory.anonymous >> 20
    ));
    Ok(Success::Done)
}
