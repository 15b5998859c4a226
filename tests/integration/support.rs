//! A home of its own for each test, a tiny real model, and the program to run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub struct Akin {
    pub folder: tempfile::TempDir,
}

/// What a run gave.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {}", self.stdout))
    }
}

impl Akin {
    pub fn new() -> Self {
        let akin = Self { folder: tempfile::tempdir().expect("temporary folder") };
        let model = akin.path("model");
        std::fs::create_dir_all(&model).expect("create");
        let weights = fixtures::path("golden/tiny_plain.hf.safetensors");
        std::fs::copy(weights, model.join("model.safetensors")).expect("copy");
        let config = r#"{"num_attention_heads": 2}"#;
        std::fs::write(model.join("config.json"), config).expect("write");
        akin
    }

    /// A path in this test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder with this many different pictures, `00.png` and so on.
    pub fn pictures(&self, name: &str, count: u32) -> PathBuf {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).expect("create");
        for number in 0..count {
            let picture = image::RgbImage::from_fn(120, 90, |x, y| {
                let mut h = (x / 15 * 31 + y / 15 * 17 + number * 101).wrapping_mul(2_654_435_761);
                h ^= h >> 15;
                image::Rgb([h as u8, (h >> 8) as u8, (h >> 16) as u8])
            });
            picture.save(folder.join(format!("{number:02}.png"))).expect("save");
        }
        folder.canonicalize().expect("canonical")
    }

    /// Runs the program with words separated by spaces; `{}` stands for this test's folder.
    pub fn run(&self, words: &str) -> Run {
        self.run_with(words, &[])
    }

    pub fn run_with(&self, words: &str, stdin: &[u8]) -> Run {
        self.run_in(words, stdin, &[])
    }

    /// With variables of the environment beside that of the home, or instead of it.
    pub fn run_in(&self, words: &str, stdin: &[u8], variables: &[(&str, &str)]) -> Run {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let mut command = Command::new(env!("CARGO_BIN_EXE_akin"));
        command
            .args(words.split_whitespace().map(|word| word.replace("{}", &folder)))
            .env_clear()
            .env("AKIN_HOME", self.path("home"))
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("start");
        use std::io::Write;
        // The program may end without reading.
        let _ = child.stdin.take().expect("stdin").write_all(stdin);
        let Output { status, stdout, stderr } = child.wait_with_output().expect("wait");
        Run {
            code: status.code(),
            stdout: String::from_utf8(stdout).expect("UTF-8"),
            stderr: String::from_utf8(stderr).expect("UTF-8"),
        }
    }

    /// Runs what must succeed.
    pub fn ok(&self, words: &str) -> Run {
        let run = self.run(words);
        assert_eq!(run.code, Some(0), "{words}: {}", run.stderr);
        run
    }
}

pub fn file_name(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).expect("a file name")
}
