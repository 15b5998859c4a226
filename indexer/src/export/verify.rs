//! An export checked again: its files against their hashes, its certificate against collections.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde::Serialize;
use walkdir::WalkDir;

use super::certificate::{Comparison, files_sha256};
use super::entries::Entry;
use super::files::hash_file;
use super::{
    CERTIFICATE, Certificate, Content, EXPORT_FILE, EXPORT_FORMAT, ExportInfo, Files, LOCK,
    MANIFEST,
};
use crate::curate::{ImageSet, manifest};
use crate::error::{IndexerError, IoContext, Result};

/// What a check of an export found.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// What the export says it is.
    #[serde(skip)]
    pub info: ExportInfo,
    /// Files read and compared with their hashes.
    pub files: usize,
    /// What is wrong, in sentences; nothing in a sound export.
    pub problems: Vec<String>,
    /// The certificate, when there is one.
    #[serde(skip)]
    pub certificate: Option<Certificate>,
    /// Whether the certificate was made again from the collections, and compared.
    pub certificate_remade: bool,
}

/// Every file below an export being made, but its originals.
pub(super) fn contents(folder: &Path, entries: &[Entry]) -> Result<Vec<Content>> {
    let originals: BTreeSet<&str> =
        entries.iter().filter_map(|entry| entry.line.file.as_deref()).collect();
    let mut contents = Vec::new();
    for path in below(folder)? {
        if !originals.contains(path.as_str()) && path != LOCK {
            let whole = folder.join(&path);
            let (bytes, sha256) = hash_file(&whole).io("read", &whole)?;
            contents.push(Content { path, bytes, sha256: sha256.as_str().to_owned() });
        }
    }
    Ok(contents)
}

