//! The keys as a running server sees them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::{FILE, KeyError, KeyInfo, Stored, file, parts};

/// What a server says to a caller's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is good.
    Known(Arc<KeyInfo>),
    /// It is no key of ours, or not in the form of one.
    Unknown,
    /// It was, and has been revoked.
    Revoked,
}

/// Keys, read again when their file changes.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stamp: Option<Stamp>,
    by_id: HashMap<String, (Arc<KeyInfo>, Stored)>,
    /// Whether a key was ever seen, or its file was there. From then on callers need one: a file
    /// that is removed or damaged under a running server must not open it to everybody.
    required: bool,
}

/// What tells that a file is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    /// Files are replaced, so that two versions of one length and time still differ.
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Self { length: metadata.len(), modified: metadata.modified().ok(), inode })
    }
}

impl Keys {
    /// The keys of a home folder.
    ///
    /// # Errors
    /// Their file is there and cannot be read.
    pub fn open(home: &Path) -> Result<Self, KeyError> {
        let path = home.join(FILE);
        let stamp = Stamp::of(&path);
        let by_id = by_id(file::read(&path)?);
        let required = stamp.is_some();
        Ok(Self { path, state: Mutex::new(State { stamp, by_id, required }) })
    }

    /// Whether callers need a key: there is one, or there was one while this server ran. Revoked
    /// ones count, so that revoking the last key locks everybody out rather than letting all in.
    pub fn are_required(&self) -> bool {
        self.current(|state| state.required)
    }

    /// What to say to a key.
    pub fn check(&self, key: &str) -> Verdict {
        let Some((id, secret)) = parts(key) else { return Verdict::Unknown };
        self.current(|state| match state.by_id.get(id) {
            // The secret first: who does not have it learns nothing of the key.
            Some((info, stored)) if stored.fits(secret) => match info.revoked {
                None => Verdict::Known(Arc::clone(info)),
                Some(_) => Verdict::Revoked,
            },
            _ => Verdict::Unknown,
        })
    }

    fn current<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Looking at the file costs a microsecond; a key that was revoked should not live on.
        let stamp = Stamp::of(&self.path);
        if stamp != state.stamp {
            match file::read(&self.path) {
                Ok(keys) => {
                    state.by_id = by_id(keys);
                    state.required |= stamp.is_some();
                }
                Err(error) => {
                    tracing::error!("no key is accepted until this is put right: {error}");
                    state.by_id.clear();
                    state.required = true;
                }
            }
            state.stamp = stamp;
        }
        read(&state)
    }
}

fn by_id(keys: Vec<Stored>) -> HashMap<String, (Arc<KeyInfo>, Stored)> {
    let entry = |stored: Stored| (stored.info.id.clone(), (Arc::new(stored.info.clone()), stored));
    keys.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Role, create, revoke};
    use super::*;

    #[test]
    fn a_running_server_sees_keys_come_and_go() -> Result<(), KeyError> {
        let home = tempfile::tempdir().expect("temporary folder");
        let keys = Keys::open(home.path())?;
        assert!(!keys.are_required());
        let (info, key) = create(home.path(), "", Role::Read)?;
        assert!(keys.are_required());
        assert_eq!(keys.check(&key), Verdict::Known(Arc::new(info)));
        revoke(home.path(), &key)?;
        assert_eq!(keys.check(&key), Verdict::Revoked);
        assert!(keys.are_required(), "revoking the last key lets nobody in");
        Ok(())
    }

    #[test]
    fn another_secret_is_refused() -> Result<(), KeyError> {
        let home = tempfile::tempdir().expect("temporary folder");
        let (info, key) = create(home.path(), "", Role::Admin)?;
        let keys = Keys::open(home.path())?;
        let last = if key.ends_with('0') { '1' } else { '0' };
        let forged = format!("{}{last}", &key[..key.len() - 1]);
        for other in [forged, format!("akin_{}_{}", info.id, "0".repeat(64)), String::new()] {
            assert_eq!(keys.check(&other), Verdict::Unknown, "{other}");
        }
        Ok(())
    }

    #[test]
    fn a_file_that_goes_or_breaks_lets_nobody_in() -> Result<(), KeyError> {
        let home = tempfile::tempdir().expect("temporary folder");
        let (_, key) = create(home.path(), "", Role::Read)?;
        let keys = Keys::open(home.path())?;
        std::fs::write(home.path().join(FILE), "{").expect("write");
        assert_eq!((keys.check(&key), keys.are_required()), (Verdict::Unknown, true));
        std::fs::remove_file(home.path().join(FILE)).expect("remove");
        assert_eq!((keys.check(&key), keys.are_required()), (Verdict::Unknown, true));
        assert!(Keys::open(home.path()).is_ok_and(|keys| !keys.are_required()));
        Ok(())
    }
}
