//! `akin key`.

use serde_json::json;
use web::keys::{self, KeyInfo, Role};

use crate::args::{KeyCommand, KeyCreateArgs, RoleArg};
use crate::outcome::{Outcome, Success, note, print, print_json};
use crate::settings::Settings;

pub fn run(settings: &Settings, command: &KeyCommand) -> Outcome {
    match command {
        KeyCommand::Create(args) => create(settings, args)?,
        KeyCommand::List => list(settings)?,
        KeyCommand::Revoke(args) => {
            let was_good = keys::revoke(&settings.home, &args.id)?;
            if settings.json {
                print_json(&json!({"revoked": true, "was_revoked": !was_good}))?;
            } else if !settings.quiet {
                note(if was_good { "revoked" } else { "it was revoked before" });
            }
        }
    }
    Ok(Success::Done)
}

fn create(settings: &Settings, args: &KeyCreateArgs) -> Outcome<()> {
    let role = match args.role {
        RoleArg::Read => Role::Read,
        RoleArg::Write => Role::Write,
        RoleArg::Admin => Role::Admin,
    };
    let (info, key) = keys::create(&settings.home, &args.name, role)?;
    if settings.json {
        let mut line = json!(info);
        line["key"] = key.into();
        return print_json(&line);
    }
    print(&key)?;
    if !settings.quiet {
        note(&format!(
            "this key for role {role} is shown this once; send it as `Authorization: Bearer ...`, \
             end it with `akin key revoke {}`",
            info.id
        ));
    }
    Ok(())
}

fn list(settings: &Settings) -> Outcome<()> {
    let all = keys::list(&settings.home)?;
    if settings.json {
        return print_json(&all);
    }
    for KeyInfo { id, name, role, revoked, .. } in all {
        let state = if revoked.is_some() { "revoked" } else { "" };
        print(format!("{id}  {role:<5}  {state:<7}  {name}").trim_end())?;
    }
    Ok(())
}
