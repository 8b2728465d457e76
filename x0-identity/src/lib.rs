//! Who a node is.
#![no_std]

mod node_id;

pub use node_id::{NodeId, ParseNodeIdError};
