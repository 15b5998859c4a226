//! COCO: images, and the class of an image as one annotation that covers all of it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::entries::Entry;
use crate::durable::replace_file;
use crate::error::Result;

#[derive(Serialize)]
struct Dataset<'a> {
    info: Info,
    licenses: [(); 0],
    images: Vec<Image<'a>>,
    annotations: Vec<Annotation>,
    categories: Vec<Category<'a>>,
}

#[derive(Serialize)]
struct Info {
    description: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Image<'a> {
    id: u64,
    file_name: String,
    width: u32,
    height: u32,
    sha256: &'a str,
    seed: Option<&'a str>,
    similarity: Option<f32>,
}

#[derive(Serialize)]
struct Annotation {
    id: u64,
    image_id: u64,
    category_id: u64,
    /// Left, top, width, height: the whole image.
    bbox: [u32; 4],
    area: u64,
    iscrowd: u8,
    segmentation: [(); 0],
}

#[derive(Serialize)]
struct Category<'a> {
    id: u64,
    name: &'a str,
    supercategory: &'static str,
}

/// Categories are classes in the order of their names, from 1.
pub(super) fn write(path: &Path, entries: &[Entry]) -> Result<()> {
    let labels: Vec<Option<String>> = entries.iter().map(Entry::label).collect();
    let mut classes: BTreeMap<&str, u64> =
        labels.iter().flatten().map(|label| (label.as_str(), 0)).collect();
    for (id, number) in (1..).zip(classes.values_mut()) {
        *number = id;
    }
    let image = |entry| {
        let Entry { line, width, height, .. }: &Entry = entry;
        Image {
            id: line.id.0,
            file_name: line.file.clone().unwrap_or_else(|| line.path.to_string()),
            width: *width,
            height: *height,
            sha256: line.sha256.as_str(),
            seed: line.seed.as_ref().map(|seed| seed.set.as_str()),
            similarity: line.similarity,
        }
    };
    let annotation = |(entry, label): (&Entry, &Option<String>)| {
        let category_id = *classes.get(label.as_deref()?)?;
        let Entry { line, width, height, .. } = entry;
        Some(Annotation {
            id: line.id.0 + 1,
            image_id: line.id.0,
            category_id,
            bbox: [0, 0, *width, *height],
            area: u64::from(*width) * u64::from(*height),
            iscrowd: 0,
            segmentation: [],
        })
    };
    let dataset = Dataset {
        info: Info { description: "exported by akin", version: env!("CARGO_PKG_VERSION") },
        licenses: [],
        images: entries.iter().map(image).collect(),
        annotations: entries.iter().zip(&labels).filter_map(annotation).collect(),
        categories: classes
            .iter()
            .map(|(&name, &id)| Category { id, name, supercategory: "" })
            .collect(),
    };
    replace_file(path, |file| {
        serde_json::to_writer(&mut *file, &dataset)?;
        file.write_all(b"\n")
    })
}
