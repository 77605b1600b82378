//! A minimal HTTP/1.1 client for tests.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// How long one exchange may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Status and body. `None` means that the server did not answer.
pub fn get(authority: &str, path: &str) -> Option<(u16, String)> {
    request("GET", authority, path)
}

/// Like [`get`].
pub fn post(authority: &str, path: &str) -> Option<(u16, String)> {
    request("POST", authority, path)
}

/// Like [`get`], with any method.
pub fn request(method: &str, authority: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(authority).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
