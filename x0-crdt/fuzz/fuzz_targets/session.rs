//! Datagrams from outside given to a session, each with its length before it: nothing panics, and no more is
//! held than allowed. The checksum of transfers is not compared in this build.
#![no_main]

use core::time::Duration;

use libfuzzer_sys::fuzz_target;
use x0_crdt::{CausalMap, HashKey, ReplicaId, Session, SessionInput, SessionOptions};

fuzz_target!(|data: &[u8]| {
    let options = SessionOptions::default().transfer_len_max(4_096);
    let mut map = CausalMap::new(ReplicaId::new(1), HashKey::new([1; 16]));
    let _ = map.put(b"key-1", 1, b"here");
    let mut session = Session::new(&options, 1);
    let mut now = Duration::ZERO;
    let mut rest = data;
    while let Some((len, after)) = rest.split_first() {
        let (datagram, after) = after.split_at(after.len().min(usize::from(*len)));
        rest = after;
        let _ = session.handle(now, SessionInput::Datagram(datagram), &mut map);
        now += Duration::from_millis(100);
        let _ = session.handle(now, SessionInput::Timeout, &mut map);
        while session.poll_output().is_some() {}
        assert!(session.pending_bytes() <= 4 * options.transfer_len_max);
    }
});
