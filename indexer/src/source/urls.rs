//! Tables of URLs, downloaded as they are wanted.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::rows::Rows;
use super::{Block, Content, Entry, Loaded, Loads, Source, short_hash, sort_entries};
use crate::error::Result;
use crate::fetch::{Downloads, FetchOptions, Fetcher};
use crate::http::Fetched;
use crate::locator::{Locator, is_url};
use crate::record::{FileStamp, Payload};

/// Columns that are looked for when none is named.
const URL_COLUMNS: &[&str] = &["url", "URL", "image_url"];
/// Rows listed together.
const BLOCK_ROWS: usize = 10_000;
/// Rows without a usable URL that are named; more are counted.
const NAMED_ROWS: u64 = 20;
/// Downloads that are handed on together, by number and by bytes.
const LOAD_ITEMS: usize = 64;
const LOAD_BYTES: usize = 64 << 20;

/// How a table of URLs is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlOptions {
    /// Column with the URLs [default: `url`, `URL` or `image_url`].
    pub column: Option<String>,
    /// Columns that become payload; all others if not given.
    pub payload_columns: Option<Vec<String>>,
}

/// The pictures that a table of URLs names.
///
/// Columns other than the URL become payload. What is known of a URL already is not fetched again.
/// Sixteen bytes of memory are taken for each row, to know those that come twice.
pub struct UrlSource {
    name: PathBuf,
    rows: Box<dyn Iterator<Item = super::rows::Row> + Send>,
    options: UrlOptions,
    fetcher: Fetcher,
    seen: HashSet<u128>,
    /// Rows without a usable URL.
    bad: u64,
    done: bool,
}

impl UrlSource {
    /// Opens a table.
    ///
    /// # Errors
    /// It cannot be read, lacks a column that is asked for, or downloads cannot be set up.
    pub fn open(path: &Path, options: &UrlOptions, fetch: &FetchOptions) -> Result<Self> {
        let rows = Rows::open(path)?;
        match (&options.column, rows.columns()) {
            (Some(column), _) => rows.check_column(column)?,
            (None, Some(columns))
                if !columns.iter().any(|column| URL_COLUMNS.contains(&column.as_str())) =>
            {
                rows.check_column(URL_COLUMNS[0])?;
            }
            (None, _) => {}
        }
        for column in options.payload_columns.iter().flatten() {
            rows.check_column(column)?;
        }
        Self::new(path, Box::new(rows), options.clone(), fetch)
    }

    /// URLs without a table.
    ///
    /// # Errors
    /// Downloads cannot be set up.
    pub fn of_urls(urls: Vec<String>, fetch: &FetchOptions) -> Result<Self> {
        let row = |(number, url): (u64, String)| {
            (number, Ok(Payload::from([("url".to_owned(), Value::from(url))])))
        };
        let rows = Box::new((1..).zip(urls).map(row));
        Self::new(Path::new("the URLs named"), rows, UrlOptions::default(), fetch)
    }

    fn new(
        name: &Path,
        rows: Box<dyn Iterator<Item = super::rows::Row> + Send>,
        options: UrlOptions,
        fetch: &FetchOptions,
    ) -> Result<Self> {
        Ok(Self {
            name: name.to_path_buf(),
            rows,
            options,
            fetcher: Fetcher::new(fetch)?,
            seen: HashSet::new(),
            bad: 0,
            done: false,
        })
    }

    /// URL and payload of a row.
    fn split(&self, mut row: Payload) -> Result<(String, Payload), String> {
        let url = match &self.options.column {
            Some(column) => row.remove(column),
            None => URL_COLUMNS.iter().find_map(|column| row.remove(*column)),
        };
        let url = match url {
            Some(Value::String(url)) if is_url(url.trim()) => url.trim().to_owned(),
            Some(Value::String(text)) => {
                let shown: String = text.chars().take(80).collect();
                return Err(format!("`{shown}` is no http(s) URL"));
            }
            _ => return Err("it has no URL".to_owned()),
        };
        if let Some(columns) = &self.options.payload_columns {
            row.retain(|name, _| columns.contains(name));
        }
        row.retain(|_, value| !value.is_null());
        Ok((url, row))
    }

    fn note_bad(&mut self, block: &mut Block, number: u64, reason: String) {
        self.bad += 1;
        if self.bad <= NAMED_ROWS {
            let row = PathBuf::from(format!("{}: row {number}", self.name.display()));
            block.unreadable.push((row, reason));
        }
    }
}

impl Source for UrlSource {
    fn name(&self) -> String {
        self.name.display().to_string()
    }

    fn next_block(&mut self, cancel: &AtomicBool) -> Result<Option<Block>> {
        if self.done {
            return Ok(None);
        }
        let mut block = Block::default();
        for _ in 0..BLOCK_ROWS {
            if cancel.load(Ordering::Relaxed) {
                break;
            }
            let Some((number, row)) = self.rows.next() else {
                self.done = true;
                break;
            };
            let (url, payload) = match row.and_then(|row| self.split(row)) {
                Ok(row) => row,
                Err(reason) => {
                    self.note_bad(&mut block, number, reason);
                    continue;
                }
            };
            if !self.seen.insert(short_hash(url.as_bytes())) {
                continue;
            }
            block.entries.push(Entry {
                locator: Locator::Text(url),
                stamp: FileStamp { size: 0, mtime_ns: 0 },
                payload,
                place: number,
            });
        }
        if self.done && self.bad > NAMED_ROWS {
            let more = self.bad - NAMED_ROWS;
            block.unreadable.push((self.name.clone(), format!("{more} more rows have no URL")));
        }
        sort_entries(&mut block.entries);
        Ok(Some(block))
    }

    fn load<'a>(
        &'a mut self,
        mut wanted: Vec<Entry>,
        max_bytes: u64,
        cancel: &'a AtomicBool,
    ) -> Loads<'a> {
        // In the order of the table, which is that of no host.
        wanted.sort_by_key(|entry| entry.place);
        let urls = wanted.iter().map(|entry| entry.locator.to_string());
        let downloads = self.fetcher.start(urls, max_bytes);
        let wanted = wanted.into_iter().enumerate().collect();
        Box::new(Downloaded { downloads, wanted, cancel })
    }
}

/// Downloads in small blocks, as they are ready.
struct Downloaded<'a> {
    downloads: Downloads,
    wanted: BTreeMap<usize, Entry>,
    cancel: &'a AtomicBool,
}

impl Iterator for Downloaded<'_> {
    type Item = Vec<Loaded>;

    fn next(&mut self) -> Option<Vec<Loaded>> {
        let mut block = Vec::new();
        let mut bytes = 0;
        let mut next = self.downloads.next(self.cancel);
        while let Some((number, outcome)) = next {
            if let Some(entry) = self.wanted.remove(&number) {
                let content = match outcome {
                    Ok(Fetched { body, last_modified_ns }) => {
                        bytes += body.len();
                        let size = body.len() as u64;
                        let stamp = FileStamp { size, mtime_ns: last_modified_ns };
                        Content::Bytes(body, Some(stamp))
                    }
                    Err(reason) => Content::Failed(reason),
                };
                block.push(Loaded { entry, content });
            }
            if block.len() >= LOAD_ITEMS || bytes >= LOAD_BYTES {
                break;
            }
            next = self.downloads.ready();
        }
        (!block.is_empty()).then_some(block)
    }
}
