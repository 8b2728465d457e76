//! Engines that forward to each other, roles, time, recorded messages and hostile bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use x0_consensus::{Membership, MembershipChange};
use x0_identity::NodeId;

use super::message::tests::messages;
use super::message::{self, Message};
use super::{
    AdminEngine, AdminError, AdminReply, AdminRequest, Group, HandleError, Input, Output, PeerRole, Progress,
    StepError,
};
use crate::request::member::{MemberChange, Members};

const SECOND: Duration = Duration::from_secs(1);

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// The id of an operator's connection.
fn operator() -> NodeId {
    id(1 << 63 | 9)
}

fn membership() -> Membership {
    Membership { voters: [1, 2, 3].map(id).into(), ..Membership::default() }
}

/// Node 1 leads voters 1 to 3, all of them reached.
fn group() -> Group {
    let progress = |number| Progress {
        node: id(number),
        matched: 100,
        is_receiving_snapshot: false,
        silent_for: Some(Duration::ZERO),
    };
    Group {
        local: id(1),
        term: 2,
        committed: 100,
        membership: membership(),
        members: Arc::default(),
        progress: [2, 3].map(progress).into(),
    }
}

fn engine(number: u64, leader: u64) -> AdminEngine {
    let mut engine = AdminEngine::new(id(number), Vec::new());
    engine.handle(Duration::ZERO, Input::Leader { leader: Some(id(leader)), term: 2 }).unwrap();
    engine
}

fn request(request: AdminRequest) -> Bytes {
    message::encode(&Message::Request { number: 5, request })
}

fn sent(engine: &mut AdminEngine) -> (NodeId, Bytes) {
    match engine.poll_output() {
        Some(Output::Send { to, payload }) => (to, payload),
        other => panic!("{other:?}"),
    }
}

fn from_operator(engine: &mut AdminEngine, payload: Bytes) {
    let input = Input::Message { from: operator(), role: PeerRole::Operator, payload };
    engine.handle(Duration::ZERO, input).unwrap();
}

