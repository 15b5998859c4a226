//! A body, received whole before anything is done with it: no slow client holds a turn, and what is
//! too large ends here.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use bytes::BytesMut;
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::limits::Limits;
use super::queue::{Budget, Taken};
use crate::problem::{Answer, Code, Problem};

/// Bytes that are set aside before any has come.
const FIRST: u64 = 1 << 20;
/// How long a body may be as slow as it likes.
const GRACE: Duration = Duration::from_secs(5);

/// Receives a body. What it takes of the budget is given back with the second part.
///
/// # Errors
/// It is too large, too slow, cut off, or there is no room for it now.
pub async fn receive(
    mut body: Body,
    headers: &HeaderMap,
    limits: &Limits,
    budget: &Arc<Budget>,
) -> Answer<(Bytes, Taken)> {
    let mut taken = budget.open();
    if body.is_end_stream() {
        return Ok((Bytes::new(), taken));
    }
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if let Some(length) = announced.filter(|&length: &u64| length > limits.body_bytes) {
        return Err(too_large(&length, limits));
    }
    let start = Instant::now();
    let likely = announced.unwrap_or_default().min(FIRST);
    let mut received = BytesMut::with_capacity(likely as usize);
    loop {
        let left = (start + limits.body_time).saturating_duration_since(Instant::now());
        let wait = limits.body_pause.min(left);
        let Ok(frame) = tokio::time::timeout(wait, body.frame()).await else {
            return Err(too_slow(received.len(), start.elapsed()));
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| {
            Problem::new(Code::BadRequest, "the request's body was cut off or is malformed")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let length = received.len() as u64 + data.len() as u64;
        if length > limits.body_bytes {
            return Err(too_large(&"more", limits));
        }
        if !taken.more(data.len() as u64) {
            return Err(Problem::new(Code::Overloaded, "too much is being uploaded at once")
                .remedy("try again in a moment")
                .retry_after(Duration::from_secs(2)));
        }
        let elapsed = start.elapsed();
        received.extend_from_slice(&data);
        let least = limits.body_rate as f64 * elapsed.as_secs_f64();
        if elapsed > GRACE && (length as f64) < least {
            return Err(too_slow(received.len(), elapsed));
        }
    }
    Ok((received.freeze(), taken))
}

fn too_large(length: &dyn std::fmt::Display, limits: &Limits) -> Problem {
    let limit = limits.body_bytes;
    let detail = format!("the body has {length} bytes, the limit is {limit}");
    Problem::new(Code::BodyTooLarge, detail)
        .remedy("send smaller or fewer pictures, or have the operator raise --max-upload")
}

fn too_slow(received: usize, elapsed: Duration) -> Problem {
    let seconds = elapsed.as_secs();
    let detail = format!("{received} bytes of the body came in {seconds} s, which is too slow");
    Problem::new(Code::SlowRequest, detail).remedy("send it again over a faster connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { body_bytes: 1000, body_rate: 10, ..Limits::default() }
    }

    /// A body of so many frames, each of so many bytes, after a pause.
    fn slow(frames: usize, bytes: usize, pause: Duration) -> Body {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        tokio::spawn(async move {
            for _ in 0..frames {
                tokio::time::sleep(pause).await;
                if sender.send(Bytes::from(vec![0; bytes])).await.is_err() {
                    break;
                }
            }
        });
        Body::new(Frames(Box::new(move |cx| receiver.poll_recv(cx))))
    }

    type Poll = dyn FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<Bytes>> + Send;

    struct Frames(Box<Poll>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            (self.0)(cx).map(|bytes| bytes.map(|bytes| Ok(http_body::Frame::data(bytes))))
        }
    }

    async fn code(body: Body, headers: &HeaderMap, budget: u64) -> Result<usize, Code> {
        let budget = Arc::new(Budget::new(budget));
        let received = receive(body, headers, &limits(), &budget).await;
        received.map(|(bytes, _)| bytes.len()).map_err(|problem| problem.code)
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_are_bounded_in_size_and_time() {
        let none = HeaderMap::new();
        let seconds = Duration::from_secs;
        assert_eq!(code(Body::empty(), &none, 0).await, Ok(0));
        assert_eq!(code(slow(10, 100, seconds(1)), &none, 1000).await, Ok(1000));
        let large = code(slow(11, 100, seconds(0)), &none, 9999).await;
        assert_eq!(large, Err(Code::BodyTooLarge));
        let dripping = code(slow(100, 1, seconds(1)), &none, 9999).await;
        assert_eq!(dripping, Err(Code::SlowRequest));
        let silent = code(slow(2, 10, seconds(11)), &none, 9999).await;
        assert_eq!(silent, Err(Code::SlowRequest));
        assert_eq!(code(slow(5, 100, seconds(0)), &none, 499).await, Err(Code::Overloaded));
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_size_is_refused_before_a_byte_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, 1001.into());
        let start = Instant::now();
        let body = slow(1, 1, Duration::from_secs(9));
        assert_eq!(code(body, &headers, 9999).await, Err(Code::BodyTooLarge));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
