//! Ways to the leader: bytes in flight, silence, relays, and reports of the leader.

use super::*;

const MIB: usize = 1 << 20;

/// A client that is connected to these members.
fn connected(to: &[u64]) -> Pair {
    let mut pair = Pair::new();
    pair.elect(Some(1));
    for member in to {
        pair.give(CLIENT, Input::Reachable { peer: node(*member) });
    }
    pair.settle();
    let warm = pair.call(CLIENT, put("warm", "up"));
    pair.settle();
    pair.reply(warm).unwrap();
    pair
}

/// Mail of the client to this member.
fn sent_to(pair: &Pair, member: u64) -> usize {
    pair.in_flight.iter().filter(|(from, to, _)| *from == CLIENT && *to == node(member)).count()
}

fn long_put() -> Operation {
    write(Mutation::Put { key: "k".into(), value: vec![0; MIB - 100].into() })
}

#[test]
fn bytes_on_the_way_are_bounded() {
    let mut pair = connected(&[1]);
    let calls: Vec<u64> = (0..20).map(|_| pair.call(CLIENT, long_put())).collect();
    let sent: usize = pair.in_flight.iter().map(|(_, _, payload)| payload.len()).sum();
    assert!(sent > 3 * MIB && sent <= 4 * MIB, "{sent}");
    // Nothing is sent twice although the transmission takes its time.
    pair.advance(Duration::from_millis(900));
    let again: usize = pair.in_flight.iter().map(|(_, _, payload)| payload.len()).sum();
    assert_eq!(sent, again);
    pair.settle();
    for call in calls {
        pair.reply(call).unwrap();
    }
    assert_eq!(pair.log.len(), 22, "the session, the first write, and each of the others once");
}

#[test]
fn calls_that_wait_for_room_time_out_unambiguously_and_leave_no_bytes_behind() {
    let mut pair = connected(&[1]);
    let calls: Vec<u64> = (0..6).map(|_| pair.call(CLIENT, long_put())).collect();
    pair.in_flight.clear();
    pair.advance(Duration::from_secs(11));
    let ambiguous: Vec<bool> =
        calls.iter().map(|call| pair.reply(*call).unwrap_err().is_ambiguous()).collect();
    assert_eq!(ambiguous.iter().filter(|it| **it).count(), 4, "{ambiguous:?}");
    pair.in_flight.clear();
    let later = pair.call(CLIENT, long_put());
    assert_eq!(sent_to(&pair, 1), 1, "there is room again");
    pair.settle();
    pair.reply(later).unwrap();
}

/// One second for each of the next messages to the leader. Answers are short.
fn pass_slowly(pair: &mut Pair, count: usize) {
    for _ in 0..count {
        let Some(message) = pair.in_flight.pop_front() else { return };
        pair.advance(Duration::from_secs(1));
        pair.deliver(message);
        pair.decide();
        while let Some(place) = pair.in_flight.iter().position(|(_, to, _)| *to == node(CLIENT)) {
            let answer = pair.in_flight.remove(place).unwrap();
            pair.deliver(answer);
        }
    }
}

#[test]
fn the_time_of_calls_stands_still_while_they_wait_for_their_turn() {
    let mut pair = connected(&[1]);
    let calls: Vec<u64> = (0..40).map(|_| pair.call(CLIENT, long_put())).collect();
    let begun = pair.now;
    pass_slowly(&mut pair, usize::MAX);
    assert_eq!(
        pair.now - begun,
        Duration::from_secs(40),
        "four times the time of a call, nothing sent twice"
    );
    for call in calls {
        pair.reply(call).unwrap();
    }
}

