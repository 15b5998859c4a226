//! `akin search`.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use engine::decode::{DecodeLimits, decode};
use engine::{DinoEmbedder, Embedder};
use indexer::fetch::{FetchOptions, fetch};
use indexer::filter::Filter;
use indexer::search::crop::Crop;
use indexer::search::vector_file::read_vector;
use indexer::search::{Example, Scoring, SearchHit, SearchRequest, SearchResponse, search_newest};
use indexer::{Collections, Hit, ImageId, Manifest, Payload, pipeline};
use serde_json::{Value, json};

use crate::args::{InputArgs, ScoringArg, SearchArgs};
use crate::embedder;
use crate::outcome::{Failure, Outcome, Success, print, print_json};
use crate::settings::Settings;

/// Time spent on each step.
#[derive(Default)]
struct Took {
    decode: Duration,
    model: Duration,
    embed: Duration,
}

/// An example as typed.
enum Typed<'a> {
    Id(u64),
    Vector(&'a Path),
    Picture(&'a Path, Option<&'a Crop>),
}

pub fn run(settings: &Settings, args: &SearchArgs) -> Outcome {
    let start = Instant::now();
    // What can be wrong with the words is said before anything is opened.
    let filter = args.filter.as_deref().map(Filter::parse).transpose();
    let filter = filter.map_err(|error| Failure::Usage(error.message))?;
    let (positive, negative) = typed(args)?;

    let collections = Collections::new(&settings.home);
    let manifest = collections.manifest(&args.collection)?;
    let mut examples = Examples {
        settings,
        manifest: &manifest,
        allow_private: args.allow_private_addresses,
        model: None,
        took: Took::default(),
    };
    let positive =
        positive.into_iter().map(|typed| examples.read(typed)).collect::<Outcome<_>>()?;
    let negative =
        negative.into_iter().map(|typed| examples.read(typed)).collect::<Outcome<_>>()?;
    let Examples { model, took, .. } = examples;

    let before = Instant::now();
    let collection = collections.open(&args.collection)?;
    if let Some(model) = &model {
        collection.check_model(model.identity())?;
    }
    let opened = before.elapsed();

    let plain = args.more_like.is_empty() && args.without.is_empty();
    let request = SearchRequest {
        positive,
        negative,
        k: args.k,
        offset: args.offset,
        cursor: args.cursor.clone(),
        filter,
        min_similarity: args.min_similarity,
        hide_duplicates: args.hide_duplicates,
        diversity: args.diversity,
        exclude: args.exclude.iter().copied().map(ImageId).collect(),
        scoring: match args.scoring {
            ScoringArg::Average => Scoring::Average,
            ScoringArg::Best => Scoring::Best,
        },
        include_examples: Some(plain || args.include_examples),
        exact: args.exact,
    };
    let before = Instant::now();
    let response = search_newest(&collection.reader(), &request, None)?;
    let searched = before.elapsed();

    if !settings.json {
        return print_lines(&response);
    }
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    print_json(&json!({
        "collection": args.collection,
        "model": manifest.model.name,
        "took_ms": {
            "decode": ms(took.decode),
            "open": ms(took.model + opened),
            "embed": ms(took.embed),
            "search": ms(searched),
            "total": ms(start.elapsed()),
        },
        "exact": response.exact,
        "next_cursor": response.next_cursor,
        "hits": response.hits,
    }))?;
    Ok(Success::Done)
}

/// The examples of a command line: positive and negative.
fn typed(args: &SearchArgs) -> Outcome<(Vec<Typed<'_>>, Vec<Typed<'_>>)> {
    // A number is an id; a file called like one is written ./12.
    fn each(words: &[String]) -> impl Iterator<Item = Typed<'_>> {
        words.iter().map(|word| match word.parse() {
            Ok(id) => Typed::Id(id),
            Err(_) => Typed::Picture(Path::new(word), None),
        })
    }
    let mut positive = Vec::new();
    positive.extend(args.image.as_deref().map(|path| Typed::Picture(path, args.crop.as_ref())));
    positive.extend(args.id.map(Typed::Id));
    positive.extend(args.vector.as_deref().map(Typed::Vector));
    positive.extend(each(&args.more_like));
    if positive.is_empty() {
        return Err(Failure::Usage(
            "there is nothing to search with: give IMAGE, --id, --vector or --more-like".to_owned(),
        ));
    }
    Ok((positive, each(&args.without).collect()))
}

