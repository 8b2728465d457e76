//! SPIFFE Federation of a cluster: the trust in workloads of other trust domains, which an operator sets for
//! all nodes with `x0-node bundle federate`, and the endpoint from which others fetch the bundle of this one.
//!
//! A relationship names the clients of the foreign domain that are admitted. Its nodes are never members: a
//! node of another trust domain has no number here.

pub(crate) mod commands;
mod consumer;
mod endpoint;
pub(crate) mod relationships;

pub(crate) use self::consumer::{FederatedRow, Federation, FederationReport};
pub(crate) use self::endpoint::EndpointConfig;
