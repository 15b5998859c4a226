//! One file from the hub: announced, received in as many tries as it takes, checked, renamed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::error::io;
use super::record::Hashes;
use super::registry::{PublicModel, url};
use super::{FileRecord, ModelRecord, ModelStoreError, PullOptions, PullProgress, Result};
use crate::http::{Http, HttpFailure, RemoteFile};

const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

pub(super) struct Downloader<'a> {
    http: Http,
    model: &'static PublicModel,
    folder: &'a Path,
    options: &'a PullOptions,
    progress: &'a mut dyn FnMut(PullProgress<'_>),
    cancel: &'a AtomicBool,
    /// Known after the first answer of the hub.
    commit: Option<String>,
}

/// A file as the hub announces it.
struct Announced {
    name: &'static str,
    url: String,
    etag: String,
    size: u64,
}

impl<'a> Downloader<'a> {
    pub(super) fn new(
        model: &'static PublicModel,
        folder: &'a Path,
        options: &'a PullOptions,
        progress: &'a mut dyn FnMut(PullProgress<'_>),
        cancel: &'a AtomicBool,
    ) -> Result<Self> {
        let http = Http::new(&options.http).map_err(ModelStoreError::Failed)?;
        Ok(Self { http, model, folder, options, progress, cancel, commit: None })
    }

    pub(super) fn commit(self) -> String {
        self.commit.unwrap_or_default()
    }

    /// Fetches one file of the model, unless the one that is here is the one announced.
    pub(super) fn fetch(
        &mut self,
        name: &'static str,
        record: Option<&ModelRecord>,
    ) -> Result<FileRecord> {
        let announced = self.announce(name)?;
        let known = record.and_then(|record| Some((record, record.file(name)?)));
        if let Some((record, file)) = known {
            if Some(&record.commit) == self.commit.as_ref() && file.announced != announced.etag {
                return Err(ModelStoreError::Changed {
                    file: name.to_owned(),
                    commit: record.commit.clone(),
                    recorded: file.announced.clone(),
                    announced: announced.etag,
                    folder: self.folder.to_path_buf(),
                });
            }
            if file.announced == announced.etag
                && !self.options.force
                && file.verify(self.folder).is_ok()
            {
                return Ok(file.clone());
            }
        }
        let part = self.receive(&announced)?;
        let sha256 = check(&part, &announced)?;
        let target = self.folder.join(name);
        std::fs::rename(&part, &target).map_err(io("replace", &target))?;
        let _ = std::fs::remove_file(etag_path(&part));
        let Announced { size, etag, .. } = announced;
        Ok(FileRecord { name: name.to_owned(), size, sha256, announced: etag })
    }

    fn announce(&mut self, name: &'static str) -> Result<Announced> {
        let revision = self.commit.as_ref().unwrap_or(&self.options.revision);
        let head = url(&self.options.endpoint, self.model, revision, name);
        let target = self.folder.join(name);
        let token = self.options.token.as_deref();
        let remote = self.patiently(&head, &target, |this| this.http.head(&head, token))?;
        let RemoteFile { commit, etag, size } = remote;
        let lacks = |missing| ModelStoreError::NoIdentity { url: head.clone(), missing };
        let commit = commit.ok_or_else(|| lacks("a commit"))?;
        let etag = etag.filter(|etag| matches!(etag.len(), 40 | 64));
        let etag = etag.ok_or_else(|| lacks("a SHA-256 or git blob id"))?;
        let size = size.ok_or_else(|| lacks("a size"))?;
        let url = url(&self.options.endpoint, self.model, &commit, name);
        self.commit = Some(commit);
        Ok(Announced { name, url, etag, size })
    }

    /// Receives into `NAME.part`, going on after cuts, until all bytes are there.
    fn receive(&mut self, file: &Announced) -> Result<PathBuf> {
        let target = self.folder.join(file.name);
        let part = self.folder.join(format!("{}.part", file.name));
        // A part of another version, or one nobody knows the version of, is of no use.
        let same = std::fs::read_to_string(etag_path(&part)).is_ok_and(|etag| etag == file.etag);
        if !same || self.options.force {
            remove_if_there(&part)?;
        }
        std::fs::write(etag_path(&part), &file.etag).map_err(io("write", &part))?;
        let mut failures = 0;
        loop {
            let before = part.metadata().map_or(0, |part| part.len());
            if before == file.size && before > 0 {
                return Ok(part);
            }
            if before > file.size {
                remove_if_there(&part)?;
                continue;
            }
            let outcome = self.receive_some(file, &part, before);
            let after = part.metadata().map_or(0, |part| part.len());
            failures = if after > before { 1 } else { failures + 1 };
            match outcome {
                Ok(()) if after >= file.size => return Ok(part),
                Ok(()) => {
                    let reason = format!("cut after {after} of {} bytes", file.size);
                    self.pause(HttpFailure::Network(reason), failures, &file.url, &target)?;
                }
                Err(Interrupted::Http(failure)) => {
                    self.pause(failure, failures, &file.url, &target)?;
                }
                Err(Interrupted::Other(error)) => return Err(error),
            }
        }
    }

    fn receive_some(
        &mut self,
        file: &Announced,
        part: &Path,
        have: u64,
    ) -> Result<(), Interrupted> {
        let token = self.options.token.as_deref();
        let mut body = self.http.get(&file.url, token, have, Some(&file.etag))?;
        // The server may send all of it again instead of the rest.
        let mut options = OpenOptions::new();
        options.create(true).write(true);
        match body.start == have {
            true => options.append(true),
            false => options.truncate(true),
        };
        let mut output = options.open(part).map_err(io("open", part))?;
        let mut done = body.start;
        let mut buffer = vec![0; 1 << 18];
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Interrupted::Other(ModelStoreError::Cancelled));
            }
            let read = body.read(&mut buffer).map_err(|error| match error.kind() {
                std::io::ErrorKind::TimedOut => HttpFailure::Network(format!(
                    "nothing arrived for {} s",
                    self.options.http.idle_timeout.as_secs_f64()
                )),
                _ => HttpFailure::Network(format!("cut after {done} bytes: {error}")),
            })?;
            if read == 0 {
                return Ok(output.sync_data().map_err(io("sync", part))?);
            }
            output.write_all(&buffer[..read]).map_err(io("write", part))?;
            done += read as u64;
            if done > file.size {
                return Err(Interrupted::Other(wrong(
                    file,
                    part,
                    "size",
                    format!("over {}", file.size),
                    file.size.to_string(),
                )));
            }
            (self.progress)(PullProgress { file: file.name, done, total: file.size });
        }
    }

    /// Repeats a request while that may help.
    fn patiently<T>(
        &mut self,
        url: &str,
        target: &Path,
        request: impl Fn(&Self) -> Result<T, HttpFailure>,
    ) -> Result<T> {
        let mut failures = 0;
        loop {
            match request(self) {
                Ok(answer) => return Ok(answer),
                Err(failure) => {
                    failures += 1;
                    self.pause(failure, failures, url, target)?;
                }
            }
        }
    }

    /// Waits before the next try, or gives up with the failure.
    fn pause(&self, failure: HttpFailure, failures: u32, url: &str, target: &Path) -> Result<()> {
        let last = failures >= self.options.attempts;
        let backoff = self.options.backoff * 2u32.saturating_pow(failures.saturating_sub(1));
        let wait = match failure {
            HttpFailure::Network(reason) if last => {
                let (url, target) = (url.to_owned(), target.to_path_buf());
                return Err(ModelStoreError::Network { url, reason, target });
            }
            HttpFailure::Network(_) => backoff,
            HttpFailure::Status { code, retry_after } => {
                let passing = code == 429 || code >= 500;
                if last || !passing {
                    let advice = advice(code);
                    return Err(ModelStoreError::Status {
                        url: url.to_owned(),
                        status: code,
                        advice,
                    });
                }
                retry_after.unwrap_or(backoff)
            }
        };
        let until = Instant::now() + wait.min(LONGEST_BACKOFF);
        while Instant::now() < until {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(ModelStoreError::Cancelled);
            }
            std::thread::sleep(Duration::from_millis(20).min(until - Instant::now().min(until)));
        }
        Ok(())
    }
}

