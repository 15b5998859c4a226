//! Pictures that were searched with, kept a short while in memory so that the next search with another
//! crop, filter or page need not send them again. They are named by tokens that cannot be guessed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use engine::RgbImage;
use engine::decode::IccPolicy;

use crate::clock::Clock;
use crate::problem::{Answer, Code, Problem};
use crate::random;

/// Bytes of pixels: of larger pictures only the file is kept, which is decoded again.
const LARGEST_PIXELS: u64 = 64 << 20;
/// Embeddings kept with one picture: a person drags a crop through many.
const MAX_EMBEDDINGS: usize = 64;
/// Pictures kept, whatever their sizes.
const MAX_ENTRIES: usize = 4096;

/// A picture that was searched with.
#[derive(Debug)]
pub struct Kept {
    /// The file.
    pub file: Bytes,
    /// All its pixels as decoded with a policy for colour profiles, once a part of it was wanted.
    pixels: Mutex<Option<(IccPolicy, Arc<RgbImage>)>>,
    /// By fingerprint of the model and crop as text; oldest first.
    embeddings: Mutex<Vec<(String, Vec<f32>)>>,
}

impl Kept {
    /// A picture of which only the file is kept so far.
    pub fn new(file: Bytes) -> Self {
        Self { file, pixels: Mutex::default(), embeddings: Mutex::default() }
    }

    /// Its pixels, if they are kept as decoded with this policy.
    pub fn pixels(&self, icc: IccPolicy) -> Option<Arc<RgbImage>> {
        let kept = self.pixels.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(policy, _)| *policy == icc).map(|(_, pixels)| Arc::clone(pixels))
    }

    /// What was computed of it before.
    pub fn embedding(&self, key: &str) -> Option<Vec<f32>> {
        let kept = self.embeddings.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(known, _)| known == key).map(|(_, vector)| vector.clone())
    }

    /// Keeps what was computed of it.
    pub fn remember(&self, key: String, vector: &[f32]) {
        let mut kept = self.embeddings.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.iter().any(|(known, _)| *known == key) {
            return;
        }
        if kept.len() == MAX_EMBEDDINGS {
            kept.remove(0);
        }
        kept.push((key, vector.to_vec()));
    }
}

/// Pictures kept, by token.
#[derive(Debug)]
pub struct Queries {
    clock: Clock,
    ttl: Duration,
    max_bytes: u64,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_token: HashMap<String, Entry>,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    kept: Arc<Kept>,
    /// Bytes of its file and pixels.
    bytes: u64,
    /// When it was last searched with.
    used: Duration,
}

impl Queries {
    /// Keeps pictures for `ttl` after they were last used, of at most `max_bytes` together.
    pub fn new(clock: Clock, ttl: Duration, max_bytes: u64) -> Self {
        Self { clock, ttl, max_bytes, entries: Mutex::default() }
    }

