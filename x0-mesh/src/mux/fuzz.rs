//! The decoders that bytes of a peer reach first, for `fuzz/` and for the suite.

use std::time::Duration;

use x0_identity::NodeId;

use super::engine::{Engine, Input, Output};
use super::frame::{Frame, Frames, Offer, Trailer};
use super::id::ChannelId;
use crate::{Lane, PeerEvent, PeerEventKind};

/// The first byte chooses what becomes of the others: frames to be decoded, or messages for an engine that
/// has a channel.
pub(crate) fn run(bytes: &[u8]) {
    match bytes.split_first() {
        None => {}
        Some((0, body)) => decode(body),
        Some((number, script)) => drive(number % 2 == 0, script),
    }
}

/// A decoded frame is encoded to the same bytes.
fn decode(body: &[u8]) {
    let mut frames = Frames::new(body);
    let mut bytes = Vec::new();
    while let Ok(Some(frame)) = frames.next() {
        frame.encode(&mut bytes);
    }
    assert!(body.starts_with(&bytes));
}

/// Gives messages to an engine: nothing panics, and it holds no more than the budget allows.
fn drive(is_lower: bool, mut script: &[u8]) {
    let (Some(local), Some(peer)) = (NodeId::new(2), NodeId::new(if is_lower { 3 } else { 1 })) else {
        return;
    };
    let Some(channel) = ChannelId::new("c") else { return };
    let offer = Offer {
        channel,
        version_min: 1,
        version_max: 2,
        lane_budget: 4096,
        ordered_lanes: 1,
        ordered_len_max: 1000,
        bulk_len_max: 1000,
        datagram_len_max: 100,
    };
    let mut engine = Engine::new(local, 7);
    let Ok(slot) = engine.register(offer) else { return };
    let up = PeerEvent { peer, kind: PeerEventKind::Up { epoch: 1 } };
    let _ = engine.handle(Duration::ZERO, Input::Event(up));
    let mut hello = Vec::new();
    Frame::Hello { version_min: 1, version_max: 1, instance: 5 }.encode(&mut hello);
    Frame::Offer(offer).encode(&mut hello);
    hello.extend_from_slice(&Trailer::CONTROL.encode());
    let message = Input::Message { from: peer, lane: Lane::Ordered(0), message: hello };
    let _ = engine.handle(Duration::ZERO, message);
    let mut session = 0;
    while let Some((kind, rest)) = script.split_first() {
        let (len, rest) = rest.split_first().unwrap_or((&0, rest));
        let (content, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        script = rest;
        let mut message = content.to_vec();
        match kind % 6 {
            // Whole messages, as they are, and as control messages.
            0 => {}
            1 => message.extend_from_slice(&Trailer::CONTROL.encode()),
            // The session that is open, or was.
            2 => message.extend_from_slice(&Trailer { session, lane: Lane::Ordered(0) }.encode()),
            3 => message.extend_from_slice(&Trailer { session, lane: Lane::Bulk }.encode()),
            // The frames that need to know the session.
            4 => {
                for frame in [Frame::Open { session: 9, channel }, Frame::Accept { session }] {
                    frame.encode(&mut message);
                }
                message.extend_from_slice(&Trailer::CONTROL.encode());
            }
            _ => {
                while engine.next_event(slot).is_some() {}
                while engine.next_message(slot).is_some() {}
                let _ = engine.reserve(slot, peer, Lane::Ordered(0), content.len());
            }
        }
        let lane = if kind % 6 == 3 { Lane::Bulk } else { Lane::Ordered(0) };
        let _ = engine.handle(Duration::ZERO, Input::Message { from: peer, lane, message });
        while let Some(output) = engine.poll_output() {
            let Output::Control { body, .. } = output else { continue };
            let mut frames = Frames::new(&body);
            while let Ok(Some(frame)) = frames.next() {
                match frame {
                    Frame::Open { session: opened, .. } | Frame::Accept { session: opened } => {
                        session = opened;
                    }
                    _ => {}
                }
            }
        }
    }
    let mut held = 0;
    while let Some(taken) = engine.next_message(slot) {
        held += taken.payload.len();
    }
    // Two lanes, in as many epochs as an inbox holds.
    assert!(held <= 4 * 2 * (4096 + 1000), "{held} bytes are held");
}
