//! Recorded messages of version 1: they must be readable, and mean what they meant.
//!
//! `X0_KV_RECORD=1 cargo test -p x0-kv --all-features --lib recorded` records again, which is right only as
//! long as nothing is released.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use bytes::Bytes;

fn hex(messages: &[Bytes]) -> String {
    let line = |message: &Bytes| message.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    messages.iter().map(line).collect()
}

fn unhex(text: &str) -> Vec<Bytes> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect::<Vec<u8>>().into()).collect()
}

/// The messages recorded under `name`, which `made` must still be equal to.
pub(crate) fn recorded(name: &str, made: &[Bytes]) -> Vec<Bytes> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/services").join(name);
    if std::env::var_os("X0_KV_RECORD").is_some() {
        std::fs::write(&path, hex(made)).unwrap();
    }
    let messages = unhex(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(messages, made, "{name}: the encoding has changed");
    messages
}