    /// Keeps a picture; gives its token. One that has no room at all is not kept.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn keep(&self, kept: Arc<Kept>) -> Answer<String> {
        let token = random::hex::<16>().map_err(Problem::internal)?;
        let used = self.clock.now();
        let mut entries = self.lock();
        entries.expire(used, self.ttl);
        let bytes = kept.file.len() as u64;
        if bytes > self.max_bytes {
            return Ok(token);
        }
        while entries.bytes + bytes > self.max_bytes || entries.by_token.len() >= MAX_ENTRIES {
            entries.forget_oldest();
        }
        entries.bytes += bytes;
        entries.by_token.insert(token.clone(), Entry { kept, bytes, used });
        Ok(token)
    }

    /// Keeps the pixels of a picture, too, for further parts of it; unless they are too many, or the
    /// picture is not kept any more.
    pub fn keep_pixels(&self, token: &str, icc: IccPolicy, pixels: &Arc<RgbImage>) {
        let bytes = pixels.as_raw().len() as u64;
        let mut entries = self.lock();
        let Entries { by_token, bytes: total } = &mut *entries;
        let Some(entry) = by_token.get_mut(token) else { return };
        let with_pixels = entry.kept.file.len() as u64 + bytes;
        if bytes > LARGEST_PIXELS || with_pixels > self.max_bytes {
            return;
        }
        let mut kept = entry.kept.pixels.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((icc, Arc::clone(pixels)));
        drop(kept);
        *total = *total - entry.bytes + with_pixels;
        entry.bytes = with_pixels;
        // It was just used, so that others go first.
        while entries.bytes > self.max_bytes {
            entries.forget_oldest();
        }
    }

    /// The picture of a token, kept for another while.
    ///
    /// # Errors
    /// `query_expired`: there never was one, or it is not kept any more.
    pub fn find(&self, token: &str) -> Answer<Arc<Kept>> {
        let now = self.clock.now();
        let mut entries = self.lock();
        entries.expire(now, self.ttl);
        match entries.by_token.get_mut(token) {
            Some(entry) => {
                entry.used = now;
                Ok(Arc::clone(&entry.kept))
            }
            None => {
                let minutes = self.ttl.as_secs() / 60;
                let detail = format!(
                    "the picture of this query is not kept any more; uploads are forgotten after \
                     {minutes} minutes"
                );
                Err(Problem::new(Code::QueryExpired, detail.clone())
                    .remedy("upload the picture again")
                    .field("query", detail))
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn expire(&mut self, now: Duration, ttl: Duration) {
        let bytes = &mut self.bytes;
        self.by_token.retain(|_, entry| {
            let fresh = now.saturating_sub(entry.used) < ttl;
            if !fresh {
                *bytes -= entry.bytes;
            }
            fresh
        });
    }

    fn forget_oldest(&mut self) {
        let oldest = self.by_token.iter().min_by_key(|(token, entry)| (entry.used, *token));
        let Some(token) = oldest.map(|(token, _)| token.clone()) else { return };
        if let Some(entry) = self.by_token.remove(&token) {
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: usize) -> Arc<Kept> {
        Arc::new(Kept::new(Bytes::from(vec![0; bytes])))
    }

    #[test]
    fn pictures_are_forgotten_in_time_and_for_want_of_room() {
        let clock = Clock::manual();
        let queries = Queries::new(clock.clone(), Duration::from_secs(600), 100);
        let first = queries.keep(kept(40)).expect("kept");
        clock.advance(Duration::from_secs(1));
        let second = queries.keep(kept(40)).expect("kept");
        assert_ne!(first, second);
        clock.advance(Duration::from_secs(1));
        // Used again, it is the newer of the two.
        assert!(queries.find(&first).is_ok());
        let third = queries.keep(kept(40)).expect("kept");
        assert_eq!(queries.find(&second).expect_err("no room").code, Code::QueryExpired);
        assert!(queries.find(&first).is_ok() && queries.find(&third).is_ok());
        clock.advance(Duration::from_secs(599));
        assert!(queries.find(&first).is_ok());
        clock.advance(Duration::from_secs(1));
        assert!(queries.find(&third).is_err() && queries.find(&first).is_ok());
        clock.advance(Duration::from_secs(600));
        assert!(queries.find(&first).is_err());
        assert_eq!(queries.lock().bytes, 0);
        let huge = queries.keep(kept(101)).expect("a token");
        assert!(queries.find(&huge).is_err());
        assert!(queries.find("").is_err() && queries.find("../etc/passwd").is_err());
    }

    #[test]
    fn pixels_take_room_once_they_are_kept() {
        let clock = Clock::manual();
        let queries = Queries::new(clock.clone(), Duration::from_secs(600), 100);
        let first = queries.keep(kept(20)).expect("kept");
        clock.advance(Duration::from_secs(1));
        let second = queries.keep(kept(30)).expect("kept");
        let found = queries.find(&second).expect("kept");
        assert!(found.pixels(IccPolicy::Ignore).is_none());
        // 48 bytes; twice, as two requests may do at once.
        let pixels = Arc::new(RgbImage::new(4, 4));
        for _ in 0..2 {
            queries.keep_pixels(&second, IccPolicy::Ignore, &pixels);
            assert_eq!(queries.lock().bytes, 98);
        }
        assert!(found.pixels(IccPolicy::Ignore).is_some());
        assert!(found.pixels(IccPolicy::ConvertToSrgb).is_none());
        // Too many pixels for all the room there is, and then for the room that is left.
        queries.keep_pixels(&second, IccPolicy::Ignore, &Arc::new(RgbImage::new(5, 5)));
        assert_eq!(queries.lock().bytes, 98);
        queries.keep_pixels(&second, IccPolicy::Ignore, &Arc::new(RgbImage::new(23, 1)));
        assert_eq!(queries.lock().bytes, 99);
        assert!(queries.find(&first).is_err() && queries.find(&second).is_ok());
        queries.keep_pixels("gone", IccPolicy::Ignore, &pixels);
        assert_eq!(queries.lock().bytes, 99);
        clock.advance(Duration::from_secs(600));
        assert!(queries.find(&second).is_err());
        assert_eq!(queries.lock().bytes, 0);
    }

    #[test]
    fn embeddings_are_kept_by_what_they_are_of() {
        let kept = kept(10);
        for number in 0..=MAX_EMBEDDINGS {
            kept.remember(number.to_string(), &[number as f32]);
        }
        assert_eq!(kept.embedding("0"), None);
        assert_eq!(kept.embedding("5"), Some(vec![5.0]));
    }
}
