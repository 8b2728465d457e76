//! Trace contexts: to whom they are sent, and where the decision about a request is made.

use std::sync::Arc;

use super::*;
use crate::trace::{Context, Propagator, Tracing};

/// The version byte of a message with contexts.
const WITH_CONTEXTS: u8 = 2;

/// A request that is traced by its caller.
struct Caller;

impl Propagator for Caller {
    fn current(&self) -> Option<Context> {
        Context::new([1; 16], [2; 8], Context::SAMPLED)
    }

    fn adopt(&self, _: &Context) {}
}

fn context(flags: u8) -> Option<Context> {
    Context::new([7; 16], [8; 8], flags)
}

/// A pair whose coordinators have agreed on these versions, members first, then the client.
fn negotiated(tracing: &Tracing, versions: [u16; 4]) -> Pair {
    let mut pair = Pair::with(|options| CoordinatorOptions { tracing: tracing.clone(), ..options });
    pair.elect(Some(1));
    for (from, own) in [1, 2, 3, CLIENT].into_iter().zip(versions) {
        for (peer, other) in [1, 2, 3, CLIENT].into_iter().zip(versions) {
            if peer != from {
                let (version, is_client) = (own.min(other), peer == CLIENT);
                pair.give(from, Input::Negotiated { peer: node(peer), version, is_client });
            }
        }
    }
    // Sessions are open from now on.
    for from in [2, CLIENT] {
        let warm = pair.call(from, put("warm", "up"));
        pair.settle();
        pair.reply(warm).unwrap();
    }
    pair
}

/// A call with a context. Returns the version of the message to the leader, and the context of the proposal
/// there.
fn traced_call(pair: &mut Pair, from: u64, trace: Option<Context>) -> (u8, Option<Context>) {
    let (token, operation) = (9, put("a", "1"));
    pair.give(from, Input::Call { token, operation, deadline: None, trace });
    let version = pair.in_flight[0].2[0];
    // By hand, so that the context of the proposal is seen.
    let (now, (sender, to, payload)) = (pair.now, pair.in_flight.pop_front().unwrap());
    let member = &mut pair.members.get_mut(&to.get()).unwrap().coordinator;
    member.handle(now, Input::Message { from: node(sender), payload }).unwrap();
    let mut proposed = None;
    while let Some(output) = member.poll_output() {
        match output {
            Output::Propose { token, payload, trace } => proposed = Some((token, payload, trace)),
            Output::Send { to: next, payload } => pair.in_flight.push_back((to.get(), next, payload)),
            _ => {}
        }
    }
    let (token, payload, trace) = proposed.expect("the leader proposes it");
    let outcome = pair.commit(payload);
    pair.give(1, Input::Outcome { token, index: pair.log.len() as u64, outcome });
    pair.settle();
    pair.reply(9).unwrap();
    (version, trace)
}

#[test]
fn a_context_reaches_the_leader_unless_a_peer_does_not_read_it() {
    let off = Tracing::default();
    let traced = context(Context::SAMPLED);
    for (versions, expected) in
        [([2, 2, 2, 2], (WITH_CONTEXTS, traced)), ([1, 2, 2, 2], (1, None)), ([2, 1, 2, 1], (1, None))]
    {
        for from in [2, CLIENT] {
            let mut pair = negotiated(&off, versions);
            // The client begins at any member: the leader is known to it by now.
            assert_eq!(traced_call(&mut pair, from, traced), expected, "{from} {versions:?}");
            assert_eq!(traced_call(&mut pair, from, None), (1, None), "without a trace");
        }
    }
    // After its connection has ended a peer is one of the first version.
    let mut pair = negotiated(&off, [2, 2, 2, 2]);
    pair.give(2, Input::Negotiated { peer: node(1), version: 1, is_client: false });
    assert_eq!(traced_call(&mut pair, 2, traced), (1, None));
    assert!(!pair.coordinator(2).peers.contains_key(&node(1)));
}

#[test]
fn the_decision_is_made_where_an_operation_enters() {
    // Without a subscriber there is no span, and without a span no context.
    #[cfg(feature = "tracing")]
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry());
    let all = Tracing::new(Arc::new(Caller)).ratio(1.0);
    let mut pair = negotiated(&all, [2, 2, 2, 2]);
    // A client need not know of traces; the member decides for it, and not for another member.
    let (version, trace) = traced_call(&mut pair, CLIENT, None);
    assert_eq!((version, trace.is_some()), (1, cfg!(feature = "tracing")));
    assert_eq!(traced_call(&mut pair, 2, None), (1, None));
    // A context that is not sampled was decided upon.
    assert_eq!(traced_call(&mut pair, CLIENT, context(0)).1, None);
    // None is drawn.
    let mut pair = negotiated(&Tracing::new(Arc::new(Caller)), [2, 2, 2, 2]);
    assert_eq!(traced_call(&mut pair, CLIENT, None), (1, None));
}
