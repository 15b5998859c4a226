//! What an archive contains, and reading one member of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::tar::{Damage, Seekable, Skip, TarMember, TarWalk};
use super::zip::{self, ZipMember};
use super::{open_gz, read_exactly};
use crate::locator::ArchiveKind;
use crate::record::Payload;
use crate::source::{cannot_read, has_picture_extension, too_large};

/// Largest member that is read as something said about a picture.
const MAX_NOTE: u64 = 64 << 10;

/// A regular file in an archive.
#[derive(Debug)]
pub(super) struct Member {
    /// As stored.
    pub(super) name: Vec<u8>,
    /// Bytes of the content, as the archive declares.
    pub(super) size: u64,
    /// What other members with the same key say about it.
    pub(super) payload: Payload,
    /// It says something about a picture and is no candidate itself.
    pub(super) is_note: bool,
    /// First byte of the content, in the decompressed archive; or the number in a zip.
    place: u64,
}

/// What listing an archive gave.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) kind: ArchiveKind,
    /// In the order of the archive.
    pub(super) members: Vec<Member>,
    /// Why and where the listing ends before the archive does.
    pub(super) damage: Option<Damage>,
    zip: Vec<ZipMember>,
}

/// Lists an archive; headers only, contents of small notes aside. Stops early once `cancel` is set.
///
/// # Errors
/// The file cannot be opened. Damage inside it is part of the result.
pub(super) fn list(path: &Path, cancel: &AtomicBool) -> io::Result<Contents> {
    let kind = ArchiveKind::of_path(path).unwrap_or(ArchiveKind::Tar);
    match kind {
        ArchiveKind::Tar => {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            // Headers are small and far apart: a large buffer would read what is skipped.
            let inner = BufReader::with_capacity(1024, file);
            let walk = TarWalk::new(Seekable { inner, position: 0, length });
            Ok(list_tar(kind, walk, cancel))
        }
        ArchiveKind::TarGz => Ok(list_tar(kind, open_gz(path)?, cancel)),
        ArchiveKind::Zip => {
            let (zip, damage) = zip::list(path)?;
            let member = |(place, member): (u64, &ZipMember)| Member {
                name: member.name.clone(),
                size: member.size,
                payload: Payload::new(),
                is_note: false,
                place,
            };
            let members = (0..).zip(&zip).map(member).collect();
            Ok(Contents { kind, members, damage, zip })
        }
    }
}

/// Something said about a key, which comes before or after the picture itself.
enum Note {
    Json(Payload),
    Text(&'static str, String),
}

fn list_tar<R: Skip>(kind: ArchiveKind, mut walk: TarWalk<R>, cancel: &AtomicBool) -> Contents {
    let mut members = Vec::new();
    let mut notes: BTreeMap<Vec<u8>, Payload> = BTreeMap::new();
    let damage = loop {
        if cancel.load(Ordering::Relaxed) {
            break None;
        }
        let member = match walk.next() {
            Ok(Some(member)) => member,
            Ok(None) => break None,
            Err(damage) => break Some(damage),
        };
        let note = note(&mut walk, &member);
        let is_note = note.is_some();
        if let Some(note) = note {
            let (key, _) = split_key(&member.name);
            let payload = notes.entry(key.to_vec()).or_default();
            match note {
                Note::Json(fields) => payload.extend(fields),
                Note::Text(field, text) => drop(payload.insert(field.to_owned(), text.into())),
            }
        }
        let TarMember { name, offset, size } = member;
        members.push(Member { name, size, payload: Payload::new(), is_note, place: offset });
    };
    if !notes.is_empty() {
        for member in &mut members {
            let (key, _) = split_key(&member.name);
            let is_picture = has_picture_extension(&crate::locator::bytes_to_path(&member.name));
            if let Some(payload) = notes.get(key).filter(|_| is_picture) {
                member.payload = payload.clone();
            }
        }
    }
    Contents { kind, members, damage, zip: Vec::new() }
}

/// WebDataset's key and extension: split at the first dot of the file name.
fn split_key(name: &[u8]) -> (&[u8], &[u8]) {
    let file = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    match name[file..].iter().position(|&byte| byte == b'.') {
        Some(dot) => (&name[..file + dot], &name[file + dot + 1..]),
        None => (name, b""),
    }
}

/// What a small member says about its key. One that says nothing usable is a file like any other.
fn note<R: Skip>(walk: &mut TarWalk<R>, member: &TarMember) -> Option<Note> {
    let (_, extension) = split_key(&member.name);
    let field = match extension {
        b"json" => None,
        b"txt" => Some("caption"),
        b"cls" => Some("cls"),
        _ => return None,
    };
    if member.size > MAX_NOTE {
        return None;
    }
    let bytes = walk.content(member).ok()?;
    match field {
        None => match serde_json::from_slice(&bytes).ok()? {
            Value::Object(fields) => Some(Note::Json(fields.into_iter().collect())),
            _ => None,
        },
        Some(field) => {
            let text = String::from_utf8(bytes).ok()?;
            Some(Note::Text(field, text.trim().to_owned()))
        }
    }
}

impl Contents {
    /// The content of a member, unless it is larger than `max_bytes`.
    pub(super) fn read(
        &self,
        path: &Path,
        place: usize,
        max_bytes: u64,
    ) -> Result<Vec<u8>, String> {
        let member = self.members.get(place).ok_or("the archive has no such member")?;
        if member.size > max_bytes {
            return Err(too_large(member.size, max_bytes));
        }
        let read = || match self.kind {
            ArchiveKind::Zip => zip::read(path, &self.zip[member.place as usize]),
            ArchiveKind::TarGz => {
                let mut walk = open_gz(path)?;
                for _ in 0..place {
                    walk.next().map_err(|damage| io::Error::other(damage.reason))?;
                }
                match walk.next() {
                    Ok(Some(found)) if found.name == member.name => walk.content(&found),
                    _ => Err(io::Error::other("the archive changed while it was read")),
                }
            }
            ArchiveKind::Tar => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(member.place))?;
                read_exactly(io::Read::take(file, member.size), member.size)
            }
        };
        read().map_err(|error| cannot_read(&error))
    }
}
