//! `akin search`.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use engine::Embedder;
use engine::decode::{DecodeOptions, decode};
use indexer::{Collections, Hit, Manifest, Payload, pipeline};
use serde_json::{Value, json};

use crate::args::{InputArgs, SearchArgs};
use crate::embedder;
use crate::outcome::{Failure, Outcome, Success, print, print_json};
use crate::settings::Settings;

pub fn run(settings: &Settings, args: &SearchArgs) -> Outcome {
    let collections = Collections::new(&settings.home);
    let manifest = collections.manifest(&args.collection)?;
    let options = DecodeOptions { icc: manifest.model.icc, ..DecodeOptions::default() };

    let start = Instant::now();
    let bytes = read(&args.image, options.limits.max_bytes)?;
    let picture = decode(&bytes, &options)
        .map_err(|error| Failure::Failed(format!("{}: {error}", args.image.display())))?;
    let decoded = start.elapsed();

    let model = embedder::for_collection(settings, &InputArgs::NONE, &manifest)?.embedder;
    let collection = collections.open(&args.collection)?;
    collection.check_model(model.identity())?;
    let opened = start.elapsed();

    let query = model.embed(&[model.prepare(&picture.image)?])?.remove(0);
    let embedded = start.elapsed();
    let hits = collection.search(&query, args.k)?;
    let searched = start.elapsed();

    if settings.json {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let hits: Vec<_> =
            hits.iter().enumerate().map(|(i, hit)| hit_json(i + 1, hit, &manifest)).collect();
        print_json(&json!({
            "collection": args.collection,
            "model": manifest.model.name,
            "took_ms": {
                "decode": ms(decoded),
                "open": ms(opened - decoded),
                "embed": ms(embedded - opened),
                "search": ms(searched - embedded),
                "total": ms(searched),
            },
            "hits": hits,
        }))?;
    } else {
        for (i, hit) in hits.iter().enumerate() {
            print(&hit_line(i + 1, hit, &manifest, &hit.record.path.to_string()))?;
        }
    }
    Ok(Success::Done)
}

/// What is attached to an image, after its path.
fn in_words(payload: &Payload) -> String {
    payload.iter().fold(String::new(), |line, (name, value)| match value {
        Value::String(text) => format!("{line}  {name}={text}"),
        Value::Number(number) if number.is_f64() => {
            format!("{line}  {name}={:.4}", number.as_f64().unwrap_or_default())
        }
        value => format!("{line}  {name}={value}"),
    })
}

/// A hit as people get it: rank, similarity, percentile, path.
pub fn hit_line(rank: usize, hit: &Hit, manifest: &Manifest, path: &str) -> String {
    let percentile = match manifest.percentile(hit.similarity) {
        Some(percentile) => format!("{percentile:5.1} %"),
        None => "      -".to_owned(),
    };
    let similarity = hit.similarity;
    let payload = in_words(&hit.record.payload);
    format!("{rank:3}  {similarity:.4}  {percentile}  {path}{payload}")
}

/// A hit as programs get it.
pub fn hit_json(rank: usize, hit: &Hit, manifest: &Manifest) -> serde_json::Value {
    json!({
        "rank": rank,
        "id": hit.id,
        "path": hit.record.path.to_string(),
        "similarity": hit.similarity,
        "percentile": manifest.percentile(hit.similarity),
        "width": hit.record.width,
        "height": hit.record.height,
        "payload": hit.record.payload,
    })
}

fn read(image: &Path, max_bytes: u64) -> Outcome<Vec<u8>> {
    let failed = |reason: String| Failure::Failed(format!("{}: {reason}", image.display()));
    if image == Path::new("-") {
        let mut bytes = Vec::new();
        // One byte more than allowed, so that the decoder sees and names an excess.
        std::io::stdin().lock().take(max_bytes + 1).read_to_end(&mut bytes).map_err(|error| {
            Failure::Failed(format!("the picture cannot be read from stdin: {error}"))
        })?;
        return Ok(bytes);
    }
    if image
        .to_str()
        .is_some_and(|text| text.starts_with("http://") || text.starts_with("https://"))
    {
        return Err(failed("searching by URL is not possible yet; download the picture".into()));
    }
    if image.is_dir() {
        return Err(failed("this is a folder; a search takes one picture".into()));
    }
    pipeline::read_limited(image, max_bytes).map_err(failed)
}
