//! Frames of an Ethernet link, and messages of netlink about its interface: nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| x0_mesh::fuzz::ethernet(data));
