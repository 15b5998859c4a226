//! What a run reports: one JSON object for each step, and curves of them.

use std::io::Write;
use std::path::{Path, PathBuf};

use engine::train::checkpoint::write_whole;
use serde::Serialize;
use serde_json::{Value, json};

use crate::outcome::{Failure, Outcome};
use crate::plot::{self, Panel, Series};

/// Name of a panel, and the keys of the values in it.
pub type Curves = [(&'static str, &'static [&'static str])];

/// metrics.jsonl and metrics.svg in the folder of a run.
pub struct Metrics {
    file: std::fs::File,
    folder: PathBuf,
    curves: &'static Curves,
}

impl Metrics {
    /// Goes on after `step`: later lines, of steps that no checkpoint holds, are dropped.
    pub fn open(folder: &Path, step: usize, curves: &'static Curves) -> Outcome<Self> {
        let path = folder.join("metrics.jsonl");
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        let kept: String = before
            .lines()
            .filter(|line| {
                let line = serde_json::from_str::<Value>(line);
                line.is_ok_and(|line| line["step"].as_u64().is_some_and(|s| s as usize <= step))
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        write_whole(&path, kept.as_bytes())?;
        let file = std::fs::OpenOptions::new().append(true).open(&path);
        let file = file.map_err(|error| cannot_write(&path, &error))?;
        Ok(Self { file, folder: folder.to_path_buf(), curves })
    }

    /// Adds the report of a step.
    pub fn add(&mut self, report: &impl Serialize, images_per_second: f64) -> Outcome<()> {
        let mut line = serde_json::to_value(report)?;
        line["images_per_second"] = json!(images_per_second);
        self.write(&line)
    }

    /// Adds a line of another kind; it needs a `step`.
    pub fn write(&mut self, line: &Value) -> Outcome<()> {
        writeln!(self.file, "{line}")
            .map_err(|error| cannot_write(&self.folder.join("metrics.jsonl"), &error))
    }

    /// Draws the curves of all lines so far.
    pub fn draw(&self) -> Outcome<()> {
        let text = std::fs::read_to_string(self.folder.join("metrics.jsonl")).unwrap_or_default();
        let lines: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let series = |key: &&str| {
            let point = |line: &Value| Some((line["step"].as_f64()?, line[key].as_f64()?));
            Series { name: key.replace('_', " "), points: lines.iter().filter_map(point).collect() }
        };
        let panel = |(title, keys): &(&str, &[&str])| Panel {
            title: (*title).to_owned(),
            series: keys.iter().map(series).collect(),
        };
        let panels: Vec<Panel> = self.curves.iter().map(panel).collect();
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let drawn = plot::svg(&name, "steps", &panels);
        Ok(write_whole(&self.folder.join("metrics.svg"), drawn.as_bytes())?)
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot write {}: {error}", path.display()))
}
