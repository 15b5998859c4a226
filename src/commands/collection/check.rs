//! `akin collection check`.

use indexer::{CheckReport, Collections};
use serde_json::json;

use super::count;
use crate::args::CheckArgs;
use crate::outcome::{Failure, Outcome, Success, note, print, print_json};
use crate::progress::with_steps;
use crate::settings::Settings;

pub fn run(settings: &Settings, collections: &Collections, args: &CheckArgs) -> Outcome {
    let name = &args.name;
    let report = with_steps(settings, |progress| collections.check(name, args.repair, progress))?;
    match settings.json {
        true => print_json(&to_json(name, &report))?,
        false => show(settings, name, &report)?,
    }
    match report.is_sound() {
        true => Ok(Success::Done),
        false => Err(Failure::Told),
    }
}

fn show(settings: &Settings, name: &str, report: &CheckReport) -> Outcome<()> {
    let mut last_remedy = "";
    for violation in &report.violations {
        print(&format!("{}: {}", violation.subject, violation.problem))?;
        if violation.remedy != last_remedy && report.actions.is_empty() {
            print(&format!("    run: {}", violation.remedy))?;
            last_remedy = &violation.remedy;
        }
    }
    let more = report.found - report.violations.len() as u64;
    if more > 0 {
        print(&format!("and {more} more"))?;
    }
    for action in &report.actions {
        print(&format!("repair: {action}"))?;
    }
    if settings.quiet {
        return Ok(());
    }
    for line in &report.notes {
        note(&format!("note: {line}"));
    }
    let looked_at = format!(
        "{name}: {}, {}, {}",
        count(report.images, "image"),
        count(report.failures, "failure"),
        count(report.rows, "row")
    );
    note(&match (report.found, report.remaining) {
        (0, _) => format!("{looked_at}; all sound"),
        (found, 0) => format!("{looked_at}; {} found and repaired", count(found, "violation")),
        (found, left) if left == found && report.actions.is_empty() => {
            format!("{looked_at}; {} found", count(found, "violation"))
        }
        (found, left) => {
            format!("{looked_at}; {} found, {left} left", count(found, "violation"))
        }
    });
    Ok(())
}

fn to_json(name: &str, report: &CheckReport) -> serde_json::Value {
    let violations: Vec<_> = report
        .violations
        .iter()
        .map(|violation| {
            json!({
                "subject": violation.subject,
                "problem": violation.problem,
                "remedy": violation.remedy,
            })
        })
        .collect();
    json!({
        "collection": name,
        "is_sound": report.is_sound(),
        "images": report.images,
        "failures": report.failures,
        "rows": report.rows,
        "found": report.found,
        "remaining": report.remaining,
        "violations": violations,
        "notes": report.notes,
        "actions": report.actions,
    })
}
