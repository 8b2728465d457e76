//! Answering a peer's requests.

use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::message::{Extent, Kind, Message, VersionRef};
use super::transfer::Outgoing;
use super::{Session, SessionError};
use crate::codec::{Canonical, Input};
use crate::map::MapDelta;
use crate::{CausalMap, Version};

/// A pull that waits for what it refers to.
#[derive(Debug)]
pub(super) struct Waiting {
    number: u64,
    version: VersionRef,
    extent: Extent,
}

impl Session {
    pub(super) fn part_len(&self) -> usize {
        // The head of a part: kind, number, lengths and index.
        self.options.datagram_len_max - 24
    }

    pub(super) fn serve(&mut self, kind: Kind, number: u64, bytes: Vec<u8>) {
        let part_len = self.part_len();
        self.serving[kind as usize] = Some(Outgoing::new(number, bytes, part_len));
    }

    pub(super) fn on_pull(
        &mut self,
        now: Duration,
        number: u64,
        version: &VersionRef,
        extent: Extent,
        missing: &[Range<usize>],
        map: &mut CausalMap,
    ) {
        let serving = self.serving[Kind::Delta as usize].as_mut();
        if let Some(outgoing) = serving.filter(|outgoing| outgoing.number == number) {
            if !missing.is_empty() || outgoing.is_idle() {
                outgoing.resend(missing);
            }
            return;
        }
        if !missing.is_empty() {
            self.send(&Message::Gone { number });
            return;
        }
        let Some(since) = self.resolve(version, map) else {
            self.waiting = Some(Waiting { number, version: version.clone(), extent });
            self.collect(now, Kind::Version, version.hash);
            return;
        };
        self.versions.insert(version.hash, since.clone());
        let made = match extent {
            Extent::Since => match map.delta(&since) {
                Ok(delta) => Some(delta),
                Err(_) => {
                    let items = map.sibling_count() as u64;
                    self.send(&Message::Behind { number, items });
                    None
                }
            },
            Extent::Complete => Some(map.complete(&since)),
            Extent::Chosen => {
                self.waiting = Some(Waiting { number, version: version.clone(), extent });
                self.collect(now, Kind::Hashes, number);
                None
            }
        };
        if let Some(delta) = made {
            self.serve_delta(number, &delta, &since, map);
        }
        let news = !since.is_within(&map.version());
        self.acknowledged = since;
        if news {
            self.begin_pull(now, map);
        }
    }

    pub(super) fn serve_delta(&mut self, number: u64, delta: &MapDelta, since: &Version, map: &CausalMap) {
        // The peer will know this version, so it can name the next one by it.
        let version = map.version();
        self.versions.insert(version.hash(map.hash_key()), version);
        self.serve(Kind::Delta, number, delta.encode(since));
    }

    pub(super) fn on_want(&mut self, kind: Kind, number: u64, missing: &[Range<usize>], map: &CausalMap) {
        let serving = self.serving[kind as usize].as_mut();
        if let Some(outgoing) = serving.filter(|outgoing| outgoing.number == number) {
            if !missing.is_empty() || outgoing.is_idle() {
                outgoing.resend(missing);
            }
            return;
        }
        let bytes = match kind {
            Kind::Delta | Kind::Hashes => None,
            Kind::Version => self.versions.get(number).map(Self::version_bytes),
            Kind::Members => Some(Self::members_bytes(map)),
        };
        if let Some(bytes) = bytes {
            self.serve(kind, number, bytes);
        }
    }

    /// A version that the peer referred to.
    pub(super) fn on_version(
        &mut self,
        now: Duration,
        bytes: &[u8],
        map: &mut CausalMap,
    ) -> Result<(), SessionError> {
        let mut input = Input::new(bytes);
        let version = Version::decode(&mut input)?;
        input.finish()?;
        self.versions.insert(version.hash(map.hash_key()), version);
        let waiting = self.waiting.take().filter(|waiting| self.resolve(&waiting.version, map).is_some());
        if let Some(waiting) = waiting {
            self.on_pull(now, waiting.number, &waiting.version, waiting.extent, &[], map);
        }
        Ok(())
    }

    /// The hashes of what the peer lacks.
    pub(super) fn on_hashes(&mut self, _now: Duration, _number: u64, _bytes: &[u8], _map: &mut CausalMap) {}
}
