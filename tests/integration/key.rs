//! `akin key`: made, listed, ended.

use crate::support::Akin;

#[test]
fn a_key_is_made_listed_and_revoked() {
    let akin = Akin::new();
    assert_eq!(akin.ok("key list --json").json(), serde_json::json!([]));
    let made = akin.ok("key create --role write --name page");
    let key = made.stdout.trim().to_owned();
    assert!(key.starts_with("akin_") && made.stderr.contains("this once"), "{made:?}");
    let id = key.split('_').nth(1).expect("an id").to_owned();
    let listed = akin.ok("key list");
    assert!(listed.stdout.contains(&id) && listed.stdout.contains("write"), "{}", listed.stdout);
    let secret = key.rsplit('_').next().expect("a secret");
    assert!(!listed.stdout.contains(secret));
    let stored = std::fs::read_to_string(akin.path("home/keys.json")).expect("the file");
    assert!(!stored.contains(secret));

    akin.ok(&format!("key revoke {id}"));
    let listed = akin.ok("key list --json").json();
    assert!(listed[0]["revoked"].is_u64(), "{listed}");
    let again = akin.ok(&format!("key revoke {id} --json")).json();
    assert_eq!(again["was_revoked"], true);

    let unknown = akin.run("key revoke 000000000000");
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("there is no key `000000000000`"), "{}", unknown.stderr);
    assert_eq!(akin.run("key create --role root").code, Some(2));
    let json = akin.ok("key create --json").json();
    assert_eq!(json["role"], "read", "the least by default");
}
