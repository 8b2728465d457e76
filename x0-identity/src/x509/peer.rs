//! Who is at the other end of a connection.

use std::time::SystemTime;

use pki_types::CertificateDer;

use super::{Leaf, LeafError, spiffe_id_of, to_system_time};
use crate::{NodeId, SpiffeId};

/// Why the chain of a peer names no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The peer presented no certificate.
    #[error("the peer presented no certificate: both sides must authenticate")]
    NoCertificate,
    /// Its certificate identifies nobody.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// It is somebody, but no node of a mesh.
    #[error(
        "the peer is {spiffe_id}, which names no node: a node's SPIFFE ID is spiffe://<trust domain>/node/<16 digits>"
    )]
    NotANode {
        /// Who it is.
        spiffe_id: SpiffeId,
    },
}

/// The SPIFFE ID at the head of a chain that a verifier **has already accepted** (in rustls, the `peer_certificates` of a
/// connection whose handshake is over). The chain itself is not verified again.
///
/// # Errors
/// [`PeerError`], when there is no certificate or it breaks a rule of X509-SVID.
pub fn peer_spiffe_id(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, PeerError> {
    Ok(spiffe_id_of(chain.first().ok_or(PeerError::NoCertificate)?)?)
}

/// The node at the head of a chain that a verifier **has already accepted**, as for [`peer_spiffe_id`].
///
/// # Errors
/// [`PeerError`], when there is no certificate, it breaks a rule of X509-SVID, or its SPIFFE ID is not that of a node.
pub fn peer_node_id(chain: &[CertificateDer<'_>]) -> Result<NodeId, PeerError> {
    let spiffe_id = peer_spiffe_id(chain)?;
    spiffe_id.node_id().ok_or(PeerError::NotANode { spiffe_id })
}

/// Until when the SVID at the head of a chain is valid, this moment included; the chain is one that a verifier **has already accepted**,
/// as for [`peer_spiffe_id`]. A connection that goes on longer is with somebody who may no longer be who it was.
///
/// # Errors
/// [`PeerError`], when there is no certificate or it breaks a rule of X509-SVID.
pub fn peer_not_after(chain: &[CertificateDer<'_>]) -> Result<SystemTime, PeerError> {
    let leaf = Leaf::read(chain.first().ok_or(PeerError::NoCertificate)?)?;
    Ok(to_system_time(leaf.validity.not_after))
}
