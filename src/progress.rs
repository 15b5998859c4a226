//! The bar on stderr, and Ctrl-C.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use indexer::pipeline::Skipped;
use indexer::{Progress, Step};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Notify;

use crate::outcome::{Failure, Outcome, note};
use crate::settings::Settings;

/// Set by the first Ctrl-C; long work ends at the next safe point.
pub static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Tells who waits for [`CANCELLED`] without asking again and again.
static TOLD: Notify = Notify::const_new();

/// Installs the handler: the first Ctrl-C asks, the second ends the process.
pub fn catch_ctrl_c() -> Outcome<()> {
    let result = ctrlc::set_handler(|| {
        if CANCELLED.swap(true, Ordering::Relaxed) {
            #[expect(clippy::exit, reason = "the user insists; the collection bears it")]
            std::process::exit(130);
        }
        TOLD.notify_waiters();
        note("stopping; once more to stop at once");
    });
    result.map_err(|error| Failure::Failed(format!("cannot catch Ctrl-C: {error}")))
}

/// Completes with the first Ctrl-C.
pub async fn cancelled() {
    let told = TOLD.notified();
    let mut told = std::pin::pin!(told);
    // From here on it is told; what came before is seen.
    told.as_mut().enable();
    if !CANCELLED.load(Ordering::Relaxed) {
        told.await;
    }
}

/// A count of files with rate, remaining time and failures; invisible without a terminal.
pub struct FileProgress {
    bar: ProgressBar,
    failed: usize,
}

impl FileProgress {
    pub fn new(settings: &Settings, files: usize) -> Self {
        let bar = match settings.quiet {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(files as u64),
        };
        let template = "{bar:30} {pos}/{len} pictures  {per_sec}  ETA {eta}  {msg}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { bar, failed: 0 }
    }

    /// Counts unseen.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), failed: 0 }
    }

    /// More files are to come than was said.
    pub fn expect_more(&self, files: usize) {
        self.bar.inc_length(files as u64);
    }

    pub fn done(&self) {
        self.bar.inc(1);
    }

    /// So many more are done.
    pub fn advance(&self, steps: usize) {
        self.bar.inc(steps as u64);
    }

    pub fn skipped(&mut self, skipped: &Skipped) {
        self.bar.inc(1);
        if !skipped.not_a_picture {
            self.failed += 1;
            self.bar.set_message(format!("{} failed", self.failed));
        }
    }

    /// One more file is done, or skipped.
    pub fn next(&mut self, skipped: Option<&Skipped>) {
        match skipped {
            Some(skipped) => self.skipped(skipped),
            None => self.done(),
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Shows the steps of an operation, and lets Ctrl-C end it at a safe point.
pub fn with_steps<T>(settings: &Settings, operation: impl FnOnce(&mut Progress<'_>) -> T) -> T {
    let bar = match settings.quiet {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(0),
    };
    let style = ProgressStyle::with_template("{msg}  {bar:30} {pos}/{len}  ETA {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut doing = "";
    let mut on_step = |step: Step| {
        if step.doing != doing {
            doing = step.doing;
            bar.reset();
            bar.set_message(doing);
        }
        bar.set_length(step.of);
        bar.set_position(step.done);
    };
    let result = operation(&mut Progress::new(&mut on_step, &CANCELLED));
    bar.finish_and_clear();
    result
}

/// Folders and links that could not be listed, as skipped files.
pub fn unreadable(entries: Vec<(PathBuf, String)>) -> Vec<Skipped> {
    let skipped = |(path, reason)| Skipped { path, reason, not_a_picture: false };
    entries.into_iter().map(skipped).collect()
}

/// Lists skipped files with their reasons on stderr.
pub fn list_skipped(skipped: &[Skipped]) {
    for Skipped { path, reason, .. } in skipped {
        note(&format!("skipped {}: {reason}", path.display()));
    }
}
