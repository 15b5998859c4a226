//! The dataset card: what is in an export and how it came about, for people and for the hub.

use std::fmt::Write;
use std::path::Path;

use super::entries::Entry;
use super::{CERTIFICATE, Certificate, ExportOptions, Format, Selection};
use crate::curate::RunInfo;
use crate::durable::replace_file;
use crate::error::Result;

const PLOT: &str = "steps.svg";

/// Writes `README.md`, and `steps.svg` for a run.
pub(super) fn write(
    folder: &Path,
    name: &str,
    selection: &Selection<'_>,
    entries: &[Entry],
    (options, certificate): (&ExportOptions, Option<&Certificate>),
) -> Result<()> {
    let brought = entries.iter().any(|entry| entry.line.file.is_some());
    let mut text = header(name, entries.len(), options.format, brought);
    let manifest = selection.view().manifest();
    let _ = writeln!(
        text,
        "# {name}\n\n{} images, exported by akin {} as `{}`.\n\nEmbeddings are of model \
         `{}`, {} values, fingerprint `{}`. Similarities are cosines of these.\n\n`manifest.jsonl` \
         has one object for every image: `id`, `path`, `file`, `sha256`, `seed`, `similarity`, \
         `step`. `akin export verify` checks all files.\n",
        entries.len(),
        env!("CARGO_PKG_VERSION"),
        format_name(options.format),
        manifest.model.name,
        manifest.model.dim,
        manifest.fingerprint
    );
    if let Selection::Run { run, .. } = selection {
        describe(&mut text, run.info());
        let svg = plot(run.info());
        replace_file(&folder.join(PLOT), |file| file.write_all(svg.as_bytes()))?;
    }
    if let Some(certificate) = certificate {
        certify(&mut text, certificate);
    }
    replace_file(&folder.join("README.md"), |file| file.write_all(text.as_bytes()))
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Parquet => "parquet",
        Format::Jsonl => "jsonl",
        Format::Csv => "csv",
        Format::Imagefolder => "imagefolder",
        Format::Webdataset => "webdataset",
        Format::Coco => "coco",
    }
}

/// The YAML that the Hugging Face hub and `datasets` read.
fn header(name: &str, images: usize, format: Format, brought: bool) -> String {
    let size = match images {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        1_000_000..10_000_000 => "1M<n<10M",
        _ => "n>10M",
    };
    let files: &[&str] = match format {
        Format::Parquet => &["data.parquet"],
        Format::Jsonl => &["data.jsonl"],
        Format::Csv => &["data.csv"],
        Format::Imagefolder => &["metadata.jsonl", "images/**"],
        Format::Webdataset => &["data-*.tar"],
        Format::Coco if brought => &["images/**"],
        Format::Coco => &["annotations.json"],
    };
    let files: String =
        files.iter().fold(String::new(), |all, file| format!("{all}\n    - \"{file}\""));
    // Quoted as JSON, which YAML reads.
    let name = serde_json::Value::from(name);
    format!(
        "---\npretty_name: {name}\nsize_categories:\n- {size}\ntags:\n- akin\n- image\nconfigs:\n- \
         config_name: default\n  data_files:\n  - split: train\n    path:{files}\n---\n\n"
    )
}

fn describe(text: &mut String, info: &RunInfo) {
    let _ = writeln!(text, "## How it was curated\n");
    let _ = writeln!(text, "![Images left after each step]({PLOT})\n");
    let _ = writeln!(
        text,
        "| step | images before | images after | threshold |\n| --- | ---: | ---: | ---: |"
    );
    for step in &info.steps {
        let threshold = step.threshold.map_or_else(String::new, |t| format!("{t:.4}"));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {threshold} |",
            step.folder, step.images_in, step.images_out
        );
    }
    if info.accepted + info.rejected > 0 {
        let _ = writeln!(
            text,
            "\nReview let {} images in that the steps had dropped, and took {} out.",
            info.accepted, info.rejected
        );
    }
    let _ = writeln!(
        text,
        "\nPool: `{}`, {} images. Every one of them is in the run's `ledger.parquet`, with the \
         reason why it is in or out.",
        info.pool.collection, info.pool.images
    );
    if !info.accounts.is_empty() {
        let _ = writeln!(
            text,
            "\n| seed set | seed images | retrieval | found | collisions | retrieved | left after \
             later steps | counted elsewhere | in the result |\n| --- | ---: | --- | ---: | ---: | \
             ---: | ---: | ---: | ---: |"
        );
        for account in &info.accounts {
            let of = &account.retrieved;
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                cell(&of.seeds),
                of.images,
                of.method,
                of.found,
                of.collisions,
                of.retrieved,
                account.left,
                account.shared,
                account.kept
            );
        }
    }
    let _ = writeln!(text, "\nParameters:\n\n```json");
    let config = serde_json::to_string_pretty(&info.config).unwrap_or_default();
    let _ = writeln!(text, "{config}\n```\n");
}

fn certify(text: &mut String, certificate: &Certificate) {
    let Certificate { threshold, margin, pairs_within_margin, .. } = certificate;
    let max = certificate.max_similarity.map_or("none".to_owned(), |max| format!("{max:.4}"));
    let _ = writeln!(
        text,
        "## No leaks\n\nAll {} pairs of an image here and an excluded image were compared. The \
         highest similarity is {max}, below the threshold {threshold:.4}; {pairs_within_margin} \
         pairs are within {margin} of it. Details: [{CERTIFICATE}]({CERTIFICATE}).\n",
        certificate.pairs_compared
    );
    for side in &certificate.excluded {
        let _ = writeln!(text, "- excluded: `{}`, {} images", cell(&side.name), side.images);
    }
}

/// Text that cannot end a table's cell.
fn cell(text: &str) -> String {
    text.replace(['|', '\n', '`'], "_")
}

/// Bars: images left after each step.
fn plot(info: &RunInfo) -> String {
    const BAR: f64 = 24.0;
    const LEFT: f64 = 170.0;
    const WIDTH: f64 = 420.0;
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let mut bars = vec![("pool", info.pool.images)];
    bars.extend(info.steps.iter().map(|step| (step.folder.as_str(), step.images_out)));
    bars.push(("result", info.kept));
    let most = bars.iter().map(|bar| bar.1).max().unwrap_or(1).max(1) as f64;
    let height = 40.0 + bars.len() as f64 * BAR;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 680 {height}\" width=\"680\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\" \
         role=\"img\">\n<title>Images left after each step</title>\n<rect width=\"100%\" \
         height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (i, (name, images)) in bars.iter().enumerate() {
        let top = 16.0 + i as f64 * BAR;
        let width = WIDTH * *images as f64 / most;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect x=\"{LEFT}\" \
             y=\"{top}\" width=\"{width:.1}\" height=\"18\" fill=\"#0072b2\"/><text x=\"{:.1}\" \
             y=\"{:.1}\">{images}</text>",
            LEFT - 8.0,
            top + 13.0,
            escape(name),
            LEFT + width + 6.0,
            top + 13.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}
