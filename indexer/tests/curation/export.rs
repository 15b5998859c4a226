//! Exports: whole or not at all, checked, and without leaks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::world::{World, assert_same, curate, sample};
use indexer::IndexerError;
use indexer::curate::{ImageSet, Run, manifest};
use indexer::export::{
    self, Certificate, ExportInfo, ExportOptions, ExportReport, Files, Format, Selection,
    Verification,
};

const FORMATS: [Format; 6] = [
    Format::Parquet,
    Format::Jsonl,
    Format::Csv,
    Format::Imagefolder,
    Format::Webdataset,
    Format::Coco,
];

fn options(format: Format) -> ExportOptions {
    let (files, embeddings, strict) = (None, true, false);
    ExportOptions { format, files, embeddings, strict, shard_samples: 10, margin: 0.3 }
}

fn write(world: &World, out: &str, options: &ExportOptions) -> Result<ExportReport, IndexerError> {
    let run = Run::open(&world.path("run")).expect("a finished run");
    let (pool, excluded) = (world.set("pool"), [world.set("tests")]);
    let selection = Selection::Run { run: &run, pool: &pool, excluded: &excluded };
    let go_on = AtomicBool::new(false);
    export::export(&world.path(out), selection, options, &mut |_| {}, &go_on)
}

fn verify(world: &World, out: &str) -> Verification {
    let sets = |_: &ExportInfo| Ok(Some((world.set("pool"), vec![world.set("tests")])));
    export::verify(&world.path(out), sets, &AtomicBool::new(false)).expect("an export")
}

fn curated() -> World {
    let world = World::new();
    world.run("run", &sample()).expect("curates");
    world
}

