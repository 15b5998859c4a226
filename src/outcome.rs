//! How a command ends, and the exit code that says so.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

/// A command that did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1.
    Failed(String),
    /// Exit code 1, for reasons that were printed.
    Told,
    /// Exit code 2.
    Usage(String),
    /// The reader of our output went away; not worth a word.
    OutputClosed,
}

/// Result of a command.
pub type Outcome<T = Success> = Result<T, Failure>;

/// A command that did what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// Exit code 0.
    Done,
    /// Exit code 3.
    SomeSkipped,
}

impl Success {
    /// `SomeSkipped` when there are skipped files.
    pub fn unless_skipped(skipped: usize) -> Self {
        if skipped == 0 { Self::Done } else { Self::SomeSkipped }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Reports a failure on stderr and chooses the exit code.
pub fn exit_code(outcome: Outcome) -> ExitCode {
    let (code, message) = match outcome {
        Ok(Success::Done) | Err(Failure::OutputClosed) => (0, None),
        Ok(Success::SomeSkipped) => (3, None),
        Err(Failure::Told) => (1, None),
        Err(Failure::Failed(message)) => (1, Some(message)),
        Err(Failure::Usage(message)) => (2, Some(message)),
    };
    if let Some(message) = message {
        note(&format!("akin: {message}"));
    }
    ExitCode::from(code)
}

/// A line on stderr; a closed stderr is not an error.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A line on stdout.
pub fn print(line: &str) -> Outcome<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::OutputClosed),
        Err(error) => Err(Failure::Failed(format!("cannot write to stdout: {error}"))),
    }
}

/// One JSON document on stdout.
pub fn print_json(value: &impl Serialize) -> Outcome<()> {
    print(&serde_json::to_string(value)?)
}
