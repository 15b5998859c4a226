//! Lists of sources, as `find -print0` writes them.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{IoContext, Result};
use crate::locator::bytes_to_path;

/// A list of files, folders and URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFile {
    /// File, or `-` for standard input.
    pub path: PathBuf,
    /// Entries end with a NUL byte instead of a line feed.
    pub null: bool,
}

/// The entries of a list, in its order; empty ones are left out. Names need not be UTF-8.
///
/// # Errors
/// The list cannot be read.
pub fn read_list(list: &ListFile) -> Result<Vec<PathBuf>> {
    let mut bytes = Vec::new();
    if list.path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).io("read", Path::new("stdin"))?;
    } else {
        bytes = std::fs::read(&list.path).io("read", &list.path)?;
    }
    Ok(parse(&bytes, list.null))
}

fn parse(bytes: &[u8], null: bool) -> Vec<PathBuf> {
    let end = if null { 0 } else { b'\n' };
    bytes
        .split(|&byte| byte == end)
        .map(|line| if null { line } else { line.strip_suffix(b"\r").unwrap_or(line) })
        .filter(|line| !line.is_empty())
        .map(bytes_to_path)
        .collect()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn lines_and_nul_separated_entries_keep_their_bytes() {
        let lines = parse(b"/a b.jpg\r\n\nc\xff.jpg\nhttp://a.org/x", false);
        let expected = [b"/a b.jpg".as_slice(), b"c\xff.jpg", b"http://a.org/x"];
        assert_eq!(lines, expected.map(bytes_to_path));
        let entries = parse(b"with\nfeed.jpg\0b.jpg\0", true);
        assert_eq!(entries, [b"with\nfeed.jpg".as_slice(), b"b.jpg"].map(bytes_to_path));
    }
}
