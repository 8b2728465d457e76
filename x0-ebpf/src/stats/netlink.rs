//! One request and its answers over a netlink socket (RFC 3549;
//! Documentation/userspace-api/netlink/intro.rst).

use std::io;

use netlink_sys::{Socket, SocketAddr};

/// The kernel never makes a datagram of a dump longer than 32 KiB, and no longer than the reader's buffer.
const DATAGRAM_LEN_MAX: usize = 32 << 10;
const HEADER_LEN: usize = 16;
/// The same on every architecture that Rust supports.
const MSG_DONTWAIT: i32 = 0x40;
const MSG_TRUNC: i32 = 0x20;
const EINTR: i32 = 4;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// The failure of an exchange.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel refused, or the socket failed.
    Kernel(io::Error),
    /// The answer is not netlink.
    Malformed,
    /// The table changed while it was dumped.
    Interrupted,
}

/// A message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// A socket to the kernel, and the number of the last request on it.
pub(crate) struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    /// In the network namespace of the calling thread, for good.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // Port 0 is the kernel: what other processes send to a connected socket is refused to them.
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM_LEN_MAX) })
    }

    /// Sends a request and passes the body of each answer to `each`, until the kernel marks the end.
    pub(crate) fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        each: &mut dyn FnMut(u16, &[u8]),
    ) -> Result<(), Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = encode(kind, flags, self.sequence, body).ok_or(Failure::Malformed)?;
        self.socket.send(&request, 0).map_err(Failure::Kernel)?;
        let mut interrupted = false;
        loop {
            let whole = self.receive(0).map_err(Failure::Kernel)?;
            let end = if whole {
                take(&self.buffer, self.sequence, &mut interrupted, each)
            } else {
                End::Malformed
            };
            match end {
                End::NotYet => {}
                End::Done(_) if interrupted => return Err(Failure::Interrupted),
                End::Done(0) => return Ok(()),
                End::Done(code) => return Err(Failure::Kernel(io::Error::from_raw_os_error(code))),
                End::Malformed => {
                    // A dump that is not read to its end blocks the next one (EBUSY). The kernel produces
                    // answers while they are read, so that an empty socket means the end.
                    while self.receive(MSG_DONTWAIT).is_ok() {}
                    return Err(Failure::Malformed);
                }
            }
        }
    }

    /// Reads one datagram. Returns whether the whole of it is in the buffer.
    fn receive(&mut self, flags: i32) -> io::Result<bool> {
        loop {
            self.buffer.clear();
            let room = self.buffer.capacity();
            match self.socket.recv(&mut self.buffer, flags | MSG_TRUNC) {
                Err(error) if error.raw_os_error() == Some(EINTR) => {}
                read => return read.map(|len| len <= room),
            }
        }
    }
}

/// A request as bytes. None if its length does not fit a header.
pub(crate) fn encode(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Option<Vec<u8>> {
    let len = u32::try_from(HEADER_LEN.checked_add(body.len())?).ok()?;
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(body);
    Some(bytes)
}

enum End {
    NotYet,
    /// With an error number, or zero.
    Done(i32),
    Malformed,
}

fn take(datagram: &[u8], sequence: u32, interrupted: &mut bool, each: &mut dyn FnMut(u16, &[u8])) -> End {
    for message in messages(datagram) {
        let Some(message) = message else { return End::Malformed };
        if message.sequence != sequence {
            continue; // The rest of an earlier answer.
        }
        *interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        match message.kind {
            NLMSG_DONE => return End::Done(code(message.body).unwrap_or(0)),
            NLMSG_ERROR => return code(message.body).map_or(End::Malformed, End::Done),
            kind => each(kind, message.body),
        }
    }
    End::NotYet
}

/// The error number at the head of an error's or an end's body; the kernel sends it negated.
fn code(body: &[u8]) -> Option<i32> {
    body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes).saturating_neg())
}

/// The messages of a datagram. Ends with a None where the bytes are not a message.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Option<Message<'_>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let parsed = message(rest);
        rest = parsed.as_ref().map_or(&[], |(_, len)| rest.get(len.next_multiple_of(4)..).unwrap_or(&[]));
        Some(parsed.map(|(message, _)| message))
    })
}

fn message(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER_LEN..len)?;
    let (kind, flags) = (u16_at(bytes, 4)?, u16_at(bytes, 6)?);
    Some((Message { kind, flags, sequence: u32_at(bytes, 8)?, body }, len))
}

/// The attributes after a fixed head: kind (without the flags in its upper two bits) and value. Ends with a
/// None where the bytes are no attribute.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let parsed = attribute(rest);
        rest =
            parsed.map_or(&[], |(_, value)| rest.get((4 + value.len()).next_multiple_of(4)..).unwrap_or(&[]));
        Some(parsed)
    })
}

fn attribute(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let value = bytes.get(4..usize::from(u16_at(bytes, 0)?))?;
    Some((u16_at(bytes, 2)? & 0x3fff, value))
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}
