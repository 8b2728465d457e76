//! Messages of the status service and of CRDT stores: each is refused, or encoded and decoded to itself. The
//! first byte chooses the service.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| match data.split_first() {
    Some((0, message)) => x0_kv::fuzz::status(message),
    Some((_, message)) => x0_kv::fuzz::crdt(message),
    None => {}
});