#[test]
fn calls_wait_for_their_turn_until_nothing_is_answered_or_until_their_limit() {
    // The peer falls silent after 15 s.
    let mut pair = connected(&[1]);
    let calls: Vec<u64> = (0..40).map(|_| pair.call(CLIENT, long_put())).collect();
    let begun = pair.now;
    pass_slowly(&mut pair, 15);
    pair.in_flight.clear();
    while pair.coordinator(CLIENT).calls() > 0 {
        pair.advance(Duration::from_millis(100));
        pair.in_flight.clear();
    }
    // The calls on the way end after 10 s. Those that get their room are sent; the others end 10 s after the
    // last answer.
    assert_eq!(pair.now - begun, Duration::from_secs(34));
    let results: Vec<_> = calls.iter().map(|call| pair.reply(*call)).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 15);
    let timed_out =
        |ambiguous| results.iter().filter(move |it| **it == Err(OperationError::TimedOut { ambiguous }));
    assert_eq!((timed_out(true).count(), timed_out(false).count()), (7, 18));

    // 10 s and 5 s: the 15 first calls are answered, and with them those that are on the way.
    let mut pair = Pair::with(|options| options.turn_timeout(Duration::from_secs(5)));
    pair.elect(Some(1));
    let warm = pair.call(CLIENT, put("warm", "up"));
    pair.settle();
    pair.reply(warm).unwrap();
    let calls: Vec<u64> = (0..40).map(|_| pair.call(CLIENT, long_put())).collect();
    pass_slowly(&mut pair, usize::MAX);
    let answered = calls.iter().filter(|call| pair.reply(**call).is_ok()).count();
    assert!((14..=15).contains(&answered), "{answered}");

    // A deadline of the caller holds, whatever the call waits for.
    let mut pair = connected(&[1]);
    let deadline = Some(pair.now + Duration::from_secs(12));
    for token in 0..40 {
        pair.give(CLIENT, Input::Call { token, operation: long_put(), deadline, trace: None });
    }
    pass_slowly(&mut pair, usize::MAX);
    let answered = (0..40).filter(|token| pair.reply(*token).is_ok()).count();
    assert!((11..=12).contains(&answered), "{answered}");
}

#[test]
fn a_peer_that_has_a_call_does_not_get_it_again() {
    let mut pair = connected(&[1]);
    let call = pair.call(CLIENT, get("warm"));
    let message = pair.in_flight.pop_front().unwrap();
    for _ in 0..8 {
        pair.advance(Duration::from_millis(500));
        assert_eq!(sent_to(&pair, 1), 0);
    }
    pair.deliver(message);
    pair.settle();
    assert!(is_value(&pair.reply(call), "up"));
    // An answer can be lost without the connection: in the end it is sent again.
    let call = pair.call(CLIENT, get("warm"));
    pair.in_flight.clear();
    for _ in 0..14 {
        pair.advance(Duration::from_millis(500));
    }
    assert!(sent_to(&pair, 1) >= 1);
    pair.settle();
    assert!(is_value(&pair.reply(call), "up"));
}

#[test]
fn a_client_cut_off_from_the_leader_is_served_through_another_member() {
    let mut pair = connected(&[2, 3]);
    for operation in [put("a", "1"), get("a")] {
        let call = pair.call(CLIENT, operation);
        assert_eq!(sent_to(&pair, 1), 0);
        pair.settle();
        assert!(pair.reply(call).is_ok());
    }
    for member in [1, 2, 3] {
        assert_eq!(pair.coordinator(member).requests(), 0);
    }
}

/// The client does not know the address of the leader, and one of the members that it knows was removed: it
/// still runs, and hears of no leader any more.
#[test]
fn a_removed_member_does_not_keep_a_client_from_the_others() {
    for removed in [2, 3] {
        let mut pair = connected(&[2, 3]);
        let term = pair.term;
        pair.give(removed, Input::Leader { leader: None, term, is_self: false });
        pair.settle();
        for step in 0..4 {
            let call = pair.call(CLIENT, if step % 2 == 0 { put("a", "1") } else { get("a") });
            let begun = pair.now;
            pair.settle();
            while pair.coordinator(CLIENT).calls() > 0 && pair.now < begun + Duration::from_secs(1) {
                pair.advance(Duration::from_millis(10));
                pair.settle();
            }
            assert_eq!(pair.coordinator(CLIENT).calls(), 0, "node {removed} was removed, step {step}");
            pair.reply(call).unwrap();
        }
    }
}

