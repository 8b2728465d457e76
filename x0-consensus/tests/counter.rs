//! The example `counter` runs, and its leader is stopped halfway.

#![allow(dead_code, reason = "the example is a program, and the test does not call its main")]

#[path = "../examples/counter.rs"]
mod counter;

#[test]
fn the_example_counts_on_without_its_leader() {
    let folder = tempfile::tempdir().expect("a folder");
    counter::run(folder.path()).map_err(|error| error.to_string()).expect("it counts");
}
