//! The bytes of a mux: the trailer of each message, and the frames of control messages. See the wire format
//! in [`super`].

use super::id::ChannelId;
use crate::{Lane, Violation};

/// The version of the wire format.
pub(super) const VERSION: u8 = 1;
/// The trailer that a mux appends to each message.
pub(super) const TRAILER_LEN: usize = 5;
/// The session of control messages.
pub(super) const CONTROL: u32 = 0;

const BULK: u8 = 254;
const DATAGRAM: u8 = 255;

/// The channel and session of a message. The trailer follows the message, so that the receiver removes it
/// without moving the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) session: u32,
    pub(super) lane: Lane,
}

impl Trailer {
    pub(super) const CONTROL: Trailer = Trailer { session: CONTROL, lane: Lane::Ordered(0) };

    pub(super) fn encode(self) -> [u8; TRAILER_LEN] {
        let [a, b, c, d] = self.session.to_le_bytes();
        let lane = match self.lane {
            Lane::Ordered(number) => number,
            Lane::Bulk => BULK,
            Lane::Datagram => DATAGRAM,
        };
        [a, b, c, d, lane]
    }

    /// The trailer of a message, and the length of what stands before it.
    pub(super) fn split(message: &[u8]) -> Option<(Trailer, usize)> {
        let (body, [a, b, c, d, lane]) = message.split_last_chunk::<TRAILER_LEN>()?;
        let lane = match *lane {
            BULK => Lane::Bulk,
            DATAGRAM => Lane::Datagram,
            number => Lane::Ordered(number),
        };
        Some((Trailer { session: u32::from_le_bytes([*a, *b, *c, *d]), lane }, body.len()))
    }
}

/// A channel as one side offers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) channel: ChannelId,
    pub(super) version_min: u16,
    pub(super) version_max: u16,
    pub(super) lane_budget: u32,
    pub(super) ordered_lanes: u8,
    /// The longest message that this side takes; zero: no such lane.
    pub(super) ordered_len_max: u32,
    pub(super) bulk_len_max: u32,
    pub(super) datagram_len_max: u32,
}

impl Offer {
    /// The version that two offers agree on.
    pub(super) fn agree(&self, other: &Offer) -> Option<u16> {
        let highest = self.version_max.min(other.version_max);
        (highest >= self.version_min.max(other.version_min)).then_some(highest)
    }

    /// The longest message on a lane; zero when there is no such lane.
    pub(super) fn len_max(&self, lane: Lane) -> usize {
        let len_max = match lane {
            Lane::Ordered(number) if number >= self.ordered_lanes => 0,
            Lane::Ordered(_) => self.ordered_len_max,
            Lane::Bulk => self.bulk_len_max,
            Lane::Datagram => self.datagram_len_max,
        };
        usize::try_from(len_max).unwrap_or(usize::MAX)
    }
}

/// Why a session was closed, on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseCode {
    /// The channel is not registered.
    NoChannel,
    /// The peer sent more than the budget allows.
    Budget,
}

/// A part of a control message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    Hello { version_min: u8, version_max: u8, instance: u32 },
    Offer(Offer),
    OffersEnd,
    Withdraw { channel: ChannelId },
    Open { session: u32, channel: ChannelId },
    Accept { session: u32 },
    Close { session: u32, code: CloseCode },
    Credit { session: u32, lane: Lane, consumed: u64 },
}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const OFFER: u8 = 2;
    pub(super) const OFFERS_END: u8 = 3;
    pub(super) const WITHDRAW: u8 = 4;
    pub(super) const OPEN: u8 = 5;
    pub(super) const ACCEPT: u8 = 6;
    pub(super) const CLOSE: u8 = 7;
    pub(super) const CREDIT: u8 = 8;
}

