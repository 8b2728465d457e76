//! Bytes that the kernel, or a file that stands in for it, hands over: nothing panics, nothing is made of
//! nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_ebpf::{capabilities, stats};

fuzz_target!(|data: &[u8]| {
    stats::fuzz::proc_net_dev(data);
    stats::fuzz::netlink(data);
    capabilities::fuzz::all(data);
});
