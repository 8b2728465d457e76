//! Messages from a peer, to a leader and to a client that waits for answers: both go on, keep their bounds
//! and answer their caller once.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use x0_identity::NodeId;
use x0_kv::coordinator::{CoordinatorOptions, Coordinator, Input, Output};
use x0_kv::{Bytes, KeyspaceName, Mutation, Operation, Outcome};

fuzz_target!(|data: &[u8]| {
    let (peer, local) = (NodeId::new(1).unwrap(), NodeId::new(2).unwrap());
    let payload = Bytes::copy_from_slice(data);
    let mut options = CoordinatorOptions::member(local);
    options.requests_max = 16;
    let mut leader = Coordinator::new(options, 1);
    let mut client = Coordinator::new(CoordinatorOptions::client(local, vec![peer]), 2);
    let now = Duration::ZERO;
    leader.handle(now, Input::Leader { leader: Some(local), term: 1, is_self: true }).unwrap();
    for token in 0..2 {
        let mutation = Mutation::Put { key: "k".into(), value: "v".into() };
        let operation = Operation::Write { keyspace: KeyspaceName::DEFAULT, mutation };
        client.handle(now, Input::Call { token, operation, deadline: None, trace: None }).unwrap();
    }
    let mut replies = 0;
    for coordinator in [&mut leader, &mut client] {
        let _ = coordinator.handle(now, Input::Message { from: peer, payload: payload.clone() });
        assert!(coordinator.requests() <= 16);
        while let Some(output) = coordinator.poll_output() {
            match output {
                Output::Propose { token, payload, .. } => {
                    coordinator.handle(now, Input::Outcome { token, index: 1, outcome: payload }).unwrap();
                }
                Output::ReadIndex { token } => {
                    coordinator.handle(now, Input::ReadReady { token, index: 1 }).unwrap();
                }
                Output::Query { token, .. } => {
                    coordinator.handle(now, Input::Queried { token, answer: Ok(Outcome::Value(None)) }).unwrap();
                }
                Output::Reply { .. } => replies += 1,
                _ => {}
            }
        }
    }
    client.handle(Duration::from_secs(60), Input::Timeout).unwrap();
    while let Some(output) = client.poll_output() {
        replies += usize::from(matches!(output, Output::Reply { .. }));
    }
    assert_eq!((replies, client.calls(), leader.requests()), (2, 0, 0));
});
