//! API keys: `akin_<id>_<secret>`, kept as hashes in one file of the home folder.
//!
//! A secret is 256 random bits, so one SHA-256 of it is as good as unguessable; slow hashes are for
//! what people make up. The file is replaced whole, and a running server reads it again when it has
//! changed: a key that is revoked is refused by the next request.

mod file;
mod live;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::file::Locked;
pub use self::live::{Keys, Verdict};

/// Name of the file in the home folder.
pub const FILE: &str = "keys.json";
/// Bytes of a key's id.
const ID_BYTES: usize = 6;
/// Bytes of a key's secret.
const SECRET_BYTES: usize = 32;
/// Longest name of a key, in characters.
const NAME_CHARS: usize = 100;
/// Keys that one file holds, revoked ones counted.
const MAX_KEYS: usize = 10_000;

/// What a caller may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Search and look.
    Read,
    /// Add, change and remove images; start jobs; review.
    Write,
    /// Create collections and take snapshots.
    Admin,
}

impl Role {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        [Self::Read, Self::Write, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| KeyError::BadRole(text.to_owned()))
    }
}

/// One key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Twelve hexadecimal digits; the public part of the key.
    pub id: String,
    /// What it is for, in the words of whoever made it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Seconds since 1970.
    pub created: u64,
    /// When it was revoked, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<u64>,
}

/// A key as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    info: KeyInfo,
    /// SHA-256 of the secret's hexadecimal digits, in hexadecimal.
    sha256: String,
}

impl Stored {
    /// Whether a secret is this key's; takes the same time whatever is wrong with it.
    fn fits(&self, secret: &str) -> bool {
        bool::from(hash(secret).as_bytes().ct_eq(self.sha256.as_bytes()))
    }
}

/// Why keys cannot be made, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file is not what [`create`] writes.
    #[error(
        "{path} is no list of keys: {reason}; restore it, or remove it and make new keys with \
         `akin key create`"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No such role.
    #[error("`{0}` is no role; there are read, write and admin")]
    BadRole(String),
    /// A name that would not fit on a line.
    #[error(
        "the name of a key has {got} characters, at most {NAME_CHARS} and no control characters are allowed"
    )]
    BadName {
        /// Characters in it.
        got: usize,
    },
    /// No such key.
    #[error("there is no key `{id}`; `akin key list` shows all")]
    Unknown {
        /// As given.
        id: String,
    },
    /// The file is full.
    #[error(
        "{path} holds {MAX_KEYS} keys, which is the most; remove lines of revoked keys from it"
    )]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    NoRandom(String),
}

/// Makes a key and gives it whole: its secret is stored nowhere and cannot be shown again.
///
/// # Errors
/// The name does not fit, or the file cannot be read or written.
pub fn create(home: &Path, name: &str, role: Role) -> Result<(KeyInfo, String), KeyError> {
    let got = name.chars().count();
    if got > NAME_CHARS || name.chars().any(char::is_control) {
        return Err(KeyError::BadName { got });
    }
    let mut locked = Locked::open(home)?;
    if locked.keys.len() >= MAX_KEYS {
        return Err(KeyError::TooMany { path: home.join(FILE) });
    }
    let (id, secret) = (random_hex::<ID_BYTES>()?, random_hex::<SECRET_BYTES>()?);
    let info = KeyInfo { id, name: name.to_owned(), role, created: now(), revoked: None };
    let key = format!("akin_{}_{secret}", info.id);
    locked.keys.push(Stored { info: info.clone(), sha256: hash(&secret) });
    locked.write()?;
    Ok((info, key))
}

/// Every key there is or was, oldest first.
///
/// # Errors
/// The file cannot be read.
pub fn list(home: &Path) -> Result<Vec<KeyInfo>, KeyError> {
    Ok(file::read(&home.join(FILE))?.into_iter().map(|stored| stored.info).collect())
}

/// Ends a key, named by its id or whole; it stays in the list. False when it was revoked before.
///
/// # Errors
/// There is no such key, or the file cannot be read or written.
pub fn revoke(home: &Path, key: &str) -> Result<bool, KeyError> {
    let id = parts(key).map_or(key, |(id, _)| id);
    let mut locked = Locked::open(home)?;
    let found = locked.keys.iter_mut().find(|stored| stored.info.id == id);
    // Not the text as given: it may be a whole key, which is nothing to print.
    let info = &mut found.ok_or_else(|| KeyError::Unknown { id: shortened(id) })?.info;
    if info.revoked.is_some() {
        return Ok(false);
    }
    info.revoked = Some(now());
    locked.write()?;
    Ok(true)
}

/// Id and secret of a whole key; `None` when it does not have the form of one.
fn parts(key: &str) -> Option<(&str, &str)> {
    let (id, secret) = key.strip_prefix("akin_")?.split_once('_')?;
    let hex = |text: &str, bytes: usize| {
        text.len() == 2 * bytes && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    (hex(id, ID_BYTES) && hex(secret, SECRET_BYTES)).then_some((id, secret))
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(2 * ID_BYTES).collect()
}

fn hash(secret: &str) -> String {
    format!("{:x}", Sha256::digest(secret.as_bytes()))
}

fn random_hex<const BYTES: usize>() -> Result<String, KeyError> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| KeyError::NoRandom(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_once_and_stored_as_a_hash() -> Result<(), KeyError> {
        let home = tempfile::tempdir().expect("temporary folder");
        let (info, key) = create(home.path(), "tests", Role::Write)?;
        let (id, secret) = parts(&key).expect("the form of a key");
        assert_eq!((id, secret.len()), (info.id.as_str(), 64));
        let text = std::fs::read_to_string(home.path().join(FILE)).expect("the file");
        assert!(text.contains(&info.id) && !text.contains(secret), "{text}");
        assert_eq!(list(home.path())?, [info]);
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_the_file() -> Result<(), KeyError> {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().expect("temporary folder");
        let path = home.path().join(FILE);
        for _ in 0..2 {
            create(home.path(), "", Role::Read)?;
            let mode = std::fs::metadata(&path).expect("the file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        Ok(())
    }

    #[test]
    fn a_revoked_key_stays_in_the_list() -> Result<(), KeyError> {
        let home = tempfile::tempdir().expect("temporary folder");
        let (info, key) = create(home.path(), "", Role::Read)?;
        assert!(revoke(home.path(), &key)? && !revoke(home.path(), &info.id)?);
        assert!(list(home.path())?[0].revoked.is_some());
        let error = revoke(home.path(), "akin_0123456789abcdef").expect_err("unknown").to_string();
        assert!(error.contains("akin_0123456") && !error.contains("abcdef"), "{error}");
        Ok(())
    }

    #[test]
    fn roles_are_ordered() {
        assert!(Role::Read < Role::Write && Role::Write < Role::Admin);
        assert_eq!("write".parse::<Role>().expect("a role"), Role::Write);
        assert!("root".parse::<Role>().expect_err("none").to_string().contains("read, write"));
    }

    #[test]
    fn other_forms_are_no_keys() {
        let secret = "ab".repeat(32);
        assert!(parts(&format!("akin_0123456789ab_{secret}")).is_some());
        for odd in [
            String::new(),
            "akin__".to_owned(),
            format!("akin_0123456789ab{secret}"),
            format!("akin_0123456789AB_{secret}"),
            format!("akin_0123456789ab_{secret} "),
            format!("akin_0123456789ab_{}", "é".repeat(32)),
        ] {
            assert_eq!(parts(&odd), None, "{odd}");
        }
    }
}
