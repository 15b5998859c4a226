//! Tar files, walked header by header.
//!
//! Only what is needed to find regular files: old, ustar, GNU long names and pax headers. Names are
//! bytes. Extension headers are read into memory and therefore limited; contents are skipped. The
//! same walk serves files, where skipping is seeking, and streams being decompressed.

use std::io::{self, Read, Seek, SeekFrom};

const BLOCK: u64 = 512;
/// Largest long name or pax header; the paths of no real file system are longer.
const MAX_EXTENSION: u64 = 1 << 20;

/// A regular file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TarMember {
    /// As stored.
    pub(super) name: Vec<u8>,
    /// First byte of the content, in the (decompressed) archive.
    pub(super) offset: u64,
    /// Bytes of the content.
    pub(super) size: u64,
}

/// Where and why an archive ends before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Byte of the archive file, or of what it decompresses to.
    pub(crate) offset: u64,
    /// In words.
    pub(crate) reason: String,
}

/// Moves forward in what is read.
pub(in crate::source) trait Skip: Read {
    /// Leaves out exactly so many bytes; fewer are an error.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// A file: skipping is seeking, and the end is known.
pub(super) struct Seekable<R> {
    pub(super) inner: R,
    pub(super) position: u64,
    pub(super) length: u64,
}

impl<R: Read> Read for Seekable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl<R: Read + Seek> Skip for Seekable<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let target = self.position.saturating_add(bytes);
        if target > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.inner.seek(SeekFrom::Start(target))?;
        self.position = target;
        Ok(())
    }
}

/// A stream: skipping is reading.
pub(in crate::source) struct Stream<R>(pub(super) R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Skip for Stream<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.0).take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// A walk over the regular files of an archive.
pub(in crate::source) struct TarWalk<R> {
    reader: R,
    /// Bytes consumed.
    position: u64,
    /// Rest of the current member, padding included, not yet consumed.
    pending: u64,
    done: bool,
}

impl<R: Skip> TarWalk<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, position: 0, pending: 0, done: false }
    }

    /// The next regular file; `None` at the end of the archive.
    ///
    /// # Errors
    /// What follows is no tar entry, or the archive is cut. Nothing can be read after that.
    pub(super) fn next(&mut self) -> Result<Option<TarMember>, Damage> {
        if self.done {
            return Ok(None);
        }
        let at = self.position;
        let next = self.advance();
        if !matches!(next, Ok(Some(_))) {
            self.done = true;
        }
        next.map_err(|reason| Damage { offset: self.position.max(at), reason })
    }

    /// Reads the content of the member that [`next`](Self::next) has just given.
    pub(super) fn content(&mut self, member: &TarMember) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(member.size).read_to_end(&mut bytes)? as u64;
        self.position += read;
        self.pending = self.pending.saturating_sub(read);
        if read == member.size { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn advance(&mut self) -> Result<Option<TarMember>, String> {
        let mut long_name: Option<Vec<u8>> = None;
        let mut pax_size: Option<u64> = None;
        loop {
            self.skip_pending()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = match pax_size {
                Some(size) => size,
                None => number(&header[124..136]).ok_or("a header without a readable size")?,
            };
            let padded = size.checked_next_multiple_of(BLOCK).ok_or("an impossible size")?;
            match header[156] {
                b'L' => long_name = Some(without_nul(self.extension(size)?)),
                b'x' => {
                    let records = self.extension(size)?;
                    for (key, value) in pax(&records) {
                        match key {
                            b"path" => long_name = Some(value.to_vec()),
                            b"size" => {
                                pax_size = std::str::from_utf8(value)
                                    .ok()
                                    .and_then(|text| text.parse().ok());
                            }
                            _ => {}
                        }
                    }
                }
                b'K' | b'g' => self.pending = padded,
                kind => {
                    self.pending = padded;
                    let name = long_name.take().unwrap_or_else(|| short_name(&header));
                    pax_size = None;
                    let is_file = matches!(kind, b'0' | 0 | b'7') && !name.ends_with(b"/");
                    if is_file {
                        return Ok(Some(TarMember { name, offset: self.position, size }));
                    }
                }
            }
        }
    }

    fn skip_pending(&mut self) -> Result<(), String> {
        let pending = std::mem::take(&mut self.pending);
        self.reader.skip(pending).map_err(|error| cut(&error))?;
        self.position += pending;
        Ok(())
    }

    /// A header whose checksum is right; `None` for the end mark, or where a file simply ends.
    fn header(&mut self) -> Result<Option<[u8; BLOCK as usize]>, String> {
        let mut header = [0; BLOCK as usize];
        let mut filled = 0;
        while filled < header.len() {
            match self.reader.read(&mut header[filled..]) {
                Ok(0) if filled == 0 && self.position > 0 => return Ok(None),
                Ok(0) => return Err(cut(&io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(cut(&error)),
            }
        }
        if header.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum: u64 = (0..header.len())
            .map(|i| if (148..156).contains(&i) { 32 } else { u64::from(header[i]) })
            .sum();
        if number(&header[148..156]) != Some(sum) {
            return Err("what should be a header has a wrong checksum".to_owned());
        }
        self.position += BLOCK;
        Ok(Some(header))
    }

    /// A long name or pax header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, String> {
        if size > MAX_EXTENSION {
            return Err(format!("a name of {size} bytes, the limit is {MAX_EXTENSION}"));
        }
        let mut bytes = vec![0; size.next_multiple_of(BLOCK) as usize];
        self.reader.read_exact(&mut bytes).map_err(|error| cut(&error))?;
        self.position += bytes.len() as u64;
        bytes.truncate(size as usize);
        Ok(bytes)
    }
}

fn cut(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the archive is cut short".to_owned(),
        _ => format!("it cannot be read: {error}"),
    }
}