/// Paths of all files below a folder, with `/`, in the order of bytes.
fn below(folder: &Path) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in WalkDir::new(folder) {
        let entry = entry.map_err(std::io::Error::from).io("list", folder)?;
        if !entry.file_type().is_dir() {
            let path = entry.path().strip_prefix(folder).unwrap_or(entry.path());
            let parts: Vec<_> =
                path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
            paths.push(parts.join("/"));
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Checks an export. `sets` are the pool and the excluded sets, when their collections are there.
///
/// # Errors
/// The folder is no export, or cannot be read; what is wrong with one is in the result.
pub fn verify(
    folder: &Path,
    sets: impl FnOnce(&ExportInfo) -> Result<Option<(ImageSet, Vec<ImageSet>)>>,
    cancel: &AtomicBool,
) -> Result<Verification> {
    let path = folder.join(EXPORT_FILE);
    if !path.is_file() {
        return Err(IndexerError::Source {
            path: folder.to_path_buf(),
            reason: format!("this is no export: it has no {EXPORT_FILE}"),
        });
    }
    let info: ExportInfo = parse(&path)?;
    if info.format_version != EXPORT_FORMAT {
        let found = info.format_version;
        return Err(IndexerError::Damaged {
            path,
            reason: format!("it has format {found}, this release reads {EXPORT_FORMAT}"),
        });
    }
    let mut problems = Vec::new();
    let mut files = 0;
    let mut expected = BTreeSet::from([EXPORT_FILE.to_owned()]);
    for content in &info.contents {
        files += 1;
        problems.extend(problem(folder, &content.path, &content.sha256));
        expected.insert(content.path.clone());
    }
    let lines = match manifest::read(&folder.join(MANIFEST)) {
        Ok(lines) => lines,
        Err(error) => {
            problems.push(error.to_string());
            Vec::new()
        }
    };
    let has_originals = matches!(info.files, Files::Copy | Files::Hardlink | Files::Symlink);
    let shards = info.format == super::Format::Webdataset;
    for line in lines.iter().filter(|_| has_originals && !shards) {
        let Some(file) = &line.file else {
            problems.push(format!("the manifest names no file for image {}", line.id));
            continue;
        };
        // A manifest that was tampered with must not make us read elsewhere.
        if Path::new(file).components().any(|part| !matches!(part, std::path::Component::Normal(_)))
        {
            problems.push(format!("the manifest names {file}, which is outside the export"));
            continue;
        }
        files += 1;
        problems.extend(problem(folder, file, line.sha256.as_str()));
        expected.insert(file.clone());
    }
    for path in below(folder)? {
        if !expected.contains(&path) {
            problems.push(format!("{path} is no part of the export"));
        }
    }
    if lines.len() != info.images {
        let (found, images) = (lines.len(), info.images);
        problems.push(format!("the manifest has {found} images, the export had {images}"));
    }
    let path = folder.join(CERTIFICATE);
    let certificate: Option<Certificate> = if path.is_file() { Some(parse(&path)?) } else { None };
    let mut certificate_remade = false;
    let promised = info.run.as_ref().is_some_and(|run| !run.excluded.is_empty());
    match &certificate {
        None if promised => {
            problems.push("sets were excluded, but the certificate is missing".to_owned());
        }
        None => {}
        Some(certificate) => {
            let hashes = lines.iter().filter_map(|line| line.sha256.to_bytes());
            if certificate.kept.files_sha256 != files_sha256(hashes) {
                problems.push("the certificate is of other images than the manifest".to_owned());
            }
            if certificate.leaks > 0 {
                problems.push(format!("the certificate tells of {} leaks", certificate.leaks));
            }
            if let Some((pool, excluded)) = sets(&info)? {
                certificate_remade = true;
                problems.extend(compare(certificate, &lines, &pool, &excluded, cancel)?);
            }
        }
    }
    Ok(Verification { info, files, problems, certificate, certificate_remade })
}

/// What is wrong with a file that should have this hash.
fn problem(folder: &Path, name: &str, sha256: &str) -> Option<String> {
    match hash_file(&folder.join(name)) {
        Ok((_, hash)) if hash.as_str() == sha256 => None,
        Ok(_) => Some(format!("{name} is not what was exported")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(format!("{name} is missing"))
        }
        Err(error) => Some(format!("{name} cannot be read: {error}")),
    }
}

/// Makes a certificate again, and tells what differs.
fn compare(
    certificate: &Certificate,
    lines: &[manifest::ManifestLine],
    pool: &ImageSet,
    excluded: &[ImageSet],
    cancel: &AtomicBool,
) -> Result<Vec<String>> {
    if pool.view().manifest().fingerprint != certificate.fingerprint {
        return Ok(vec!["the collections are of another model than the certificate".to_owned()]);
    }
    let mut problems = Vec::new();
    let mut kept = Vec::new();
    for line in lines {
        let image = pool.position(line.id).map(|at| &pool.images()[at as usize]);
        match image.filter(|image| line.sha256.to_bytes() == Some(image.sha256)) {
            Some(image) => kept.push((image.id, image.row, image.sha256)),
            None => problems.push(format!(
                "collection `{}` has image {} no more, or with other content",
                pool.view().name(),
                line.id
            )),
        }
    }
    if !problems.is_empty() {
        return Ok(problems);
    }
    let (threshold, margin) = (certificate.threshold, certificate.margin);
    let comparison = Comparison { pool: pool.view(), kept, excluded, threshold, margin };
    let again = comparison.certify(cancel)?;
    if again.kept.vectors_sha256 != certificate.kept.vectors_sha256 {
        problems.push("the vectors of the exported images are not those certified".to_owned());
    }
    for (now, then) in again.excluded.iter().zip(&certificate.excluded) {
        if now.vectors_sha256 != then.vectors_sha256 {
            problems.push(format!(
                "the excluded set `{}` had {} images when it was certified, and now has {}, or \
                 others: export again",
                then.name, then.images, now.images
            ));
        }
    }
    if again.leaks > 0 {
        problems.push(format!("{} pairs are at or above the threshold {threshold}", again.leaks));
    }
    let max = |certificate: &Certificate| certificate.max_similarity.unwrap_or(-1.0);
    if problems.is_empty() && (max(&again) - max(certificate)).abs() > 1e-5 {
        problems.push(format!(
            "the highest similarity is {}, certified were {}",
            max(&again),
            max(certificate)
        ));
    }
    Ok(problems)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).io("read", path)?;
    serde_json::from_slice(&bytes).map_err(|error| IndexerError::Damaged {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}
