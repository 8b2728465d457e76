//! Bodies of `/api/v1/rag`: a refusal that names a field, or a request that is written and read again as
//! itself.
#![no_main]
#![allow(dead_code, reason = "the module of the node is used in part")]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/rag/message.rs"]
mod message;

use message::{DocumentRequest, QueryRequest, parse};

fuzz_target!(|body: &[u8]| {
    match parse::<QueryRequest>(body) {
        Ok(request) => {
            if let Err(refused) = request.check() {
                assert!(!refused.field.is_empty() && !refused.detail.is_empty());
            }
            let again = serde_json::to_vec(&request).unwrap();
            assert!(parse::<QueryRequest>(&again).unwrap() == request);
        }
        Err(refused) => assert!(!refused.detail.is_empty()),
    }
    if let Ok(request) = parse::<DocumentRequest>(body) {
        let again = serde_json::to_vec(&request).unwrap();
        assert!(serde_json::to_vec(&parse::<DocumentRequest>(&again).unwrap()).unwrap() == again);
    }
});
