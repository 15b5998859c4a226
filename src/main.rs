//! The `akin` program: arguments to one library call each, and exit codes. Nothing else.

mod args;
mod outcome;
mod settings;
mod usage;
mod progress;
mod plot;
mod embedder;
mod commands;

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::args::{Cli, Command, GlobalArgs};
use crate::outcome::{Outcome, exit_code};
use crate::settings::Settings;

fn main() -> ExitCode {
    let cli = args::parse();
    start_logging(&cli);
    exit_code(run(cli))
}

fn run(cli: Cli) -> Outcome {
    let settings = Settings::resolve(cli.global)?;
    progress::catch_ctrl_c()?;
    match cli.command {
        Command::Demo(args) => commands::demo::run(&settings, &args),
        Command::Index(args) => commands::index::run(&settings, &args),
        Command::Search(args) => commands::search::run(&settings, &args),
        Command::Serve(args) => commands::serve::run(settings, &args),
        Command::Label(args) => commands::label::run(&settings, &args),
        Command::Curate(args) => commands::curate::run(&settings, &args),
        Command::Export(args) => commands::export::run(&settings, &args),
        Command::Dedup(args) => commands::dedup::run(&settings, &args),
        Command::Embed(args) => commands::embed::run(&settings, &args),
        Command::Eval(command) => commands::eval::run(&settings, &command),
        Command::Train(command) => commands::train::run(&settings, &command),
        Command::Model(command) => commands::model::run(&settings, &command),
        Command::Bench(command) => commands::bench::run(&settings, &command),
        Command::Key(command) => commands::key::run(&settings, &command),
        Command::Collection(command) => commands::collection::run(&settings, &command),
    }
}

fn start_logging(cli: &Cli) {
    let GlobalArgs { verbose, quiet, json, .. } = cli.global;
    let serves = matches!(cli.command, Command::Serve(_));
    let level = match verbose {
        // A server that says nothing for hours cannot be told from one that hangs.
        0 if serves && !quiet => "warn,akin=info,web=info,indexer=info",
        0 => "warn",
        1 => "warn,akin=debug,engine=debug,indexer=debug,web=debug",
        _ => "debug",
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match serves && json {
        true => log.json().init(),
        false => log.init(),
    }
}
