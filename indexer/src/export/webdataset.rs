//! WebDataset: tar files whose entries that share a name are one sample.
//!
//! The same images give the same bytes: names are ids, times and owners are zero.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use tempfile::NamedTempFile;

use super::entries::Entry;
use super::rows::Row;
use super::{ExportOptions, Selection, files, names, npy};
use crate::curate::stop_if;
use crate::durable::{persist, temporary_beside};
use crate::error::{IndexerError, IoContext, Result};
use crate::pipeline::Skipped;

/// Originals read at a time.
const BLOCK: usize = 64;

type Shard = tar::Builder<BufWriter<NamedTempFile>>;

/// Writes shards; entries whose original is missing or changed are left out.
pub(super) fn write(
    folder: &Path,
    selection: &Selection<'_>,
    entries: Vec<Entry>,
    options: &ExportOptions,
    on_done: &mut dyn FnMut(usize),
    cancel: &AtomicBool,
) -> Result<(Vec<Entry>, Vec<Skipped>)> {
    let mut placed: Vec<Entry> = Vec::with_capacity(entries.len());
    let mut skipped = Vec::new();
    let mut shard: Option<Shard> = None;
    let name = |number: usize| format!("data-{number:06}.tar");
    let mut entries = entries.into_iter();
    loop {
        stop_if(cancel)?;
        let block: Vec<Entry> = entries.by_ref().take(BLOCK).collect();
        if block.is_empty() {
            break;
        }
        let originals: Vec<_> = block.par_iter().map(files::read).collect();
        for (mut entry, original) in block.into_iter().zip(originals) {
            on_done(1);
            let original = match original {
                Ok(original) => original,
                Err(gone) => {
                    skipped.push(gone);
                    continue;
                }
            };
            let number = placed.len() / options.shard_samples;
            let path = folder.join(name(number));
            if placed.len().is_multiple_of(options.shard_samples) {
                finish(shard.take(), &folder.join(name(number.saturating_sub(1))))?;
                shard = Some(tar::Builder::new(BufWriter::new(temporary_beside(&path)?)));
            }
            let Some(shard) = &mut shard else { continue };
            let key = format!("{:012}", entry.line.id.0);
            let extension = names::extension(&entry.line.path.to_path());
            entry.line.file = Some(format!("{}/{key}.{extension}", name(number)));
            let json = serde_json::to_vec(&Row::from(&entry))
                .map_err(|error| IndexerError::InvalidRequest(error.to_string()))?;
            add(shard, &format!("{key}.{extension}"), &original).io("write", &path)?;
            add(shard, &format!("{key}.json"), &json).io("write", &path)?;
            if options.embeddings {
                let vector = selection.view().vector(entry.row, entry.line.id)?;
                add(shard, &format!("{key}.npy"), &npy::one(&vector)).io("write", &path)?;
            }
            placed.push(entry);
        }
    }
    let last = placed.len().saturating_sub(1) / options.shard_samples;
    finish(shard, &folder.join(name(last)))?;
    Ok((placed, skipped))
}

fn add(shard: &mut Shard, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    shard.append(&header, bytes)
}

fn finish(shard: Option<Shard>, path: &Path) -> Result<()> {
    let Some(shard) = shard else { return Ok(()) };
    let mut writer = shard.into_inner().io("write", path)?;
    writer.flush().io("write", path)?;
    let file = writer.into_inner().map_err(|error| error.into_error()).io("write", path)?;
    persist(file, path)
}
