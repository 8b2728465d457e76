//! Messages of a member that forges distances, for the simulator.

use alloc::vec::Vec;

use super::Distance;
use super::message::{Entry, Message};

/// A message with other distances; bytes that are no message stay as they are.
pub(crate) fn falsify(bytes: &[u8], change: impl Fn(&mut Distance)) -> Vec<u8> {
    let Ok(message) = Message::decode(bytes) else { return bytes.to_vec() };
    let acks: Vec<u32> = message.acks().collect();
    let mut changed = Vec::with_capacity(bytes.len());
    message.header.encode(&acks, &mut changed);
    for mut entry in message.entries() {
        if let Entry::Update { advert, .. } = &mut entry {
            change(&mut advert.distance);
        }
        entry.encode(&mut changed);
    }
    changed
}
