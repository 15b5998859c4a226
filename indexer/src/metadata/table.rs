//! A table with one row of payload for each picture, held in memory.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::{Unmatched, check_size};
use crate::error::{IndexerError, Result};
use crate::id::ContentHash;
use crate::locator::{Locator, LocatorKind, bytes_to_path, is_url};
use crate::record::Payload;
use crate::source::Rows;

/// Columns that are looked for when none is named.
const KEYS: &[&str] = &["path", "file_name", "file", "sha256"];
/// Keys without a picture that are named; more are counted.
const NAMED: usize = 5;

#[derive(Debug)]
pub(super) struct PayloadTable {
    rows: HashMap<String, Line>,
    /// Folders that relative paths are taken from.
    bases: Vec<PathBuf>,
    by_hash: bool,
}

#[derive(Debug)]
struct Line {
    number: u64,
    payload: Payload,
    matched: AtomicBool,
}

impl PayloadTable {
    pub(super) fn open(path: &Path, key: Option<&str>, roots: &[PathBuf]) -> Result<Self> {
        let bad = |reason: String| IndexerError::Source { path: path.to_path_buf(), reason };
        let mut table = Rows::open(path)?;
        if let Some(key) = key {
            table.check_column(key)?;
        }
        let declared = table.columns().map(<[String]>::to_vec);
        let mut key = match (key, &declared) {
            (Some(key), _) => Some(key.to_owned()),
            (None, Some(columns)) => {
                let known = KEYS.iter().find(|key| columns.iter().any(|column| column == *key));
                let known = known.ok_or_else(|| {
                    bad(format!(
                        "no column `path`, `file_name`, `file` or `sha256` says which picture a \
                         row is about; there are: {}; name one with --payload-key",
                        columns.join(", ")
                    ))
                })?;
                Some((*known).to_owned())
            }
            (None, None) => None,
        };
        let folder = path.canonicalize().ok().and_then(|path| Some(path.parent()?.to_path_buf()));
        let mut rows = HashMap::new();
        for (number, row) in &mut table {
            let bad = |reason: String| bad(format!("row {number}: {reason}"));
            let mut payload = row.map_err(bad)?;
            // Without declared columns the first row decides.
            let key = key.get_or_insert_with(|| {
                let known = KEYS.iter().find(|key| payload.contains_key(**key));
                (*known.unwrap_or(&KEYS[0])).to_owned()
            });
            let name = match payload.remove(key) {
                Some(Value::String(name)) => name,
                Some(Value::Number(name)) => name.to_string(),
                _ => return Err(bad(format!("it has no `{key}`"))),
            };
            check_size(&payload).map_err(bad)?;
            let line = Line { number, payload, matched: AtomicBool::new(false) };
            rows.insert(normal(&name), line);
        }
        let by_hash = key.as_deref() == Some("sha256");
        let bases = folder.into_iter().chain(roots.iter().cloned()).collect();
        Ok(Self { rows, bases, by_hash })
    }

    /// The payload of a picture, if the table has a row for it.
    pub(super) fn row(&self, locator: &Locator, sha256: &ContentHash) -> Option<&Payload> {
        if self.by_hash {
            return self.find(sha256.as_str());
        }
        let whole = locator.to_string();
        if let Some(row) = self.find(&whole) {
            return Some(row);
        }
        match locator.kind() {
            LocatorKind::Url(_) => None,
            LocatorKind::Member { name, .. } => {
                self.find(&normal(&bytes_to_path(name).to_string_lossy()))
            }
            LocatorKind::File => {
                let path = locator.to_path();
                self.bases.iter().find_map(|base| {
                    let relative = path.strip_prefix(base).ok()?;
                    self.find(relative.to_str()?)
                })
            }
        }
    }

    fn find(&self, key: &str) -> Option<&Payload> {
        let line = self.rows.get(key)?;
        line.matched.store(true, Ordering::Relaxed);
        Some(&line.payload)
    }

    pub(super) fn unmatched(&self) -> Unmatched {
        let unmatched = self.rows.iter().filter(|(_, line)| !line.matched.load(Ordering::Relaxed));
        let mut lines: Vec<(u64, &String)> =
            unmatched.map(|(key, line)| (line.number, key)).collect();
        lines.sort_unstable();
        let first = lines.iter().take(NAMED).map(|(_, key)| (*key).clone()).collect();
        Unmatched { rows: lines.len(), first }
    }
}

/// A key without `.` and `..`, as the paths it is compared with are.
fn normal(key: &str) -> String {
    let key = key.trim();
    if is_url(key) {
        return key.to_owned();
    }
    let mut path = PathBuf::new();
    for part in Path::new(key).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if path.file_name().is_some() => drop(path.pop()),
            part => path.push(part),
        }
    }
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(
        name: &str,
        text: &str,
        key: Option<&str>,
    ) -> Result<(tempfile::TempDir, PayloadTable)> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        let table = PayloadTable::open(&path, key, &[PathBuf::from("/roots/one")])?;
        Ok((folder, table))
    }

    fn n(table: &PayloadTable, path: &str) -> Option<Value> {
        let sha256 = ContentHash::of(path.as_bytes());
        table.row(&Locator::from(Path::new(path)), &sha256)?.get("n").cloned()
    }

    #[test]
    fn rows_are_found_by_absolute_and_relative_paths() -> Result<()> {
        let text = "path,n\n/abs/./a.jpg,1\nsub/b.jpg,2\n./c.jpg,3\nin.jpg,4\nhttp://a.org/x,5\n\
                    nowhere.jpg,6\n";
        let (folder, table) = table("t.csv", text, None)?;
        let folder = folder.path().canonicalize().expect("canonical");
        assert_eq!(n(&table, "/abs/a.jpg"), Some(json!(1)));
        assert_eq!(n(&table, "/roots/one/sub/b.jpg"), Some(json!(2)));
        assert_eq!(n(&table, &folder.join("c.jpg").to_string_lossy()), Some(json!(3)));
        assert_eq!(n(&table, "/some/shard.tar!/in.jpg"), Some(json!(4)));
        assert_eq!(n(&table, "http://a.org/x"), Some(json!(5)));
        assert_eq!(n(&table, "/other/c.jpg"), None);
        let expected = Unmatched { rows: 1, first: vec!["nowhere.jpg".to_owned()] };
        assert_eq!(table.unmatched(), expected);
        Ok(())
    }

    #[test]
    fn rows_are_found_by_hash_and_bad_tables_are_refused() -> Result<()> {
        let hash = ContentHash::of(b"/x.jpg");
        let (_folder, found) =
            table("t.jsonl", &format!("{{\"sha256\":\"{hash}\",\"n\":1}}"), None)?;
        assert_eq!(n(&found, "/x.jpg"), Some(json!(1)));
        for (name, text, key, message) in [
            ("t.csv", "a,b\n1,2\n", None, "there are: a, b"),
            ("t.csv", "path,b\n1,2\n", Some("file"), "no column `file`"),
            ("t.jsonl", "{\"path\":\"a\"}\n{\"n\":2}\n", None, "row 2: it has no `path`"),
            ("t.jsonl", "{\"path\":\"a\"\n", None, "row 1"),
            ("t.doc", "words", None, "must end in"),
        ] {
            let error = table(name, text, key).expect_err(message).to_string();
            assert!(error.contains(message), "{error}");
        }
        let large = format!("{{\"path\":\"a\",\"n\":\"{}\"}}", "x".repeat(70_000));
        let error = table("t.jsonl", &large, None).expect_err("too large").to_string();
        assert!(error.contains("row 1") && error.contains("65536"), "{error}");
        Ok(())
    }
}
