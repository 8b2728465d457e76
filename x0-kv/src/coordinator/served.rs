//! The requests of other nodes that were answered, for the metrics of the driver.

use std::time::Duration;

use super::call::Request;
use crate::coordinator::protocol::Body;
use crate::request::error::OperationError;
use crate::telemetry::{IS_ENABLED, OperationKind};

/// Most requests that are noted between two drains; further ones are not.
const SERVED_MAX: usize = 1 << 14;

/// A request that was answered.
#[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "the driver of a node takes them"))]
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) kind: OperationKind,
    pub(crate) took: Duration,
    /// The error that the requester gets, if no other node answers it.
    pub(crate) error: Option<OperationError>,
}

/// What was answered since the last drain; always empty without the feature `metrics`.
#[derive(Debug, Default)]
pub(super) struct ServedLog(Vec<Served>);

impl ServedLog {
    /// Notes the end of a request. One that another node is asked for next is not counted here.
    pub(super) fn note(&mut self, request: &Request, now: Duration, body: &Body) {
        if !IS_ENABLED || request.relayed_to.is_some() || self.0.len() >= SERVED_MAX {
            return;
        }
        let error = match body {
            Body::Answer { .. } => None,
            Body::Busy => Some(OperationError::Overloaded),
            Body::NoSpace => Some(OperationError::NoSpace { ambiguous: false }),
            Body::Unknown => Some(OperationError::TimedOut { ambiguous: true }),
            Body::Rejected => Some(OperationError::NotUnderstood),
            _ => return,
        };
        let kind = match (request.is_proposed, request.is_local) {
            (true, _) => OperationKind::Write,
            (false, true) => OperationKind::LocalRead,
            (false, false) => OperationKind::Read,
        };
        self.0.push(Served { kind, took: now.saturating_sub(request.begun), error });
    }

    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "the driver of a node takes them"))]
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Served> + '_ {
        self.0.drain(..)
    }
}
