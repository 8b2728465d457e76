//! The service that answers `x0-node mesh` with a report, or with `null` of a node without links.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use x0_identity::NodeId;
use x0_mesh::Mux;

use super::NodeMesh;
use super::rows::Report;
use crate::client::Services;
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
    pub(super) fn new(services: &Services) -> Result<Asker> {
        services.asker(SERVICE).map(Asker)
    }

    /// The reports of the nodes that answer within `limit`; `None` of one without links.
    pub(super) async fn reports(
        &mut self,
        nodes: impl IntoIterator<Item = NodeId>,
        limit: Duration,
    ) -> Result<BTreeMap<NodeId, Result<Option<Report>>>> {
        self.0.ask_all(nodes, b"", limit).await
    }
}
