use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::*;

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn server(limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let routes = Router::new()
        .route("/", get(async || "here\n"))
        .route("/refuse", post(async || "no\n"))
        .route("/large", get(async || vec![b'x'; 64 << 20]));
    let connections = Connections { limits, tls: None };
    let done = tokio::spawn(connections.serve(listener, routes, async {
        let _ = stopped.await;
    }));
    Server { address, stop, done }
}

async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(request).await.expect("write");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed() {
    let server = server(Limits { head_time: SHORT, ..Limits::default() }).await;
    let answer = ask(server.address, b"GET / HTTP/1.1\r\nhost: x\r\n").await;
    assert!(!answer.contains("here"), "{answer}");
    let answer = ask(server.address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.ends_with("here\n"), "and then closed, though nobody asked for it: {answer}");
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = server(Limits::default()).await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(100 << 10));
    let answer = ask(server.address, long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(100));
    let answer = ask(server.address, many.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn an_answer_reaches_a_client_that_is_still_sending() {
    let server = server(Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    let head = b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 50000000\r\n\r\n";
    stream.write_all(head).await.expect("write");
    let block = vec![0; 1 << 20];
    // More than the system's buffers hold; the answer was sent before the first of it.
    for _ in 0..20 {
        stream.write_all(&block).await.expect("the server reads on");
    }
    stream.shutdown().await.expect("shut down");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert!(answer.ends_with("no\n"), "{answer}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_left() {
    let limits = Limits { stall: SHORT, connections: 1, ..Limits::default() };
    let server = server(limits).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("write");
    // There is one place; it becomes free only because the first connection is given up.
    let answer =
        ask(server.address, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("here\n"), "{answer}");
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let server = server(Limits { connections_per_address: 1, ..Limits::default() }).await;
    let mut first = TcpStream::connect(server.address).await.expect("connect");
    first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("write");
    let mut byte = [0];
    first.read_exact(&mut byte).await.expect("an answer");
    let mut second = TcpStream::connect(server.address).await.expect("connect");
    let refused = second.read(&mut byte).await;
    assert!(matches!(refused, Ok(0) | Err(_)), "{refused:?}");
}

#[tokio::test]
async fn it_ends_when_told_and_answers_what_it_has() {
    let server = server(Limits::default()).await;
    let mut idle = TcpStream::connect(server.address).await.expect("connect");
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("write");
    let mut byte = [0];
    idle.read_exact(&mut byte).await.expect("an answer");
    server.stop.send(()).expect("running");
    server.done.await.expect("joined").expect("served");
    let mut rest = String::new();
    idle.read_to_string(&mut rest).await.expect("closed in order");
    assert!(rest.ends_with("here\n"), "{rest}");
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens");
}
