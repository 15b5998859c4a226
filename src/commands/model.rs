use crate::args::ModelCommand;
use crate::outcome::{Outcome, Success};
use crate::settings::Settings;
pub fn run(_: &Settings, _: &ModelCommand) -> Outcome {
    Ok(Success::Done)
}
