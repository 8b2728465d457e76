//! Requests to a store and their answers: operations, outcomes, log commands, limits, codecs and errors.

pub(crate) mod applied;
pub(crate) mod codec;
pub(crate) mod command;
pub(crate) mod error;
pub(crate) mod keyspace;
pub mod limits;
pub(crate) mod member;
pub(crate) mod operation;
pub(crate) mod outcome;
pub(crate) mod pending;
pub(crate) mod revision;
pub(crate) mod watch;
