//! Connections: accepted up to a number, with a clock on everything a client can be slow at.

mod stream;

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::Service;

use self::stream::Timed;
use super::limits::Limits;
use crate::tls::Tls;

/// Wait before the next try when the system has no more files for connections.
const BREATH: Duration = Duration::from_millis(100);
/// How long, and how much, is read of a client that still sends what nobody wants, so that it gets
/// to the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 << 20;

/// How connections are served.
#[derive(Clone)]
pub struct Connections {
    /// Limits of connections.
    pub limits: Limits,
    /// Encrypts, if set.
    pub tls: Option<Tls>,
}

/// Connections of each address.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

impl Connections {
    /// Serves until `shutdown` completes; then takes no new connection, lets requests under way end
    /// for as long as the limits say, and returns.
    ///
    /// # Errors
    /// The listener has no address.
    pub async fn serve(
        self,
        listener: TcpListener,
        routes: Router,
        shutdown: impl Future<Output = ()>,
    ) -> std::io::Result<()> {
        listener.local_addr()?;
        let places = Arc::new(Semaphore::new(self.limits.connections.max(1)));
        let counts = Counts::default();
        let (stop, stopped) = watch::channel(false);
        let drain = self.limits.drain;
        let served = Arc::new(self);
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let next = async {
                // Without a place, clients wait in the system's queue.
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, (stream, peer)) = tokio::select! {
                () = &mut shutdown => break,
                (place, accepted) = next => match (place, accepted) {
                    (Ok(place), Ok(accepted)) => (place, accepted),
                    (_, Err(error)) => {
                        // One client that has left again, or no more files.
                        tracing::debug!(%error, "a connection was not accepted");
                        tokio::time::sleep(BREATH).await;
                        continue;
                    }
                    (Err(_), _) => break,
                },
            };
            let most = served.limits.connections_per_address;
            let Some(counted) = Counted::new(&counts, peer.ip(), most) else {
                tracing::debug!(%peer, "too many connections of one address");
                continue;
            };
            let (served, routes) = (Arc::clone(&served), routes.clone());
            let stopped = stopped.clone();
            tokio::spawn(async move {
                served.connection(stream, peer, routes, stopped).await;
                drop((place, counted));
            });
        }
        drop((listener, stopped));
        let _ = stop.send(true);
        // Every connection holds a receiver; when the last is gone, all are done.
        if tokio::time::timeout(drain, stop.closed()).await.is_err() {
            tracing::warn!("requests were still under way after {} s", drain.as_secs());
        }
        Ok(())
    }

    async fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        routes: Router,
        stopped: watch::Receiver<bool>,
    ) {
        // Answers are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let stream = Timed::new(stream, self.limits.stall);
        match &self.tls {
            None => self.requests(stream, peer, routes, stopped).await,
            Some(Tls(tls)) => {
                let handshake = tokio::time::timeout(self.limits.head_time, tls.accept(stream));
                match handshake.await {
                    Ok(Ok(stream)) => self.requests(stream, peer, routes, stopped).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
                    Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                }
            }
        }
    }

    async fn requests<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        routes: Router,
        mut stopped: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            // A router is always ready.
            routes.clone().call(request)
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_time)
            .max_headers(self.limits.head_fields)
            // Of which the head must fit in.
            .max_buf_size(self.limits.head_bytes.max(8192))
            .serve_connection(TokioIo::new(stream), service);
        // Owns the receiver, by which the server knows that this connection is not done yet.
        let mut told = Box::pin(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
            stopped
        });
        let mut kept = None;
        let done = std::future::poll_fn(|cx| {
            if kept.is_none()
                && let Poll::Ready(stopped) = told.as_mut().poll(cx)
            {
                kept = Some(stopped);
                Pin::new(&mut connection).graceful_shutdown();
            }
            connection.poll_without_shutdown(cx)
        });
        if let Err(error) = done.await {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
        linger(connection.into_parts().io.into_inner()).await;
    }
}

/// Ends a connection so that the last answer arrives. With unread bytes of the client in hand, the
/// system would reset the connection, and the client might never see the answer.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let end = async {
        stream.shutdown().await?;
        let mut buffer = vec![0; 16 << 10];
        let mut read = 0;
        while read < LINGER_BYTES {
            match stream.read(&mut buffer).await? {
                0 => break,
                more => read += more,
            }
        }
        Ok::<(), std::io::Error>(())
    };
    let _ = tokio::time::timeout(LINGER, end).await;
}

/// One connection of an address; no longer counted when this is dropped.
struct Counted {
    counts: Counts,
    address: IpAddr,
}

impl Counted {
    /// `None` when the address has as many as it may have.
    fn new(counts: &Counts, address: IpAddr, most: usize) -> Option<Self> {
        let mut all = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Self { counts: Arc::clone(counts), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests;
