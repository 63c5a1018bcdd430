//! A minimal HTTP client: one request for each connection.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

pub struct Answer {
    pub status: u16,
    pub text: String,
    /// How long the client waited for it.
    pub after: Duration,
}

/// A request that has been sent.
pub struct Sent {
    /// Its method and path.
    pub request: String,
    answer: JoinHandle<io::Result<Answer>>,
}

impl Sent {
    pub async fn answer(self) -> io::Result<Answer> {
        self.answer.await.expect("a client does not panic")
    }

    /// The client disconnects: its connection is closed when this returns.
    pub async fn disconnect(self) {
        self.answer.abort();
        assert!(self.answer.await.is_err(), "it disconnected before the answer");
    }
}

pub fn send(address: SocketAddr, request: String) -> Sent {
    let whole = format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let answer = tokio::spawn(async move {
        let sent = Instant::now();
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(whole.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let (status, (_, text)) = status.zip(answer.split_once("\r\n\r\n")).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Answer { status, text: text.into(), after: sent.elapsed() })
    });
    Sent { request, answer }
}