/// Turns what was typed into examples; opens the model with the first picture.
struct Examples<'a> {
    settings: &'a Settings,
    manifest: &'a Manifest,
    /// Whether pictures may be fetched from private networks.
    allow_private: bool,
    model: Option<DinoEmbedder>,
    took: Took,
}

impl Examples<'_> {
    fn read(&mut self, typed: Typed<'_>) -> Outcome<Example> {
        match typed {
            Typed::Id(id) => Ok(Example::Id(ImageId(id))),
            Typed::Vector(path) => Ok(Example::Vector(read_vector(path)?)),
            Typed::Picture(path, crop) => self.embed(path, crop),
        }
    }

    fn embed(&mut self, path: &Path, crop: Option<&Crop>) -> Outcome<Example> {
        let start = Instant::now();
        let limits = DecodeLimits::default();
        let bytes = read(path, limits.max_bytes, self.allow_private)?;
        self.took.decode += start.elapsed();

        let start = Instant::now();
        let model = match self.model.take() {
            Some(model) => model,
            None => {
                embedder::for_collection(self.settings, &InputArgs::NONE, self.manifest)?.embedder
            }
        };
        let model = self.model.insert(model);
        self.took.model += start.elapsed();

        let start = Instant::now();
        let options = match crop {
            None => model.input_options(),
            // A part of the picture: of all pixels.
            Some(_) => model.decode_options(),
        };
        let decoded = decode(&bytes, &options)
            .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
        let part = crop.map(|crop| crop.apply(&decoded.image)).transpose()?;
        self.took.decode += start.elapsed();

        let start = Instant::now();
        let pixels = match part {
            None => model.prepare_decoded(&decoded)?,
            Some(part) => model.prepare(&part)?,
        };
        let embedding = model.embed(&[pixels])?.remove(0);
        self.took.embed += start.elapsed();
        Ok(Example::Vector(embedding.as_slice().to_vec()))
    }
}

fn print_lines(response: &SearchResponse) -> Outcome {
    for hit in &response.hits {
        let SearchHit { rank, similarity, percentile, record, duplicates, .. } = hit;
        let more = match duplicates.as_ref().map(Vec::len) {
            None | Some(0) => String::new(),
            Some(1) => "  (and 1 near-duplicate)".to_owned(),
            Some(count) => format!("  (and {count} near-duplicates)"),
        };
        let path = record.path.to_string();
        print(&(line(*rank, *similarity, *percentile, &path, &record.payload) + &more))?;
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

fn line(
    rank: usize,
    similarity: f32,
    percentile: Option<f32>,
    path: &str,
    payload: &Payload,
) -> String {
    let percentile = match percentile {
        Some(percentile) => format!("{percentile:5.1} %"),
        None => "      -".to_owned(),
    };
    let payload = in_words(payload);
    format!("{rank:3}  {similarity:.4}  {percentile}  {path}{payload}")
}

/// A hit as people get it: rank, similarity, percentile, path.
pub fn hit_line(rank: usize, hit: &Hit, manifest: &Manifest, path: &str) -> String {
    let percentile = manifest.percentile(hit.similarity);
    line(rank, hit.similarity, percentile, path, &hit.record.payload)
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

fn read(image: &Path, max_bytes: u64, allow_private: bool) -> Outcome<Vec<u8>> {
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
        // Robots are asked not to gather; this is one picture, which is not kept.
        let options =
            FetchOptions { ignore_robots: true, allow_private, ..FetchOptions::default() };
        return fetch(&image.to_string_lossy(), max_bytes, &options).map_err(failed);
    }
    if image.is_dir() {
        return Err(failed("this is a folder; a search takes one picture".into()));
    }
    pipeline::read_limited(image, max_bytes).map_err(failed)
}
