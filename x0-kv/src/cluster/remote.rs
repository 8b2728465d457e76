//! The side of a node or client that its store sees.

use super::inbox::Alarm;
use super::services::CrdtCalls;
use super::services::operations::Calls;
use crate::blob::Blobs;
use crate::crdt::{Crdt, CrdtOutcome, Request};
use crate::request::operation::Operation;
use crate::request::pending::Answer;
use crate::request::watch::Watchers;
use crate::store::backend::Dispatch;

/// Hands requests to the event loop of a node or client, and those for data at hand to their threads.
#[cfg_attr(
    not(all(feature = "crdt", feature = "blob")),
    allow(dead_code, reason = "the store has no way to them")
)]
pub(crate) struct Remote {
    pub(crate) alarm: Alarm,
    pub(crate) calls: Calls,
    /// The watchers of the local state, on a member.
    pub(crate) watchers: Option<Watchers>,
    pub(crate) crdt: CrdtSide,
    /// The blobs of a member that has any.
    pub(crate) blobs: Option<Blobs>,
}

/// The CRDT keyspace of a member, or the way to that of another.
pub(crate) enum CrdtSide {
    /// The own keyspace, if the member has one.
    Member(Option<Crdt>),
    /// Calls to members.
    #[cfg_attr(not(feature = "crdt"), allow(dead_code, reason = "there are none"))]
    Client(CrdtCalls),
}

impl Dispatch for Remote {
    fn submit(&self, operation: Operation) -> Answer {
        self.calls.call(operation)
    }

    fn has_crdt(&self) -> bool {
        // A client cannot know: the member that it asks answers.
        !matches!(self.crdt, CrdtSide::Member(None))
    }

    fn submit_crdt(&self, request: Request) -> Answer<CrdtOutcome> {
        match &self.crdt {
            CrdtSide::Member(Some(crdt)) => crdt.submit(request),
            CrdtSide::Member(None) => crate::store::backend::no_crdt(),
            CrdtSide::Client(calls) => calls.call(request),
        }
    }

    fn watchers(&self) -> Option<&Watchers> {
        self.watchers.as_ref()
    }

    fn crdt_watchers(&self) -> Option<&Watchers> {
        match &self.crdt {
            CrdtSide::Member(crdt) => crdt.as_ref().map(Crdt::watchers),
            CrdtSide::Client(_) => None,
        }
    }

    fn blobs(&self) -> Option<&Blobs> {
        self.blobs.as_ref()
    }

    fn close(&self) {
        self.alarm.stop();
    }
}
