//! One question to an HTTP server on a Unix socket: as much as dockerd's interface takes.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a request and gives the body of the answer. What the server refuses is an error with its words.
pub fn ask(socket: &Path, method: &str, path: &str, kind: &str, body: &[u8]) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // With 1.0 the answer is as long as the connection, and in one piece.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer)
}

/// The body of a successful answer (RFC 1945, 6).
fn parse(answer: &str) -> io::Result<String> {
    let no_answer = || io::Error::other(format!("not an HTTP answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(no_answer)?;
    let status = head.lines().next().unwrap_or_default();
    let code = status.split(' ').nth(1).ok_or_else(no_answer)?;
    if code.starts_with('2') {
        Ok(body.to_owned())
    } else {
        Err(io::Error::other(format!("{status}: {}", body.trim())))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn success_has_a_body_and_a_refusal_is_an_error() {
        assert_eq!(
            parse("HTTP/1.0 201 Created\r\nA: b\r\n\r\n{}").unwrap(),
            "{}"
        );
        let refused = parse("HTTP/1.0 404 Not Found\r\n\r\n{\"message\":\"no such network\"}\n");
        assert_eq!(
            refused.unwrap_err().to_string(),
            "HTTP/1.0 404 Not Found: {\"message\":\"no such network\"}"
        );
        assert!(parse("").is_err());
    }
}
