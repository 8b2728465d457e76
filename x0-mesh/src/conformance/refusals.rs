//! Rules about messages that are not taken.

use super::pair::{LEFT, NOBODY, Pair, RIGHT};
use super::{Bench, Transport};
use crate::{Lane, SendError};

pub(super) fn to_self<B: Bench>(pair: &mut Pair<'_, B>) {
    let refusal = pair.refusal(LEFT, Lane::Ordered(0), b"me");
    if refusal != SendError::ToSelf {
        pair.broken(&format!("{refusal:?} instead of ToSelf"));
    }
}

pub(super) fn unknown_peer<B: Bench>(pair: &mut Pair<'_, B>) {
    let refusal = pair.refusal(NOBODY, Lane::Ordered(0), b"you");
    if refusal != (SendError::UnknownPeer { peer: NOBODY }) {
        pair.broken(&format!("{refusal:?} instead of UnknownPeer"));
    }
}

pub(super) fn no_lane<B: Bench>(pair: &mut Pair<'_, B>) {
    for lane in (0..=u8::MAX).map(Lane::Ordered).chain([Lane::Bulk, Lane::Datagram]) {
        if pair.nodes.left.message_len_max(lane) > 0 {
            continue;
        }
        let refusal = pair.refusal(RIGHT, lane, b"");
        if refusal != (SendError::NoLane { lane }) {
            pair.broken(&format!("{refusal:?} instead of NoLane"));
        }
    }
}