fn names(folder: &Path) -> BTreeSet<String> {
    let names = std::fs::read_dir(folder).expect("list");
    names.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_format_has_manifest_card_and_certificate_and_is_the_same_every_time() {
    let world = curated();
    let kept = Run::open(&world.path("run")).expect("run").info().kept;
    for format in FORMATS {
        let name = format!("{format:?}");
        let report = write(&world, &name, &options(format)).expect("exports");
        assert_eq!((report.images, report.skipped.len()), (kept, 0));
        let folder = world.path(&name);
        let files = names(&folder);
        for file in ["manifest.jsonl", "README.md", "steps.svg", "certificate.json", "export.json"]
        {
            assert!(files.contains(file), "{name} has no {file}: {files:?}");
        }
        let own: &[&str] = match format {
            Format::Parquet => &["data.parquet"],
            Format::Jsonl => &["data.jsonl", "embeddings.npy"],
            Format::Csv => &["data.csv", "embeddings.npy"],
            Format::Imagefolder => &["images", "metadata.jsonl", "embeddings.npy"],
            Format::Webdataset => &["data-000000.tar", "data-000001.tar"],
            Format::Coco => &["annotations.json", "embeddings.npy"],
        };
        assert!(own.iter().all(|file| files.contains(*file)), "{name}: {files:?}");
        let lines = manifest::read(&folder.join("manifest.jsonl")).expect("manifest");
        assert_eq!(lines.len(), kept);
        assert!(lines.iter().all(|line| line.seed.is_some() && line.similarity.is_some()));
        let brings = matches!(format, Format::Imagefolder | Format::Webdataset);
        assert!(lines.iter().all(|line| line.file.is_some() == brings), "{name}");
        if format == Format::Imagefolder {
            for line in &lines {
                let file = folder.join(line.file.as_ref().expect("a file"));
                assert_eq!(std::fs::read(file).ok(), std::fs::read(line.path.to_path()).ok());
            }
        }
        let again = format!("{name}-again");
        write(&world, &again, &options(format)).expect("exports");
        // The card has the name of the folder.
        let card = std::fs::read_to_string(folder.join("README.md")).expect("card");
        std::fs::remove_file(folder.join("README.md")).expect("remove");
        std::fs::remove_file(world.path(&again).join("README.md")).expect("remove");
        std::fs::remove_file(folder.join("export.json")).expect("remove");
        std::fs::remove_file(world.path(&again).join("export.json")).expect("remove");
        assert_same(&folder, &world.path(&again));
        assert!(card.starts_with("---\npretty_name: "), "{card}");
        assert!(card.contains("| seeds | 15 | sample | 90 |"), "{card}");
        assert!(card.contains("## No leaks") && card.contains("02-relative-dedup"), "{card}");
    }
}

#[test]
fn the_certificate_is_of_all_pairs_compared_one_by_one() {
    let world = curated();
    let report = write(&world, "out", &options(Format::Jsonl)).expect("exports");
    let certificate = report.certificate.expect("sets were excluded");
    let (pool, tests) = (world.set("pool"), world.set("tests"));
    let lines = manifest::read(&world.path("out/manifest.jsonl")).expect("manifest");
    let vector = |set: &ImageSet, at: usize| {
        let image = &set.images()[at];
        set.view().vector(image.row, image.id).expect("a vector")
    };
    let mut similarities = Vec::new();
    for line in &lines {
        let kept = vector(&pool, pool.position(line.id).expect("there") as usize);
        for at in 0..tests.images().len() {
            let excluded = vector(&tests, at);
            let dot: f64 =
                kept.iter().zip(&excluded).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            similarities.push(dot);
        }
    }
    let max = similarities.iter().copied().fold(f64::MIN, f64::max);
    assert_eq!(certificate.pairs_compared, similarities.len() as u64);
    assert!((f64::from(certificate.max_similarity.expect("pairs")) - max).abs() < 1e-6);
    let floor = f64::from(certificate.threshold) - 0.3;
    let within = similarities.iter().filter(|s| **s >= floor).count();
    let near = similarities.iter().filter(|s| (**s - floor).abs() < 1e-6).count();
    assert!(certificate.pairs_within_margin.abs_diff(within) <= near);
    assert!(within > 0, "nothing to list in this test");
    assert_eq!(certificate.pairs.len(), certificate.pairs_within_margin);
    assert!(certificate.pairs.is_sorted_by(|a, b| a.similarity >= b.similarity));
    assert_eq!(certificate.leaks, 0);
    drop((pool, tests));
    let found = verify(&world, "out");
    assert!(found.problems.is_empty() && found.certificate_remade, "{:?}", found.problems);
}

#[test]
fn what_is_changed_in_an_export_is_found() {
    let world = curated();
    let sound = || {
        let _ = std::fs::remove_dir_all(world.path("out"));
        write(&world, "out", &options(Format::Imagefolder)).expect("exports");
        assert!(verify(&world, "out").problems.is_empty());
    };
    sound();
    let lines = manifest::read(&world.path("out/manifest.jsonl")).expect("manifest");
    let picture = PathBuf::from("out").join(lines[0].file.as_ref().expect("a file"));
    let picture = picture.to_str().expect("UTF-8");
    type Case<'a> = (&'a str, &'a dyn Fn(&Path), &'a str);
    let cases: [Case<'_>; 6] = [
        (
            picture,
            &|path| std::fs::write(path, "other").expect("write"),
            "is not what was exported",
        ),
        (picture, &|path| std::fs::remove_file(path).expect("remove"), "is missing"),
        (
            "out/more.png",
            &|path| std::fs::write(path, "x").expect("write"),
            "no part of the export",
        ),
        ("out/metadata.jsonl", &|path| std::fs::write(path, "").expect("write"), "is not what"),
        (
            "out/certificate.json",
            &|path| std::fs::remove_file(path).expect("remove"),
            "certificate is missing",
        ),
        (
            "out/manifest.jsonl",
            &|path| {
                let text = std::fs::read_to_string(path).expect("read");
                let (_, rest) = text.split_once('\n').expect("lines");
                std::fs::write(path, rest).expect("write");
            },
            "of other images than the manifest",
        ),
    ];
    for (name, change, words) in cases {
        sound();
        change(&world.path(name));
        let problems = verify(&world, "out").problems;
        assert!(problems.iter().any(|problem| problem.contains(words)), "{name}: {problems:?}");
    }
    sound();
    world.add("tests", 0, "newly excluded");
    let problems = verify(&world, "out").problems;
    assert!(problems.iter().any(|problem| problem.contains("export again")), "{problems:?}");
    // A leak that the certificate could not know of: an excluded set that grew by a kept image.
    let name = lines[1].path.to_path();
    let (class, stem) = (name.parent().and_then(Path::file_name), name.file_stem());
    let class = class.expect("a class").to_string_lossy().parse().expect("a number");
    world.add("tests", class, &stem.expect("a name").to_string_lossy());
    let problems = verify(&world, "out").problems;
    assert!(problems.iter().any(|problem| problem.contains("at or above")), "{problems:?}");
    // And it is not exported again.
    let error = write(&world, "leaky", &options(Format::Jsonl)).expect_err("a leak").to_string();
    assert!(error.contains("nothing was exported"), "{error}");
    assert!(!world.path("leaky").exists() && !world.path(".leaky.partial").exists());
}