impl Frame {
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Frame::Hello { version_min, version_max, instance } => {
                bytes.extend_from_slice(&[kind::HELLO, *version_min, *version_max]);
                bytes.extend_from_slice(&instance.to_le_bytes());
            }
            Frame::Offer(offer) => {
                bytes.push(kind::OFFER);
                encode_name(bytes, &offer.channel);
                bytes.extend_from_slice(&offer.version_min.to_le_bytes());
                bytes.extend_from_slice(&offer.version_max.to_le_bytes());
                bytes.extend_from_slice(&offer.lane_budget.to_le_bytes());
                bytes.push(offer.ordered_lanes);
                bytes.extend_from_slice(&offer.ordered_len_max.to_le_bytes());
                bytes.extend_from_slice(&offer.bulk_len_max.to_le_bytes());
                bytes.extend_from_slice(&offer.datagram_len_max.to_le_bytes());
            }
            Frame::OffersEnd => bytes.push(kind::OFFERS_END),
            Frame::Withdraw { channel } => {
                bytes.push(kind::WITHDRAW);
                encode_name(bytes, channel);
            }
            Frame::Open { session, channel } => {
                bytes.push(kind::OPEN);
                bytes.extend_from_slice(&session.to_le_bytes());
                encode_name(bytes, channel);
            }
            Frame::Accept { session } => {
                bytes.push(kind::ACCEPT);
                bytes.extend_from_slice(&session.to_le_bytes());
            }
            Frame::Close { session, code } => {
                bytes.push(kind::CLOSE);
                bytes.extend_from_slice(&session.to_le_bytes());
                bytes.push(match code {
                    CloseCode::NoChannel => 0,
                    CloseCode::Budget => 1,
                });
            }
            Frame::Credit { session, lane, consumed } => {
                bytes.push(kind::CREDIT);
                bytes.extend_from_slice(&Trailer { session: *session, lane: *lane }.encode());
                bytes.extend_from_slice(&consumed.to_le_bytes());
            }
        }
    }
}

fn encode_name(bytes: &mut Vec<u8>, channel: &ChannelId) {
    let name = channel.as_bytes();
    // At most 47.
    bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(name);
}

/// The frames of a control message. Nothing is allocated, so nothing has to be bounded.
#[derive(Debug)]
pub(super) struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    pub(super) fn new(body: &'a [u8]) -> Frames<'a> {
        Frames(body)
    }

    /// The next frame, `None` at the end. After an error the rest of the message means nothing.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Violation> {
        let Some((&kind, rest)) = self.0.split_first() else { return Ok(None) };
        self.0 = rest;
        self.frame(kind).map(Some).ok_or(Violation::ControlFrame { kind })
    }

    fn frame(&mut self, kind: u8) -> Option<Frame> {
        Some(match kind {
            kind::HELLO => {
                let [version_min, version_max] = self.array()?;
                Frame::Hello { version_min, version_max, instance: self.u32()? }
            }
            kind::OFFER => Frame::Offer(Offer {
                channel: self.name()?,
                version_min: u16::from_le_bytes(self.array()?),
                version_max: u16::from_le_bytes(self.array()?),
                lane_budget: self.u32()?,
                ordered_lanes: self.array::<1>()?[0],
                ordered_len_max: self.u32()?,
                bulk_len_max: self.u32()?,
                datagram_len_max: self.u32()?,
            }),
            kind::OFFERS_END => Frame::OffersEnd,
            kind::WITHDRAW => Frame::Withdraw { channel: self.name()? },
            kind::OPEN => Frame::Open { session: self.session()?, channel: self.name()? },
            kind::ACCEPT => Frame::Accept { session: self.session()? },
            kind::CLOSE => {
                let session = self.session()?;
                let code = match self.array()? {
                    [0] => CloseCode::NoChannel,
                    [1] => CloseCode::Budget,
                    _ => return None,
                };
                Frame::Close { session, code }
            }
            kind::CREDIT => {
                let (Trailer { session, lane }, _) = Trailer::split(&self.array::<TRAILER_LEN>()?)?;
                Frame::Credit { session, lane, consumed: u64::from_le_bytes(self.array()?) }
            }
            _ => return None,
        })
    }

    fn array<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let (array, rest) = self.0.split_first_chunk::<LEN>()?;
        self.0 = rest;
        Some(*array)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A session of a channel is never that of control messages.
    fn session(&mut self) -> Option<u32> {
        self.u32().filter(|session| *session != CONTROL)
    }

    fn name(&mut self) -> Option<ChannelId> {
        let [len] = self.array()?;
        let (name, rest) = self.0.split_at_checked(usize::from(len))?;
        self.0 = rest;
        ChannelId::from_bytes(name)
    }
}

#[cfg(test)]
mod tests;
