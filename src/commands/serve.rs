//! `akin serve`.

mod browser;
mod folders;
mod listen;
mod models;

use indexer::Collections;
use web::clock::Clock;
use web::{AppState, Config, Options, Which, guard, tls};

use self::models::Settled;
use crate::args::{InputArgs, ServeArgs};
use crate::outcome::{Failure, Outcome, Success, note};
use crate::progress;
use crate::settings::Settings;

pub fn run(mut settings: Settings, args: &ServeArgs) -> Outcome {
    if let Some(decode) = args.decode {
        settings.decode = decode.into();
    }
    // What can be wrong with the words is said before anything is opened.
    let base_path = base_path(&args.base_path)?;
    let access = access(args)?;
    let roots = folders::real(args.allow_root.iter().chain(&args.index))?;
    let sources = folders::real(&args.index)?;
    let address = listen::address(&args.listen)?;
    let watch = match args.watch {
        // What happens while everything is indexed for the first time is seen too.
        true => Some(folders::watch(&sources)?),
        false => None,
    };
    let listener = listen::bind(address)?;
    let address = listener.local_addr()?;

    let which = which(&settings, args)?;
    let home = settings.home.clone();
    let is_encrypted = access.tls.is_some();
    let options = Options {
        base_path,
        max_upload_bytes: (args.max_upload as u64) << 20,
        allow_private: args.allow_private_addresses,
        roots,
        access,
        #[cfg(debug_assertions)]
        ui_dir: args.ui_dir.clone(),
        ..Options::default()
    };
    let at = format!(
        "{}://{}{}/",
        if is_encrypted { "https" } else { "http" },
        listen::shown(address),
        options.base_path
    );
    let state = AppState::open(Config {
        home,
        collections: which,
        models: Box::new(Settled::new(settings)?),
        options,
        clock: Clock::default(),
    })?;
    state.guard.check_address(address).map_err(Failure::Usage)?;

    // Programs that start this one wait for this line.
    note(&format!("akin: listening on {at}"));
    for (name, reason) in state.shelf.not_opened() {
        note(&format!("akin: collection `{name}` is not served: {reason}"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        folders::index(&state, args, sources, watch)?;
        // The first search should not have to wait for its model.
        let of = state.clone();
        tokio::task::spawn_blocking(move || of.open_models());
        if args.open {
            browser::open(&at);
        }
        let ended = progress::cancelled();
        web::serve(listener, state.clone(), ended).await?;
        Outcome::Ok(Success::Done)
    });
    // What is not done by now, such as a download nobody waits for, is not waited for.
    runtime.shutdown_background();
    result
}

/// The collections that are served. That of `--index` is made if there is none.
fn which(settings: &Settings, args: &ServeArgs) -> Outcome<Which> {
    let mut names = args.collection.clone();
    names.dedup();
    if args.index.is_empty() {
        return Ok(if names.is_empty() { Which::All } else { Which::These(names) });
    }
    if names.is_empty() {
        names.push("default".to_owned());
    }
    let collections = Collections::new(&settings.home);
    if !collections.exists(&names[0])? {
        // Closed again at once: the server opens it with all others.
        let input = InputArgs::NONE;
        drop(super::index::create(settings, &names[0], &input)?);
    }
    Ok(Which::These(names))
}

/// Empty, or with a slash in front and none behind.
fn base_path(text: &str) -> Outcome<String> {
    let path = text.trim_end_matches('/');
    let sound = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
        !part.is_empty() && part.chars().all(allowed) && !part.chars().all(|c| c == '.')
    };
    let is_sound = path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(sound));
    match path.is_empty() || is_sound {
        true => Ok(path.to_owned()),
        false => Err(Failure::Usage(format!(
            "--base-path is `{text}`; it must be a path such as /akin, of letters, digits, `-`, `_`, \
             `.` and `~`"
        ))),
    }
}

fn access(args: &ServeArgs) -> Outcome<guard::Settings> {
    let given = &args.access;
    let tls = match (&given.tls_cert, &given.tls_key) {
        (Some(certificate), Some(key)) => Some(tls::open(certificate, key)?),
        _ => None,
    };
    let mut trusted_proxies = Vec::new();
    for text in &given.trusted_proxy {
        let address = text.parse::<std::net::IpAddr>().map(Into::into);
        trusted_proxies.push(address.or_else(|_| text.parse()).map_err(|_| {
            Failure::Usage(format!(
                "--trusted-proxy is `{text}`; it must be an address such as 10.0.0.1, or a network \
                 such as 10.0.0.0/8"
            ))
        })?);
    }
    let mut settings = guard::Settings {
        trusted_proxies,
        allowed_hosts: given.allow_host.clone(),
        is_insecure: given.insecure,
        tls,
        ..guard::Settings::default()
    };
    let limits = &mut settings.limits;
    limits.rate = given.rate.unwrap_or(limits.rate);
    // Room for the rest of a form beside its picture.
    limits.body_bytes = limits.body_bytes.max((args.max_upload as u64 + 1) << 20);
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_paths_have_one_form() {
        for (text, path) in
            [("", ""), ("/", ""), ("/akin", "/akin"), ("/akin/", "/akin"), ("/a/b", "/a/b")]
        {
            assert_eq!(base_path(text).ok().as_deref(), Some(path), "{text}");
        }
        for text in ["akin", "/a b", "/a//b", "/..", "/a/../b", "/{x}", "/a?b", "http://a/b"] {
            assert!(base_path(text).is_err(), "{text}");
        }
    }
}