#[test]
fn missing_and_changed_originals_are_left_out_or_fail_it_all() {
    let world = curated();
    let lines = manifest::read(&world.path("run/manifest.jsonl")).expect("manifest");
    std::fs::remove_file(lines[0].path.to_path()).expect("remove");
    std::fs::write(lines[1].path.to_path(), "changed").expect("write");
    for format in FORMATS {
        let name = format!("{format:?}");
        let report = write(&world, &name, &options(format)).expect("exports");
        assert_eq!(report.images, lines.len() - 2, "{name}");
        let reasons: BTreeSet<&str> = report.skipped.iter().map(|s| s.reason.as_str()).collect();
        let expected = ["the original has changed since it was indexed", "the original is missing"];
        assert_eq!(reasons, BTreeSet::from(expected), "{name}");
        assert!(verify(&world, &name).problems.is_empty(), "{name}");

        let strict = ExportOptions { strict: true, ..options(format) };
        let error = write(&world, "strict", &strict).expect_err("strict").to_string();
        assert!(error.contains("2 of the images cannot be exported"), "{error}");
        assert!(!world.path("strict").exists() && !world.path(".strict.partial").exists());
    }
}

#[test]
fn pictures_come_as_copies_hard_links_or_links() {
    let world = curated();
    for files in [Files::Copy, Files::Hardlink, Files::Symlink] {
        let name = format!("{files:?}");
        let chosen = ExportOptions { files: Some(files), ..options(Format::Coco) };
        write(&world, &name, &chosen).expect("exports");
        assert!(verify(&world, &name).problems.is_empty(), "{name}");
        let lines = manifest::read(&world.path(&name).join("manifest.jsonl")).expect("manifest");
        let file = world.path(&name).join(lines[0].file.as_ref().expect("a file"));
        assert_eq!(file.is_symlink(), files == Files::Symlink);
        let original = lines[0].path.to_path();
        let content = std::fs::read(&original).expect("read");
        std::fs::write(&original, "changed since").expect("write");
        let changed = verify(&world, &name).problems;
        assert_eq!(changed.is_empty(), files == Files::Copy, "{name}: {changed:?}");
        std::fs::write(&original, content).expect("write");
        assert!(verify(&world, &name).problems.is_empty(), "as it was");
    }
}

#[test]
fn nothing_is_overwritten_and_what_was_left_half_done_is_made_anew() {
    let world = curated();
    write(&world, "out", &options(Format::Csv)).expect("exports");
    let error = write(&world, "out", &options(Format::Csv)).expect_err("refused").to_string();
    assert!(error.contains("nothing is overwritten"), "{error}");
    std::fs::write(world.path("file"), "x").expect("write");
    let error = write(&world, "file", &options(Format::Csv)).expect_err("refused").to_string();
    assert!(error.contains("this is a file"), "{error}");
    assert!(write(&world, "file/below", &options(Format::Csv)).is_err());

    std::fs::create_dir_all(world.path("empty")).expect("create");
    write(&world, "empty", &options(Format::Csv)).expect("an empty folder is filled");
    let left = world.path(".next.partial/images/0000");
    std::fs::create_dir_all(&left).expect("create");
    std::fs::write(left.join("half.png"), "x").expect("write");
    write(&world, "next", &options(Format::Imagefolder)).expect("exports");
    assert!(verify(&world, "next").problems.is_empty());
    assert!(!world.path(".next.partial").exists());
}

