//! Limits of requests and connections, with their defaults. docs/security.md has the same list.

use std::time::Duration;

/// What one caller, one request and one connection may cost.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: u64,
    /// Bytes of all bodies being received or worked on.
    pub bodies_bytes: u64,
    /// Requests a second of one key or address, in the long run; 0 for no such limit.
    pub rate: u32,
    /// Requests a key or address may make at once after a rest.
    pub burst: u32,
    /// Requests being worked on.
    pub in_flight: usize,
    /// Requests waiting for their turn; further ones are refused.
    pub waiting: usize,
    /// Longest wait for a turn.
    pub wait: Duration,
    /// Longest work on a request. Neither the time in which its body arrives counts, nor that in
    /// which it waits.
    pub work: Duration,
    /// Longest time in which a body must have arrived.
    pub body_time: Duration,
    /// Longest pause within a body.
    pub body_pause: Duration,
    /// Least bytes a second of a body, in the mean, after its first seconds.
    pub body_rate: u64,
    /// Longest time for the head of a request, and for a connection without one.
    pub head_time: Duration,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Fields in a request's head.
    pub head_fields: usize,
    /// Bytes of a path with its query.
    pub target_bytes: usize,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address.
    pub connections_per_address: usize,
    /// Longest time in which a client takes none of an answer.
    pub stall: Duration,
    /// Longest time for requests under way once the server is told to end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 33 << 20,
            bodies_bytes: 512 << 20,
            rate: 200,
            burst: 400,
            in_flight: 64,
            waiting: 256,
            wait: Duration::from_secs(10),
            work: Duration::from_secs(60),
            body_time: Duration::from_secs(300),
            body_pause: Duration::from_secs(10),
            body_rate: 8 << 10,
            head_time: Duration::from_secs(15),
            head_bytes: 32 << 10,
            head_fields: 64,
            target_bytes: 8 << 10,
            connections: 1024,
            connections_per_address: 256,
            stall: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}
