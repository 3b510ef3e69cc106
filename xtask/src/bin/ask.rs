//! Asks an HTTP server on a Unix socket, with the standard input as the body: what a client of dockerd costs at least.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, method, path] = arguments.as_slice() else {
        eprintln!("usage: ask SOCKET METHOD PATH <BODY");
        return ExitCode::from(2);
    };
    let mut body = Vec::new();
    let answer = std::io::stdin()
        .read_to_end(&mut body)
        .and_then(|_| xtask::http::ask(Path::new(socket), method, path, "application/json", &body));
    match answer {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ask: {method} {path}: {error}");
            ExitCode::FAILURE
        }
    }
}
