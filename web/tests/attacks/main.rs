//! The attack table: requests that mean harm, against a real server in a process of its own, with the
//! status that each must get. After each the server must still answer a search; at the end it must
//! hold no more memory than before.

mod bombs;
mod client;
mod keyed;
mod open;
mod server;
mod slow;
mod urls;

use client::{Attack, Server};

/// How often all attacks on memory are made, after once to warm up.
const ROUNDS: usize = 4;
/// What the server may hold more or less after each than after the first, in percent.
const MARGIN: u64 = 5;

/// Runs attacks; all that went wrong is reported at once.
fn run(server: &Server, attacks: &[Attack]) {
    let mut wrong = Vec::new();
    for attack in attacks {
        let reply = server.send(attack);
        if !attack.expected.contains(&reply.status) {
            let head = String::from_utf8_lossy(&reply.body).chars().take(300).collect::<String>();
            wrong.push(format!(
                "{}: {} instead of {:?}: {head}",
                attack.name, reply.status, attack.expected
            ));
        }
        if let Err(reason) = reply.is_harmless() {
            wrong.push(format!("{}: {reason}", attack.name));
        }
        if let Err(reason) = server.is_alive() {
            panic!("after {}: {reason}; before: {wrong:#?}", attack.name);
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), attacks.len(), wrong.join("\n"));
}

#[test]
fn without_keys() {
    let server = Server::start(false);
    let mut attacks = open::paths(&server);
    attacks.extend(open::bodies(&server));
    attacks.extend(open::searches(&server));
    attacks.extend(open::origins(&server));
    attacks.extend(open::heads(&server));
    attacks.extend(urls::table(&server));
    assert!(attacks.len() > 150, "{}", attacks.len());
    run(&server, &attacks);
    urls::rebinding(&server);
    open::polyglots(&server);
}

#[test]
fn with_keys() {
    let server = Server::start(true);
    run(&server, &keyed::table(&server));
    keyed::revoked(&server);
}

#[test]
fn memory_comes_back() {
    let server = Server::start(false);
    let mut attacks = bombs::table(&server);
    attacks.extend(open::bodies(&server));
    let round = || {
        run(&server, &attacks);
        bombs::gigabyte(&server);
        server.resident()
    };
    // The first time brings in all code, all threads and what allocators set aside for each; from
    // then on, nothing more may stay.
    let warm = round();
    let later: Vec<u64> = (0..ROUNDS).map(|_| round()).collect();
    println!(
        "{} attacks a round, bytes held: {warm} after the first, then {later:?}",
        attacks.len()
    );
    let is_near = |held: &u64| held.abs_diff(warm) * 100 <= warm * MARGIN;
    assert!(later.iter().all(is_near), "{warm} bytes held at first, then {later:?}");
}

#[test]
fn slow_clients_are_left() {
    let server = Server::start(false);
    slow::heads_and_bodies(&server);
    slow::many_at_once(&server);
}
