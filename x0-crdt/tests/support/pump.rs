//! Two sessions whose datagrams arrive at once.

use std::collections::VecDeque;
use std::time::Duration;

use x0_crdt::{Replicated, Session, SessionError, SessionInput, SessionOutput};

/// What a call of `handle` has brought.
pub(crate) enum Seen<J> {
    Error(SessionError),
    Output(SessionOutput<J>),
}

impl<J> Seen<J> {
    /// The datagram, if it is one. An error is none of an honest peer.
    pub(crate) fn datagram(self) -> Option<Vec<u8>> {
        match self {
            Self::Output(SessionOutput::Send(datagram)) => Some(datagram),
            Self::Output(_) => None,
            Self::Error(error) => panic!("{error:?}"),
        }
    }
}

/// Gives a timeout to one side, and carries the datagrams that follow from it to and fro. `see` is called
/// with the side and what it has brought, and returns the datagram that arrives at the other one.
pub(crate) fn pump<R: Replicated>(
    now: Duration,
    side: usize,
    states: &mut [R; 2],
    sessions: &mut [Session<R>; 2],
    mut see: impl FnMut(usize, &R, Seen<R::Joined>) -> Option<Vec<u8>>,
) {
    let mut waiting = VecDeque::from([(side, None::<Vec<u8>>)]);
    while let Some((to, datagram)) = waiting.pop_front() {
        let input = datagram.as_deref().map_or(SessionInput::Timeout, SessionInput::Datagram);
        if let Err(error) = sessions[to].handle(now, input, &mut states[to]) {
            see(to, &states[to], Seen::Error(error));
        }
        while let Some(output) = sessions[to].poll_output() {
            let datagram = see(to, &states[to], Seen::Output(output));
            waiting.extend(datagram.map(|datagram| (1 - to, Some(datagram))));
        }
    }
}
