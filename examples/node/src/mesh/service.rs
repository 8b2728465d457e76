//! The service that answers `x0-node mesh` with a report, or with `null` of a node without links.

use std::sync::Arc;

use anyhow::Result;
use x0_identity::NodeId;
use x0_mesh::Mux;

use super::NodeMesh;
use super::rows::Report;
use crate::report;

const SERVICE: &str = "x0-node/mesh";

/// Registers the service; a task of the runtime answers.
pub(super) fn start(mux: &Mux, mesh: Option<Arc<NodeMesh>>) -> Result<()> {
    report::start(mux, SERVICE, move || {
        serde_json::to_vec(&mesh.as_deref().map(|node| Report::of(&node.mesh)))
    })
}

/// A client's end of the service.
pub(super) struct Asker(report::Asker);

impl Asker {
    pub(super) fn new(mux: &Mux) -> Result<Asker> {
        report::Asker::new(mux, SERVICE).map(Asker)
    }

    /// The report of a node; `None` if it has no links. Waits until the node is connected.
    pub(super) async fn report(&mut self, node: NodeId) -> Result<Option<Report>> {
        self.0.report(node).await
    }
}