/// Octal text, or GNU's base 256 for large values.
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let (first, rest) = field.split_first()?;
        return rest.iter().try_fold(u64::from(first & 0x7f), |value, &byte| {
            value.checked_mul(256)?.checked_add(u64::from(byte))
        });
    }
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches(|c: char| c == ' ' || c == '\0');
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn without_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// The name in a header; only POSIX ustar has a prefix, GNU uses its place for other things.
fn short_name(header: &[u8; BLOCK as usize]) -> Vec<u8> {
    let name = without_nul(header[..100].to_vec());
    let prefix = without_nul(header[345..500].to_vec());
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        return [&prefix, b"/".as_slice(), &name].concat();
    }
    name
}

/// Records `LENGTH KEY=VALUE\n` of a pax header; ends at the first that is none.
fn pax(mut records: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut found = Vec::new();
    while let Some((key, value, rest)) = pax_record(records) {
        found.push((key, value));
        records = rest;
    }
    found
}

fn pax_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let body = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &records[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(bytes: &[u8]) -> (Vec<TarMember>, Option<Damage>) {
        let length = bytes.len() as u64;
        let reader = Seekable { inner: io::Cursor::new(bytes), position: 0, length };
        let mut walk = TarWalk::new(reader);
        let mut members = Vec::new();
        loop {
            match walk.next() {
                Ok(Some(member)) => members.push(member),
                Ok(None) => return (members, None),
                Err(damage) => return (members, Some(damage)),
            }
        }
    }

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(name.len() as u64);
            builder.append_data(&mut header, name, name.as_bytes()).expect("append");
        }
        builder.into_inner().expect("archive")
    }

    #[test]
    fn members_are_where_the_walk_says_also_with_long_names() {
        let long = format!("{}/b.jpg", "very-long-folder-name".repeat(10));
        let bytes = archive(&["a.jpg", &long, "c.jpg"]);
        let (members, damage) = walk(&bytes);
        assert_eq!(damage, None);
        assert_eq!(members.len(), 3);
        for member in &members {
            let content = &bytes[member.offset as usize..][..member.size as usize];
            assert_eq!(content, member.name.as_slice());
        }
        let mut stream = TarWalk::new(Stream(bytes.as_slice()));
        let mut streamed = Vec::new();
        while let Some(member) = stream.next().expect("sound") {
            assert_eq!(stream.content(&member).expect("content"), member.name);
            streamed.push(member);
        }
        assert_eq!(streamed, members);
    }

    #[test]
    fn pax_names_and_sizes_are_used() {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("path", b"\xffodd.jpg".as_slice())]).expect("pax");
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        header.set_path("plain.jpg").expect("path");
        header.set_cksum();
        builder.append(&header, b"abc".as_slice()).expect("append");
        let (members, damage) = walk(&builder.into_inner().expect("archive"));
        assert_eq!((members[0].name.as_slice(), members[0].size), (b"\xffodd.jpg".as_slice(), 3));
        assert_eq!(damage, None);
    }

    #[test]
    fn what_lies_before_the_damage_is_found_and_the_damage_has_a_place() {
        let bytes = archive(&["a.jpg", "b.jpg", "c.jpg"]);
        let mut broken = bytes.clone();
        broken[2048 + 10] ^= 0x55;
        let (members, damage) = walk(&broken);
        assert_eq!(members.len(), 2);
        assert_eq!(damage.map(|damage| damage.offset), Some(2048));

        let (members, damage) = walk(&bytes[..1024 + 512 + 2]);
        assert_eq!(members.len(), 2);
        assert!(damage.expect("damage").reason.contains("cut short"));
        let (members, damage) = walk(b"these are words, not an archive");
        assert!(members.is_empty() && damage.is_some());
        assert!(walk(b"").1.is_some(), "an empty file is no archive");
    }

    #[test]
    fn a_name_too_long_for_memory_is_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(10 << 30);
        header.set_cksum();
        let (_, damage) = walk(header.as_bytes());
        assert!(damage.expect("damage").reason.contains("the limit is"));
    }
}