fn response(payload: &Bytes) -> Result<AdminReply, AdminError> {
    match message::decode(payload).unwrap() {
        Message::Response { number: 5, result } => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_at_any_member_is_carried_out_by_the_leader() {
    let (mut follower, mut leader) = (engine(2, 1), engine(1, 1));
    from_operator(&mut follower, request(AdminRequest::Remove { node: id(3) }));
    let (to, payload) = sent(&mut follower);
    assert_eq!(to, id(1));
    let forwarded = Input::Message { from: id(2), role: PeerRole::Member, payload };
    leader.handle(Duration::ZERO, forwarded).unwrap();
    let Some(Output::Inspect { token }) = leader.poll_output() else { panic!() };
    leader.handle(Duration::ZERO, Input::Inspected { token, group: group() }).unwrap();
    let change = MembershipChange::default().remove(id(3));
    let fence = x0_consensus::Fence { term: group().term, membership: group().membership };
    assert_eq!(leader.poll_output(), Some(Output::Change { token, fence, change }));
    // Busy with another change: the same step is tried again after a pause.
    leader.handle(Duration::ZERO, Input::Done { token, result: Err(StepError::InProgress) }).unwrap();
    assert_eq!(leader.poll_output(), None);
    let due = leader.poll_timeout().unwrap();
    leader.handle(due, Input::Timeout).unwrap();
    assert_eq!(leader.poll_output(), Some(Output::Inspect { token }));
    leader.handle(due, Input::Inspected { token, group: group() }).unwrap();
    assert!(matches!(leader.poll_output(), Some(Output::Change { .. })));
    leader.handle(due, Input::Done { token, result: Ok(()) }).unwrap();
    let change = MemberChange::Remove { node: id(3) };
    assert_eq!(leader.poll_output(), Some(Output::Propose { token, change }));
    leader.handle(due, Input::Done { token, result: Ok(()) }).unwrap();
    let (to, payload) = sent(&mut leader);
    assert_eq!(to, id(2));
    follower.handle(due, Input::Message { from: id(1), role: PeerRole::Member, payload }).unwrap();
    let (to, payload) = sent(&mut follower);
    assert_eq!((to, response(&payload)), (operator(), Ok(AdminReply::Done)));
    assert_eq!((leader.jobs(), follower.jobs()), (0, 0));
    assert_eq!((leader.poll_timeout(), follower.poll_timeout()), (None, None));
}

#[test]
fn only_operators_and_the_members_that_speak_for_them_are_heard() {
    let own = AdminRequest::SetAddresses { node: id(2), addresses: vec!["a:1".into()] };
    let other = AdminRequest::SetAddresses { node: id(3), addresses: vec!["a:1".into()] };
    let forwarded = message::encode(&Message::Forwarded { number: 5, request: AdminRequest::Members });
    let check = |from: NodeId, role, payload: &Bytes, is_heard: bool| {
        let mut leader = engine(1, 1);
        let input = Input::Message { from, role, payload: payload.clone() };
        let handled = leader.handle(Duration::ZERO, input);
        if is_heard {
            assert_eq!(handled, Ok(()));
            assert!(matches!(leader.poll_output(), Some(Output::Inspect { .. })));
        } else {
            assert_eq!(handled, Err(HandleError::Role { from }));
            assert_eq!(response(&sent(&mut leader).1), Err(AdminError::NotAnOperator));
            assert_eq!(leader.jobs(), 0);
        }
    };
    let list = request(AdminRequest::Members);
    check(operator(), PeerRole::Operator, &list, true);
    check(operator(), PeerRole::Client, &list, false);
    check(id(2), PeerRole::Member, &list, false);
    check(id(2), PeerRole::Member, &forwarded, true);
    check(operator(), PeerRole::Operator, &forwarded, false);
    check(operator(), PeerRole::Client, &forwarded, false);
    check(id(2), PeerRole::Member, &request(own.clone()), true);
    check(id(2), PeerRole::Member, &request(other), false);
    check(operator(), PeerRole::Client, &request(own), false);
}

#[test]
fn a_leader_that_is_removed_hands_the_request_to_its_successor() {
    let mut leader = engine(1, 1);
    from_operator(&mut leader, request(AdminRequest::Remove { node: id(1) }));
    let Some(Output::Inspect { token }) = leader.poll_output() else { panic!() };
    leader.handle(SECOND, Input::Inspected { token, group: group() }).unwrap();
    assert_eq!(leader.poll_output(), Some(Output::Transfer { to: id(2) }));
    leader.handle(SECOND, Input::Leader { leader: None, term: 3 }).unwrap();
    assert_eq!(leader.poll_output(), None);
    leader.handle(SECOND, Input::Leader { leader: Some(id(2)), term: 3 }).unwrap();
    let (to, payload) = sent(&mut leader);
    assert_eq!(to, id(2));
    assert!(matches!(message::decode(&payload), Ok(Message::Forwarded { .. })));
}

#[test]
fn a_transfer_is_done_when_another_node_leads() {
    let plain = AdminRequest::Transfer { to: None };
    let planned = AdminRequest::Planned {
        voters: membership().voters,
        request: Box::new(AdminRequest::Transfer { to: None }),
    };
    for request in [plain, planned] {
        let mut leader = engine(1, 1);
        leader.handle(SECOND, Input::Call { token: 7, request }).unwrap();
        let Some(Output::Inspect { token }) = leader.poll_output() else { panic!() };
        leader.handle(SECOND, Input::Inspected { token, group: group() }).unwrap();
        assert_eq!(leader.poll_output(), Some(Output::Transfer { to: id(2) }));
        leader.handle(SECOND, Input::Leader { leader: Some(id(2)), term: 3 }).unwrap();
        assert_eq!(leader.poll_output(), Some(Output::Reply { token: 7, result: Ok(AdminReply::Done) }));
    }
}

/// The wire has no form for such a request.
#[test]
fn a_plan_that_no_group_can_carry_out_is_refused_where_it_begins() {
    let planned = |voters: std::ops::Range<u64>, request: AdminRequest| AdminRequest::Planned {
        voters: voters.map(id).collect(),
        request: Box::new(request),
    };
    let transfer = AdminRequest::Transfer { to: None };
    for (request, why) in [
        (planned(1..4, planned(1..4, transfer.clone())), AdminError::NestedPlan),
        (planned(1..10_000, transfer), AdminError::PlanTooLarge { voters: 9_999 }),
    ] {
        let mut follower = engine(2, 1);
        follower.handle(SECOND, Input::Call { token: 7, request }).unwrap();
        assert_eq!(follower.poll_output(), Some(Output::Reply { token: 7, result: Err(why) }));
        assert_eq!((follower.poll_output(), follower.jobs()), (None, 0));
    }
}

#[test]
fn an_unknown_result_is_not_repeated_unless_it_does_no_harm() {
    let mut follower = engine(2, 1);
    from_operator(&mut follower, request(AdminRequest::Remove { node: id(3) }));
    sent(&mut follower);
    // The former leader still answers.
    follower.handle(SECOND, Input::Leader { leader: Some(id(3)), term: 3 }).unwrap();
    assert_eq!(follower.poll_output(), None);
    follower.handle(SECOND, Input::Unreachable { peer: id(1) }).unwrap();
    assert_eq!(response(&sent(&mut follower).1), Err(AdminError::Unknown));
    let mut follower = engine(2, 1);
    from_operator(&mut follower, request(AdminRequest::Members));
    sent(&mut follower);
    follower.handle(SECOND, Input::Leader { leader: Some(id(3)), term: 3 }).unwrap();
    assert_eq!(sent(&mut follower).0, id(3), "a list is requested of the next leader");
}

#[test]
fn waiting_requests_are_bounded_in_number_and_time() {
    let mut engine = AdminEngine::new(id(1), Vec::new());
    for token in 0..100 {
        engine.handle(SECOND, Input::Call { token, request: AdminRequest::Members }).unwrap();
    }
    let overloaded = std::iter::from_fn(|| engine.poll_output()).count();
    assert_eq!((overloaded, engine.jobs()), (36, 64));
    let due = engine.poll_timeout().unwrap();
    engine.handle(due, Input::Timeout).unwrap();
    let results: Vec<_> = std::iter::from_fn(|| engine.poll_output()).collect();
    assert_eq!(results.len(), 64);
    assert_eq!(results[0], Output::Reply { token: 0, result: Err(AdminError::NoLeader) });
    let long = AdminRequest::Add { node: id(4), addresses: vec!["a b".into()] };
    engine.handle(due, Input::Call { token: 7, request: long }).unwrap();
    assert!(matches!(
        engine.poll_output(),
        Some(Output::Reply { token: 7, result: Err(AdminError::Limit(_)) })
    ));
}

#[test]
fn the_request_of_a_peer_is_soon_handed_back_by_a_member_without_a_leader() {
    // A member that was removed never hears of a leader.
    let mut removed = AdminEngine::new(id(2), Vec::new());
    from_operator(&mut removed, request(AdminRequest::Members));
    assert_eq!(removed.poll_output(), None, "an election may be under way");
    let due = removed.poll_timeout().unwrap();
    assert_eq!(due, SECOND * 2);
    removed.handle(due, Input::Timeout).unwrap();
    let (to, payload) = sent(&mut removed);
    assert_eq!((to, response(&payload)), (operator(), Err(AdminError::NoLeader)));
    assert_eq!((removed.jobs(), removed.poll_timeout()), (0, None));
    // A request that the leader has is not handed back so early.
    let mut follower = engine(2, 1);
    from_operator(&mut follower, request(AdminRequest::Members));
    assert_eq!(sent(&mut follower).0, id(1));
    assert_eq!(follower.poll_timeout(), Some(SECOND * 10));
}

#[test]
fn a_member_announces_its_addresses_until_the_table_has_them() {
    let addresses = vec!["10.0.0.2:1".to_owned()];
    let mut engine = AdminEngine::new(id(2), addresses.clone());
    let members = Input::Members { membership: membership(), members: Arc::default() };
    engine.handle(Duration::ZERO, members).unwrap();
    assert_eq!((engine.poll_output(), engine.poll_timeout()), (None, None), "no leader is known");
    engine.handle(Duration::ZERO, Input::Leader { leader: Some(id(1)), term: 2 }).unwrap();
    let expected = AdminRequest::SetAddresses { node: id(2), addresses: addresses.clone() };
    let (to, payload) = sent(&mut engine);
    assert_eq!(to, id(1));
    let Ok(Message::Request { number, request }) = message::decode(&payload) else { panic!() };
    assert_eq!(request, expected);
    // The leader has done it, but the table has not arrived here yet.
    let payload = message::encode(&Message::Response { number, result: Ok(AdminReply::Done) });
    engine.handle(SECOND / 2, Input::Message { from: id(1), role: PeerRole::Member, payload }).unwrap();
    assert_eq!(engine.poll_output(), None);
    engine.handle(SECOND, Input::Timeout).unwrap();
    sent(&mut engine);
    let mut table = Members::default();
    table.change(&MemberChange::Addresses { node: id(2), addresses }).unwrap();
    let members = Input::Members { membership: membership(), members: Arc::new(table) };
    engine.handle(SECOND, members).unwrap();
    engine.handle(SECOND * 60, Input::Timeout).unwrap();
    assert_eq!((engine.poll_output(), engine.jobs(), engine.poll_timeout()), (None, 0, None));
}

/// `X0_KV_RECORD=1 cargo test -p x0-kv --features mesh --lib admin` records again, which is right only as
/// long as nothing is released.
#[test]
fn recorded_messages_are_read_and_written() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/services").join("admin.hex");
    let hex = |message: &Message| {
        message::encode(message).iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n"
    };
    let made: String = messages().iter().map(hex).collect();
    if std::env::var_os("X0_KV_RECORD").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap();
    assert!(recorded == made, "the encoding has changed");
    for (line, message) in recorded.lines().zip(messages()) {
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = line.as_bytes().chunks(2).map(byte).collect();
        assert_eq!(message::decode(&bytes.into()), Ok(message));
    }
}

/// The body of the fuzz target, on messages with random edits.
#[test]
fn edited_messages_keep_the_engine_within_its_bounds() {
    let mut state = 1_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    let messages: Vec<Bytes> = messages().iter().map(message::encode).collect();
    let mut leader = engine(1, 1);
    for round in 0..20_000 {
        let mut payload = messages[random() % messages.len()].to_vec();
        for _ in 0..random() % 4 {
            let at = random() % payload.len();
            payload[at] = random().to_le_bytes()[0];
        }
        let role = [PeerRole::Member, PeerRole::Operator, PeerRole::Client][random() % 3];
        let now = Duration::from_millis(round);
        let input = Input::Message { from: id(2), role, payload: payload.into() };
        let _ = leader.handle(now, input);
        assert!(leader.jobs() <= 64);
        while let Some(output) = leader.poll_output() {
            if let Output::Inspect { token } = output {
                leader.handle(now, Input::Inspected { token, group: group() }).unwrap();
            }
        }
    }
}
