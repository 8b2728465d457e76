//! The spans of the `tracing` facade.

use tracing::field::{Empty, display};
use tracing::info_span;
use x0_identity::NodeId;

#[cfg(feature = "crdt")]
use crate::crdt::{Read, Request, Write};
use crate::request::error::OperationError;
use crate::request::operation::{Mutation, Operation, Query};

/// The span of an operation, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Span(tracing::Span);

/// Subscribers that end a span where it was exited last see the end as well.
impl Drop for Span {
    fn drop(&mut self) {
        self.0.in_scope(|| {});
    }
}

impl Span {
    /// A local caller submits the operation. The parent is the current span, if there is one. Keys and values
    /// are not in the span.
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only nodes and clients trace"))]
    pub(crate) fn submitted(operation: &Operation) -> Span {
        // The macro needs the name at compile time.
        macro_rules! begin {
            ($name:literal) => {
                info_span!($name, error = Empty)
            };
        }
        Span(match operation {
            Operation::Read { query, .. } => match query {
                Query::Get { .. } => begin!("kv.get"),
                Query::Range(_) => begin!("kv.range"),
                Query::Scan { .. } => begin!("kv.scan"),
                Query::Keyspaces => begin!("kv.keyspaces"),
            },
            Operation::Write { mutation, .. } => match mutation {
                Mutation::Put { .. } => begin!("kv.put"),
                Mutation::Delete { .. } => begin!("kv.delete"),
                Mutation::CompareAndSwap { .. } => begin!("kv.compare_and_swap"),
                Mutation::Transaction(_) => begin!("kv.transaction"),
                Mutation::CreateKeyspace => begin!("kv.create_keyspace"),
                Mutation::DropKeyspace => begin!("kv.drop_keyspace"),
            },
        })
    }

    /// The operation of another node has come.
    pub(crate) fn served(node: NodeId, from: NodeId, is_write: bool) -> Span {
        let (node, from) = (display(node), display(from));
        Span(match is_write {
            true => info_span!(parent: None, "kv.write", node, from, error = Empty),
            false => info_span!(parent: None, "kv.read", node, from, error = Empty),
        })
    }

    /// A local caller submits a request to a CRDT keyspace.
    #[cfg(feature = "crdt")]
    pub(crate) fn crdt_submitted(request: &Request) -> Span {
        macro_rules! begin {
            ($name:literal) => {
                info_span!($name, error = Empty)
            };
        }
        Span(match request {
            Request::Read(read) => match read {
                Read::Get { .. } => begin!("kv.crdt.get"),
                Read::Siblings { .. } => begin!("kv.crdt.siblings"),
                Read::Counter { .. } => begin!("kv.crdt.counter"),
                Read::Range(_) => begin!("kv.crdt.range"),
                Read::Keyspaces => begin!("kv.crdt.keyspaces"),
            },
            Request::Write(write) => match write {
                Write::Put { .. } => begin!("kv.crdt.put"),
                Write::Add { .. } => begin!("kv.crdt.add"),
                Write::Delete { .. } | Write::DeleteSeen { .. } => begin!("kv.crdt.delete"),
                Write::Clear { .. } => begin!("kv.crdt.clear"),
            },
        })
    }

    /// The request of a client to a CRDT keyspace has come.
    #[cfg(feature = "crdt")]
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "clients come over a mesh"))]
    pub(crate) fn crdt_served(node: NodeId, from: NodeId, is_write: bool) -> Span {
        let (node, from) = (display(node), display(from));
        Span(match is_write {
            true => info_span!(parent: None, "kv.crdt.write", node, from, error = Empty),
            false => info_span!(parent: None, "kv.crdt.read", node, from, error = Empty),
        })
    }

    /// Changes of another member were joined.
    #[cfg(feature = "crdt")]
    pub(crate) fn merged(node: NodeId, from: NodeId, keys: usize) -> Span {
        let (node, from) = (display(node), display(from));
        Span(info_span!(parent: None, "crdt.merge", node, from, keys))
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.0.is_disabled()
    }

    /// Runs with this span as the current one.
    pub(crate) fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        self.0.in_scope(run)
    }

    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only nodes and clients trace"))]
    pub(crate) fn failed(&self, error: &OperationError) {
        self.0.record("error", display(error));
    }
}
