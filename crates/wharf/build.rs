//! Links `wharf` statically and at a fixed address.
//!
//! A short-lived process spends a third of its life in the dynamic loader; without it every call starts
//! about 0.3 ms sooner. `-C target-feature=+crt-static` would do the same, but cargo applies it to proc
//! macros as well, which cannot be static, unless `--target` is given, which moves the binary out of
//! `target/release`. So only the final link of the binary is changed here: the C libraries that rustc
//! asks for are found first in a directory of one-line linker scripts that name their archives.
//!
//! A release binary has the functions of the everyday calls side by side (`layout.ld`, see
//! `xtask/src/layout.rs`), which saves them a sixth of their time in page faults.

use std::{env, fs, path::Path, process::Command};

/// What rustc links a Linux/glibc program against, and the archive that serves each request.
/// `libgcc_s` exists as a shared object only; its static form is `libgcc_eh`.
const ARCHIVES: [(&str, &str); 7] = [
    ("gcc_s", "gcc_eh"),
    ("util", "util"),
    ("rt", "rt"),
    ("pthread", "pthread"),
    ("m", "m"),
    ("dl", "dl"),
    ("c", "c"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=layout.ld");
    let native = env::var("HOST") == env::var("TARGET");
    if !native || env::var("CARGO_CFG_TARGET_ENV").as_deref() != Ok("gnu") {
        return;
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    for (asked, archive) in ARCHIVES {
        let Some(path) = archive_path(archive) else {
            println!("cargo::warning=lib{archive}.a not found: linking dynamically");
            return;
        };
        let script = format!("GROUP({path})\n");
        fs::write(Path::new(&out).join(format!("lib{asked}.a")), script)
            .expect("OUT_DIR is writable");
    }
    for arg in ["-static", "-no-pie", &format!("-L{out}")] {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
    if env::var("PROFILE").as_deref() == Ok("release") {
        let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
        let layout = ["-T".to_owned(), format!("{root}/layout.ld")];
        if linker_takes(&layout, &out) {
            for arg in layout {
                println!("cargo::rustc-link-arg-bins={arg}");
            }
        }
    }
}

/// Whether the linker that rustc will use links an empty program with these arguments. lld and GNU ld do; gold and mold
/// know no such scripts, and without it the program is as good, only slower to start.
fn linker_takes(args: &[String], out: &str) -> bool {
    let source = Path::new(out).join("empty.rs");
    fs::write(&source, "fn main() {}\n").expect("OUT_DIR is writable");
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"));
    rustc.args(["--crate-name", "empty", "--out-dir", out]);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    rustc.args(args.iter().map(|arg| format!("-Clink-arg={arg}")));
    rustc
        .arg(source)
        .output()
        .is_ok_and(|done| done.status.success())
}

/// The C compiler's own answer; it echoes the bare name when it has no such file.
fn archive_path(name: &str) -> Option<String> {
    let file = format!("lib{name}.a");
    let out = Command::new("cc")
        .arg(format!("-print-file-name={file}"))
        .output()
        .ok()?;
    let path = String::from_utf8(out.stdout).ok()?.trim().to_owned();
    (path != file).then_some(path)
}
