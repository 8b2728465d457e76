//! The arguments of `x0-node mesh`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use x0_identity::NodeId;

use crate::cli::node_id;

#[derive(Debug, Args)]
pub(crate) struct MeshArgs {
    /// The client's configuration
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: MeshCommand,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum MeshCommand {
    /// Print the paths of each node to each other, with the next hop and the reason for it
    Routes,
    /// Print the links of each node: state, round-trip time, share of frames that arrive, bytes
    Links,
    /// Print what each node has found about the network: forged routes, destinations that do not answer
    Findings,
    /// Print the way to a node, hop by hop
    Trace {
        /// The destination: its number, or its id in 16 hexadecimal digits
        #[arg(value_parser = node_id)]
        node: NodeId,
        /// Where the way begins; the first node of the configuration unless set
        #[arg(long, value_parser = node_id, value_name = "NODE")]
        from: Option<NodeId>,
    },
}