#[test]
fn choices_that_do_not_go_together_are_refused() {
    let world = curated();
    let none = ExportOptions { files: Some(Files::None), ..options(Format::Imagefolder) };
    let links = ExportOptions { files: Some(Files::Symlink), ..options(Format::Webdataset) };
    let margin = ExportOptions { margin: -1.0, ..options(Format::Csv) };
    for (options, words) in [
        (none, "needs its pictures"),
        (links, "shards hold copies"),
        (margin, "no difference of cosines"),
    ] {
        let error = write(&world, "out", &options).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
        assert!(!world.path("out").exists());
    }
    let run = Run::open(&world.path("run")).expect("run");
    let pool = world.set("pool");
    let selection = Selection::Run { run: &run, pool: &pool, excluded: &[] };
    let go_on = AtomicBool::new(false);
    let result =
        export::export(&world.path("out"), selection, &options(Format::Csv), &mut |_| {}, &go_on);
    assert!(result.expect_err("refused").to_string().contains("nothing can be certified"));
    let stop = AtomicBool::new(true);
    let selection = Selection::Collection(&pool);
    let result =
        export::export(&world.path("out"), selection, &options(Format::Csv), &mut |_| {}, &stop);
    assert!(matches!(result, Err(IndexerError::Cancelled)));
    assert!(!world.path("out").exists() && !world.path(".out.partial").exists());
}

#[test]
fn a_whole_collection_is_exported_without_certificate() {
    let world = World::new();
    let pool = world.set("pool");
    let selection = Selection::Collection(&pool);
    let go_on = AtomicBool::new(false);
    let out = world.path("out");
    let report = export::export(&out, selection, &options(Format::Coco), &mut |_| {}, &go_on);
    let report = report.expect("exports");
    assert_eq!(report.images, pool.images().len());
    assert!(report.certificate.is_none());
    let coco: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("annotations.json")).expect("read"))
            .expect("JSON");
    let names: Vec<_> = coco["categories"]
        .as_array()
        .expect("categories")
        .iter()
        .map(|c| c["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(names.len(), 8);
    assert!(names.is_sorted());
    let annotation = &coco["annotations"][0];
    assert_eq!(annotation["bbox"], serde_json::json!([0, 0, 100, 100]));
    let found = export::verify(&out, |_| Ok(None), &go_on).expect("an export");
    assert!(found.problems.is_empty(), "{:?}", found.problems);
}

#[test]
fn review_is_honoured_by_the_next_export() {
    let world = curated();
    let mut run = Run::open(&world.path("run")).expect("run");
    let kept = run.rows().iter().find(|row| row.kept).expect("one").clone();
    run.decide(&[(indexer::curate::Verdict::Reject, kept.id.to_string())]).expect("rejects");
    let left = run.info().kept;
    drop(run);
    let report = write(&world, "out", &options(Format::Jsonl)).expect("exports");
    assert_eq!(report.images, left);
    let lines = manifest::read(&world.path("out/manifest.jsonl")).expect("manifest");
    assert!(lines.iter().all(|line| line.id != kept.id));
    let card = std::fs::read_to_string(world.path("out/README.md")).expect("card");
    assert!(card.contains("took 1 out"), "{card}");
    let certificate: Certificate =
        serde_json::from_slice(&std::fs::read(world.path("out/certificate.json")).expect("read"))
            .expect("a certificate");
    assert_eq!(certificate.kept.images, left);
    // The run is unchanged by all this.
    curate(&world.path("run"), &world.sources(), &sample(), &mut |_| {}).expect("curates");
}
