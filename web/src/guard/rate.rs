//! How often one caller may ask: a bucket of tokens for each, refilled at a steady rate.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Callers remembered; those who could be forgotten are, before a new one is refused a place.
const MAX_CALLERS: usize = 50_000;

/// Whom a limit is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// The holder of a key, by its id.
    Key(String),
    /// An IPv4 address, or the /64 network of an IPv6 address, which one customer has whole.
    Address(IpAddr),
    /// All who came when no more callers could be remembered.
    Others,
}

impl Caller {
    /// The caller behind an address.
    pub fn at(address: IpAddr) -> Self {
        Self::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The buckets of all callers.
#[derive(Debug)]
pub struct Rates {
    per_second: f64,
    burst: f64,
    callers: usize,
    buckets: Mutex<HashMap<Caller, Bucket>>,
}

impl Rates {
    /// Limits of each caller; a rate of 0 is none.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            burst: f64::from(burst.max(1)),
            callers: MAX_CALLERS,
            buckets: Mutex::default(),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// There is none; how long until there is.
    pub fn take(&self, caller: &Caller, now: Instant) -> Result<(), Duration> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if !buckets.contains_key(caller) && buckets.len() >= self.callers {
            // A full bucket is like none.
            buckets.retain(|_, bucket| self.filled(bucket, now) < self.burst);
        }
        let caller = match buckets.len() < self.callers || buckets.contains_key(caller) {
            true => caller.clone(),
            false => Caller::Others,
        };
        let full = Bucket { tokens: self.burst, at: now };
        let bucket = buckets.entry(caller).or_insert(full);
        *bucket = Bucket { tokens: self.filled(bucket, now), at: now };
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / self.per_second));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    fn filled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.tokens + passed * self.per_second).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Caller {
        Caller::at(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn a_burst_then_a_steady_rate_for_each_caller() {
        let rates = Rates::new(10, 3);
        let now = Instant::now();
        let one = address(1);
        assert!((0..3).all(|_| rates.take(&one, now).is_ok()));
        let wait = rates.take(&one, now).expect_err("empty");
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
        assert!(rates.take(&address(2), now).is_ok(), "another caller");
        assert!(rates.take(&one, now + wait).is_ok());
        assert!(rates.take(&one, now + wait).is_err());
    }

    #[test]
    fn many_callers_take_bounded_memory() {
        let rates = Rates { callers: 4, ..Rates::new(1, 1) };
        let now = Instant::now();
        let refused = (0..200).filter(|&last| rates.take(&address(last), now).is_err()).count();
        assert_eq!(refused, 195, "four places, and one for all others");
        assert!(rates.buckets.lock().expect("lock").len() <= 5);
        let later = now + Duration::from_secs(5);
        assert!(rates.take(&address(201), later).is_ok(), "full buckets are forgotten");
    }

    #[test]
    fn a_network_is_one_caller_and_zero_is_no_limit() {
        let at = |text: &str| Caller::at(text.parse().expect("an address"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:2"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        let rates = Rates::new(0, 0);
        assert!((0..100).all(|_| rates.take(&address(1), Instant::now()).is_ok()));
    }
}
