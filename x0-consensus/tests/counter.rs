//! The example `counter` runs, its leader being stopped halfway.

#![allow(dead_code, reason = "an example is a program, and only its work is run here")]

#[path = "../examples/counter.rs"]
mod counter;

#[test]
fn the_example_counts_on_without_its_leader() {
    let folder = tempfile::tempdir().expect("a folder");
    counter::run(folder.path()).map_err(|error| error.to_string()).expect("it counts");
}
