//! Repair of what a check found.

use std::path::Path;
use std::sync::Arc;

use super::report::Cure;
use super::survey::Survey;
use crate::catalog::{Catalog, Entry};
use crate::collection::layout::{Collections, Lock};
use crate::collection::progress::Progress;
use crate::collection::rewrite::{Rewrite, remove_folder};
use crate::collection::room;
use crate::error::{IoContext, Result};
use crate::id::ImageId;
use crate::manifest::Manifest;
use crate::vectors::inspect;

const STEP: u64 = 256;
const UNTOUCHED: &str = "the collection is as it was";
/// A commit number above all that can have been, where the last one is not known.
const FAR: u64 = 1 << 40;

/// Does what cures all that was found, and lists what it did. Nothing when nothing can.
pub(super) fn repair(
    collections: &Collections,
    folder: &Path,
    name: &str,
    lock: &Arc<Lock>,
    survey: &Survey,
    progress: &mut Progress<'_>,
) -> Result<Vec<String>> {
    let Some(manifest) = survey.manifest.as_ref().filter(|_| survey.cure < Cure::Backup) else {
        return Ok(Vec::new());
    };
    let mut actions = remove_leftovers(survey)?;
    if survey.cure == Cure::Copy {
        copy_sound(folder, manifest, survey, progress)?;
        actions.push(format!("copied {} sound images and made all else again", survey.owned.len()));
        actions.extend(survey.bad.iter().map(removed));
        return Ok(actions);
    }
    if survey.cure == Cure::None && !survey.lacks_graph {
        return Ok(actions);
    }
    let mut collection = collections.open_locked(name, folder.to_path_buf(), Arc::clone(lock))?;
    for (&id, reason) in &survey.bad {
        if collection.remove(id)? {
            actions.push(removed((&id, reason)));
        }
        if collection.uncommitted() as u64 >= STEP {
            collection.commit()?;
        }
    }
    // Before graphs are built, which read every vector.
    collection.commit()?;
    progress.step("building what is derived", 0, 0, "single images were removed")?;
    if survey.cure == Cure::Graphs || survey.lacks_graph {
        collection.derive_again()?;
        actions.push("built the graphs again".to_owned());
    } else {
        collection.finish()?;
    }
    Ok(actions)
}

fn removed((id, reason): (&ImageId, &String)) -> String {
    format!("removed image {id} ({reason}); `akin index` with its folder reads its file again")
}

fn remove_leftovers(survey: &Survey) -> Result<Vec<String>> {
    let mut actions = Vec::new();
    for path in &survey.leftovers {
        match path.is_dir() {
            true => remove_folder(path)?,
            false => std::fs::remove_file(path).io("remove", path)?,
        }
        actions.push(format!("removed {}", path.display()));
    }
    Ok(actions)
}

/// Copies all images and failures that are sound to new data, and swaps.
fn copy_sound(
    folder: &Path,
    manifest: &Manifest,
    survey: &Survey,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let data = folder.join(&manifest.data);
    let (dim, precision) = (manifest.model.dim, manifest.precision);
    let images = survey.owned.len();
    let used = room::folder_bytes(&data.join("catalog"))?;
    room::require(folder, room::needed(manifest, images, used))?;
    let catalog = Catalog::open(&data.join("catalog"))?;
    let wanted = survey.meta.map(|meta| meta.rows);
    let (rows, _) = inspect(&data.join("vectors"), dim, precision, wanted)?;
    let fill = |rewrite: &mut Rewrite| {
        let mut done = 0;
        for entry in catalog.entries() {
            match entry?.1 {
                Entry::Image(id, Some(record)) if !survey.bad.contains_key(&id) => {
                    if done % STEP == 0 {
                        progress.step("copying images", done, images, UNTOUCHED)?;
                    }
                    let vector = rows.read(record.row, id)?;
                    rewrite.put(id, record, &vector)?;
                    done += 1;
                }
                // They come before images; one at an image's path gives way to it.
                Entry::Failure(_, Some(failure)) => rewrite.fail(failure)?,
                _ => {}
            }
        }
        Ok(())
    };
    let rewrite = Rewrite::filled(folder, dim, precision, fill)?;
    drop((catalog, rows));
    let meta = survey.meta;
    let next_id = survey.free_id.max(meta.map_or(0, |meta| meta.next_id));
    let sequence = meta.map_or(FAR, |meta| meta.sequence);
    rewrite.swap(manifest, next_id, sequence).map(drop)
}
