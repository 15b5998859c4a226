//! Shows the page to who started the server.

use std::process::{Command, Stdio};

use crate::outcome::note;

/// Opens an address in the browser; a system without one is told about.
pub fn open(at: &str) {
    let (program, arguments): (&str, &[&str]) = if cfg!(target_os = "macos") {
        ("open", &[])
    } else if cfg!(windows) {
        ("rundll32", &["url.dll,FileProtocolHandler"])
    } else {
        ("xdg-open", &[])
    };
    let mut command = Command::new(program);
    command.args(arguments).arg(at);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(mut child) => {
            // Nobody else waits for it.
            std::thread::spawn(move || child.wait());
        }
        Err(error) => note(&format!("akin: no browser was opened ({program}: {error}): {at}")),
    }
}