/// The connection to the leader is up, but nothing passes.
#[test]
fn a_silent_leader_is_reached_through_another_member_within_a_second() {
    let mut pair = connected(&[1, 2, 3]);
    let calls = [pair.call(CLIENT, put("a", "1")), pair.call(CLIENT, get("warm"))];
    let begun = pair.now;
    while pair.coordinator(CLIENT).calls() > 0 {
        pair.in_flight.retain(|(from, to, _)| !(*from == CLIENT && *to == node(1)));
        pair.in_flight.retain(|(from, to, _)| !(*from == 1 && *to == node(CLIENT)));
        if pair.in_flight.is_empty() {
            pair.decide();
            if pair.in_flight.is_empty() {
                pair.advance(Duration::from_millis(10));
            }
        } else {
            let message = pair.in_flight.pop_front().unwrap();
            pair.deliver(message);
        }
    }
    assert!(pair.now - begun <= Duration::from_secs(1), "{:?}", pair.now - begun);
    calls.iter().for_each(|call| drop(pair.reply(*call).unwrap()));
    // The others go the same way at once.
    let next = pair.call(CLIENT, put("a", "2"));
    assert_eq!(sent_to(&pair, 1), 0);
    pair.settle();
    pair.reply(next).unwrap();
}

#[test]
fn the_next_leader_gets_the_calls_as_soon_as_a_member_knows_it() {
    let mut pair = connected(&[1, 2, 3]);
    let waiting = pair.call(CLIENT, step("", "1"));
    // The leader dies with the call: the others report that they have none.
    pair.in_flight.clear();
    pair.elect(None);
    pair.in_flight.retain(|(from, ..)| *from != 1);
    while let Some(message) = pair.in_flight.pop_front() {
        pair.deliver(message);
    }
    let parked = pair.call(CLIENT, get("warm"));
    assert!(pair.in_flight.is_empty(), "nobody is asked while there is no leader");
    pair.members.get_mut(&1).unwrap().proposed.clear();
    pair.elect(Some(2));
    pair.in_flight.retain(|(from, to, _)| *from != 1 && *to != node(1));
    pair.settle();
    // No time has passed.
    assert!(matches!(pair.reply(waiting), Ok(Outcome::CompareAndSwap(Swap::Swapped { .. }))));
    assert!(is_value(&pair.reply(parked), "up"));
}

#[test]
fn a_relay_that_loses_the_leader_says_that_the_result_is_unknown() {
    let mut pair = connected(&[2, 3]);
    let call = pair.call(CLIENT, step("", "1"));
    let relay = pair.in_flight.iter().find(|(from, ..)| *from == CLIENT).unwrap().1.get();
    // The leader has it, and dies before it answers.
    while let Some(message) = pair.in_flight.pop_front() {
        pair.deliver(message);
    }
    let (_, payload) = pair.members[&1].proposed[0].clone();
    pair.commit(payload);
    pair.members.get_mut(&1).unwrap().proposed.clear();
    pair.give(relay, Input::Unreachable { peer: node(1) });
    assert_eq!(pair.coordinator(relay).requests(), 0);
    pair.elect(Some(3));
    for _ in 0..10 {
        pair.settle();
        pair.advance(Duration::from_millis(20));
    }
    assert!(matches!(pair.reply(call), Ok(Outcome::CompareAndSwap(Swap::Swapped { .. }))), "applied once");
}

#[test]
fn a_relay_does_not_carry_commands_of_members() {
    let mut pair = connected(&[2]);
    let change = crate::MemberChange::Remove { node: node(1) };
    let command = Command::Member(change).encode();
    for body in
        [protocol::Body::RelayPropose { command: command.clone() }, protocol::Body::Propose { command }]
    {
        let mut message = bytes::BytesMut::new();
        protocol::put(&mut message, HEADER, 1, &body);
        let to = if matches!(body, protocol::Body::Propose { .. }) { 1 } else { 2 };
        pair.give(to, Input::Message { from: node(CLIENT), payload: message.freeze() });
        let (_, _, payload) = pair.in_flight.pop_front().unwrap();
        let frame = protocol::Frames::new(&payload).unwrap().1.next().unwrap().unwrap();
        assert_eq!(frame.body, protocol::Body::Rejected);
    }
    assert!(pair.members[&1].proposed.is_empty() && pair.in_flight.is_empty());
}

