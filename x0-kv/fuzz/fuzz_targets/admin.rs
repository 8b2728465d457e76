//! Messages to the admin engine of a leader: it keeps its bounds and answers what it accepts.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use x0_identity::NodeId;
use x0_kv::Bytes;
use x0_kv::admin::{AdminEngine, Input, Output, PeerRole};

fuzz_target!(|data: &[u8]| {
    let Some((role, payload)) = data.split_first() else { return };
    let role = [PeerRole::Member, PeerRole::Operator, PeerRole::Client][usize::from(role % 3)];
    let (local, from) = (NodeId::new(1).unwrap(), NodeId::new(2).unwrap());
    let mut engine = AdminEngine::new(local, Vec::new());
    engine.handle(Duration::ZERO, Input::Leader { leader: Some(local), term: 1 }).unwrap();
    let input = Input::Message { from, role, payload: Bytes::copy_from_slice(payload) };
    let _ = engine.handle(Duration::ZERO, input);
    assert!(engine.jobs() <= 1);
    while let Some(output) = engine.poll_output() {
        assert!(matches!(output, Output::Inspect { .. } | Output::Send { .. }));
    }
    if let Some(due) = engine.poll_timeout() {
        engine.handle(due, Input::Timeout).unwrap();
    }
    assert_eq!(engine.jobs(), 0);
});
