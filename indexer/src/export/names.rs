//! Names for files of an export: safe on every system, each once, the same every time.

use std::collections::BTreeSet;
use std::path::Path;

/// Files of one folder of an export at most.
pub(super) const PER_FOLDER: usize = 10_000;
/// Characters of a name before its extension.
const LONGEST: usize = 80;
/// Not to be had as names on Windows.
const RESERVED: [&str; 6] = ["con", "prn", "aux", "nul", "com", "lpt"];

/// Gives out names.
#[derive(Default)]
pub(super) struct Names {
    taken: BTreeSet<String>,
    given: usize,
}

impl Names {
    /// A path below the export for an original: its own name, made safe; with the image's number
    /// when another had that name already. Names that differ only in case count as one.
    pub(super) fn give(&mut self, original: &Path, id: u64) -> String {
        let folder = format!("images/{:04}", self.given / PER_FOLDER);
        if self.given.is_multiple_of(PER_FOLDER) {
            self.taken.clear();
        }
        self.given += 1;
        let stem = safe(&original.file_stem().unwrap_or_default().to_string_lossy());
        let extension = extension(original);
        let mut name = format!("{stem}.{extension}");
        let mut again = 0;
        while !self.taken.insert(name.to_lowercase()) {
            name = match again {
                0 => format!("{stem}-{id}.{extension}"),
                again => format!("{stem}-{id}-{again}.{extension}"),
            };
            again += 1;
        }
        format!("{folder}/{name}")
    }
}

/// The extension in lower case, or `img` when there is none that is plain.
pub(super) fn extension(original: &Path) -> String {
    let extension = original.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain =
        (1..=8).contains(&extension.len()) && extension.chars().all(|c| c.is_ascii_alphanumeric());
    if plain { extension } else { "img".to_owned() }
}

fn safe(stem: &str) -> String {
    let keep = |c: char| match c {
        '-' | '_' | '.' | ' ' | '(' | ')' | '+' | ',' | '@' => c,
        c if c.is_alphanumeric() => c,
        _ => '_',
    };
    let name: String = stem.chars().map(keep).take(LONGEST).collect();
    let name = name.trim_matches([' ', '.']).to_owned();
    let lower = name.to_lowercase();
    let letters = lower.trim_end_matches(|c: char| c.is_ascii_digit());
    match name.is_empty() || (RESERVED.contains(&letters) && lower.len() <= 4) {
        true => format!("_{name}"),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_given_once() {
        let mut names = Names::default();
        let mut give = |path: &str, id| names.give(Path::new(path), id);
        assert_eq!(give("/a/cat.JPG", 1), "images/0000/cat.jpg");
        assert_eq!(give("/b/Cat.jpg", 2), "images/0000/Cat-2.jpg");
        assert_eq!(give("/c/cat-2.jpg", 3), "images/0000/cat-2-3.jpg");
        assert_eq!(give("/d/a:b?*|<>\"\n.png", 4), "images/0000/a_b_______.png");
        assert_eq!(give("/d/..png", 5), "images/0000/_.png");
        assert_eq!(give("/d/con.png", 6), "images/0000/_con.png");
        assert_eq!(give("/d/LPT1.png", 7), "images/0000/_LPT1.png");
        assert_eq!(give("/d/noext", 8), "images/0000/noext.img");
        assert_eq!(give("/d/häuser 東京.webp", 9), "images/0000/häuser 東京.webp");
        let long = give(&format!("/d/{}.png", "x".repeat(300)), 10);
        assert_eq!(long.len(), "images/0000/".len() + LONGEST + 4);
    }

    #[test]
    fn folders_do_not_grow_without_end() {
        let mut names = Names::default();
        let given: Vec<String> =
            (0..PER_FOLDER as u64 + 1).map(|id| names.give(Path::new("/a.png"), id)).collect();
        assert_eq!(given[PER_FOLDER - 1], format!("images/0000/a-{}.png", PER_FOLDER - 1));
        assert_eq!(given[PER_FOLDER], "images/0001/a.png");
    }
}
