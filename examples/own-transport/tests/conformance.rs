//! The contract, held against a transport that the family does not know.

use std::task::{Context, Poll, Waker};

use x0_example_own_transport::{Local, Switchboard};
use x0_identity::NodeId;
use x0_mesh::conformance::{self, Bench};

/// How often in vain is too often: nothing here takes time.
const POLLS_MAX: usize = 1_000_000;

struct Threadless(Switchboard);

impl Bench for Threadless {
    type Transport = Local;

    fn start(&mut self, node: NodeId) -> Local {
        self.0.plug_in(node)
    }

    fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
        let mut cx = Context::from_waker(Waker::noop());
        assert!((0..POLLS_MAX).any(|_| poll(&mut cx).is_ready()), "the transport stalls");
    }
}

#[test]
fn the_transport_keeps_the_contract() {
    let report = conformance::check(&mut Threadless(Switchboard::default()));
    assert!(report.skipped.is_empty(), "{report:?}");
}
