//! The examples do what they say.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../examples/service.rs"]
mod service;

#[test]
fn the_service_answers() {
    service::main().unwrap();
}
