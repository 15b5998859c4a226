//! What the server is told when it starts.

use std::path::PathBuf;
use std::time::Duration;

use engine::decode::{DecodeLimits, DecodeOptions};

use crate::guard;
use crate::remote::RemoteOptions;

const MIB: u64 = 1 << 20;

/// Choices and limits. The defaults suit one machine and some dozen users.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path before all others, such as `/akin`; empty, or with a slash in front and none behind.
    pub base_path: String,
    /// Largest picture in a request, in bytes.
    pub max_upload_bytes: u64,
    /// Largest picture in a request, width x height.
    pub max_pixels: u64,
    /// Largest JSON body, in bytes.
    pub max_json_bytes: u64,
    /// Most parts in a multipart request.
    pub max_parts: usize,
    /// Most results of one page.
    pub max_k: usize,
    /// Most searches in one batch.
    pub max_batch: usize,
    /// Pictures that may wait for the model; more are refused.
    pub max_queue: usize,
    /// Most pictures in one forward pass.
    pub batch: usize,
    /// Longest wait for further pictures of a batch.
    pub gather: Duration,
    /// Pictures decoded at once.
    pub decoders: usize,
    /// Requests that may wait for a decoder, or for a thread to search on.
    pub max_waiting: usize,
    /// How long an uploaded example can be searched with again.
    pub query_ttl: Duration,
    /// Memory for uploaded examples, in bytes.
    pub query_bytes: u64,
    /// Disk for thumbnails, in bytes.
    pub thumbnail_bytes: u64,
    /// Fetch pictures from private networks, too.
    pub allow_private: bool,
    /// Folders that requests may have indexed; none if empty.
    pub roots: Vec<PathBuf>,
    /// Longest time that requests under way get when the server is told to end.
    pub drain: Duration,
    /// Where else pictures are fetched from, and how hosts are found.
    pub remote: RemoteOptions,
    /// Who may come in, and how much of what.
    pub access: guard::Settings,
    /// Folder with the page's files, in place of those in the program; for those who work on it.
    pub ui_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            base_path: String::new(),
            max_upload_bytes: 32 * MIB,
            max_pixels: 100_000_000,
            max_json_bytes: 8 * MIB,
            max_parts: 64,
            max_k: 1000,
            max_batch: 32,
            max_queue: 256,
            batch: 32,
            gather: Duration::from_millis(3),
            decoders: cores,
            max_waiting: 256,
            query_ttl: Duration::from_secs(600),
            query_bytes: 256 * MIB,
            thumbnail_bytes: 1024 * MIB,
            allow_private: false,
            roots: Vec::new(),
            drain: Duration::from_secs(30),
            remote: RemoteOptions::default(),
            access: guard::Settings::default(),
            ui_dir: None,
        }
    }
}

impl Options {
    /// How a picture in a request is decoded: as a model wants it, within the limits for requests.
    pub fn decode(&self, wanted: DecodeOptions) -> DecodeOptions {
        let limits = DecodeLimits {
            max_bytes: self.max_upload_bytes,
            max_pixels: self.max_pixels,
            ..DecodeLimits::default()
        };
        DecodeOptions { limits, ..wanted }
    }
}
