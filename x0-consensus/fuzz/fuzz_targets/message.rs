//! Messages of a member of the group: refused, accepted, or a failure of the replica with a reason; never a
//! panic.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use x0_consensus::{Bytes, Options, FailReason, HandleError, Input, MemoryStorage, NodeId, Output, Replica, Storage};

fuzz_target!(|messages: Vec<(bool, Vec<u8>)>| {
    let id = |number| NodeId::new(number).expect("not zero");
    let mut storage = MemoryStorage::new();
    let options = Options::new(id(1)).bootstrap([1, 2, 3].map(id));
    let recovered = storage.recover().expect("a new one");
    let mut replica = Replica::new(options, recovered, &[], 0, Duration::ZERO).expect("it fits");
    for (is_second, bytes) in messages {
        let mut payload = vec![1];
        payload.extend(bytes);
        let from = if is_second { id(2) } else { id(3) };
        let now = replica.poll_timeout().unwrap_or_default();
        let result = replica.handle(now, Input::Message { from, payload: Bytes::from(payload) });
        assert!(!matches!(result, Err(HandleError::Failed(FailReason::Internal))));
        while let Some(output) = replica.poll_output() {
            if let Output::Append { number, write } = output {
                storage.write(&[write]).expect("in memory");
                let _ = replica.handle(now, Input::Persisted { number });
            }
        }
        let _ = replica.handle(now, Input::Timeout);
    }
});