/// Why receiving stopped: worth another try, or not.
enum Interrupted {
    Http(HttpFailure),
    Other(ModelStoreError),
}

impl From<HttpFailure> for Interrupted {
    fn from(failure: HttpFailure) -> Self {
        Self::Http(failure)
    }
}

impl From<ModelStoreError> for Interrupted {
    fn from(error: ModelStoreError) -> Self {
        Self::Other(error)
    }
}

/// Compares a complete file with what was announced; gives its SHA-256.
fn check(part: &Path, file: &Announced) -> Result<String> {
    let size = part.metadata().map_err(io("read", part))?.len();
    if size != file.size {
        return Err(wrong(file, part, "size", size.to_string(), file.size.to_string()));
    }
    let Hashes { sha256, git_blob } = Hashes::of(part)?;
    let (what, got) = match file.etag.len() {
        64 => ("SHA-256", &sha256),
        _ => ("git blob id", &git_blob),
    };
    if *got != file.etag {
        return Err(wrong(file, part, what, got.clone(), file.etag.clone()));
    }
    File::open(part).and_then(|part| part.sync_all()).map_err(io("sync", part))?;
    Ok(sha256)
}

fn wrong(
    file: &Announced,
    part: &Path,
    what: &'static str,
    got: String,
    expected: String,
) -> ModelStoreError {
    let _ = std::fs::remove_file(part);
    ModelStoreError::WrongFile { file: file.name.to_owned(), what, got, expected }
}

fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => "access needs a token: set HF_TOKEN to one that may read this repository",
        404 => "no such file; check --revision and the endpoint",
        429 => "too many requests; try again later",
        500.. => "the hub is in trouble; try again later",
        _ => "check the endpoint",
    }
}

/// Remembers which version a part belongs to.
fn etag_path(part: &Path) -> PathBuf {
    part.with_extension("part-etag")
}

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