#[test]
fn an_expired_identity_ends_calls_at_once() {
    let mut pair = connected(&[1, 2]);
    let calls = [pair.call(CLIENT, put("a", "1")), pair.call(CLIENT, get("a"))];
    pair.give(CLIENT, Input::Unreachable { peer: node(1) });
    pair.give(CLIENT, Input::IdentityExpired);
    assert!(pair.replies.is_empty(), "another member still accepts it");
    pair.give(CLIENT, Input::Unreachable { peer: node(2) });
    pair.give(CLIENT, Input::IdentityExpired);
    assert_eq!(pair.reply(calls[0]), Err(OperationError::IdentityExpired { ambiguous: true }));
    assert_eq!(pair.reply(calls[1]), Err(OperationError::IdentityExpired { ambiguous: false }));
    let later = pair.call(CLIENT, get("a"));
    assert_eq!(pair.reply(later), Err(OperationError::IdentityExpired { ambiguous: false }));
    // The identity was renewed.
    pair.in_flight.clear();
    pair.give(CLIENT, Input::Reachable { peer: node(1) });
    let read = pair.call(CLIENT, get("warm"));
    pair.settle();
    assert!(is_value(&pair.reply(read), "up"));
}

/// A node that the client does not list is connected, none of the members is. Each loss of a call must lead
/// to a wait, and not to the next member that is not connected: the event loop would not end its round.
#[test]
fn calls_wait_while_no_member_is_connected() {
    let mut pair = Pair::new();
    pair.elect(Some(1));
    pair.give(CLIENT, Input::Reachable { peer: node(7) });
    pair.in_flight.clear();
    let call = pair.call(CLIENT, put("a", "1"));
    let mut losses = 0;
    while let Some((from, to, _)) = pair.in_flight.pop_front() {
        assert_eq!((from, to == node(7)), (CLIENT, false));
        losses += 1;
        assert!(losses < 10, "the call goes from member to member without a pause");
        pair.give(CLIENT, Input::Unreachable { peer: to });
    }
    assert_eq!(losses, 1);
    pair.give(CLIENT, Input::Reachable { peer: node(1) });
    pair.advance(Duration::from_secs(1));
    pair.in_flight.retain(|(_, to, _)| *to != node(7));
    pair.settle();
    pair.reply(call).unwrap();
}

#[test]
fn a_leader_with_many_watchers_keeps_its_bound() {
    let mut pair = connected(&[]);
    let mut message = bytes::BytesMut::new();
    protocol::put(&mut message, HEADER, 0, &protocol::Body::Watch);
    let payload = message.freeze();
    for watcher in 0..WATCHERS_MAX as u64 + 10 {
        pair.give(1, Input::Message { from: node(1000 + watcher), payload: payload.clone() });
    }
    assert_eq!(pair.coordinator(1).watchers.len(), WATCHERS_MAX);
    pair.give(1, Input::Unreachable { peer: node(1000) });
    assert_eq!(pair.coordinator(1).watchers.len(), WATCHERS_MAX - 1);
}

/// More clients than keep their buffers: a report without the number of the client's start would be ignored,
/// and its operations would wait for a leader until their deadline.
#[test]
fn every_watcher_is_reported_the_leader_by_the_number_of_its_start() {
    let mut pair = connected(&[]);
    let mut message = bytes::BytesMut::new();
    protocol::put(&mut message, HEADER, 0, &protocol::Body::Watch);
    let payload = message.freeze();
    let watchers = 1000..1200;
    for watcher in watchers.clone() {
        pair.give(1, Input::Message { from: node(watcher), payload: payload.clone() });
    }
    pair.in_flight.clear();
    pair.elect(Some(2));
    let to_watcher = |(from, to, _): &&(u64, NodeId, Bytes)| *from == 1 && watchers.contains(&to.get());
    let reports: Vec<_> = pair.in_flight.iter().filter(to_watcher).collect();
    assert_eq!(reports.len(), 200);
    for (_, to, report) in reports {
        assert_eq!(protocol::Frames::new(report).unwrap().0.to, HEADER.from, "{to}");
    }
    for watcher in watchers {
        pair.give(1, Input::Unreachable { peer: node(watcher) });
        assert_eq!(pair.coordinator(1).outgoing.instance(node(watcher)), 0);
    }
}
