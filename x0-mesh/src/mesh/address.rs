//! Addresses that stand for nodes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use x0_identity::NodeId;

/// A unique local prefix of 64 bits (RFC 4193). It never appears on a wire.
const PREFIX: u64 = 0xfd78_306d_6573_6800;
const PORT: u16 = 1;

/// The address that stands for a node on [`Mesh::socket`](super::Mesh::socket): a unique local prefix and
/// the 64 bits of its id.
///
/// ```
/// use x0_identity::NodeId;
/// use x0_mesh::mesh::{address, node_at};
///
/// let node = NodeId::new(0x12).ok_or("zero")?;
/// assert_eq!(address(node).to_string(), "[fd78:306d:6573:6800::12]:1");
/// assert_eq!(node_at(address(node)), Some(node));
/// assert_eq!(node_at("192.0.2.1:1".parse()?), None);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn address(node: NodeId) -> SocketAddr {
    let bits = u128::from(PREFIX) << 64 | u128::from(node.get());
    SocketAddr::from((Ipv6Addr::from(bits), PORT))
}

/// The node that an address stands for, `None` for any other address.
#[must_use]
pub fn node_at(address: SocketAddr) -> Option<NodeId> {
    let IpAddr::V6(ip) = address.ip() else { return None };
    let [high, low] = [ip.to_bits() >> 64, ip.to_bits() & u128::from(u64::MAX)];
    (high == u128::from(PREFIX)).then(|| u64::try_from(low).ok().and_then(NodeId::new)).flatten()
}
