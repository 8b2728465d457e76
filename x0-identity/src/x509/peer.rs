//! The identity of the peer of a connection, read from its verified chain.

use std::time::SystemTime;

use pki_types::CertificateDer;

use super::{Leaf, LeafError, spiffe_id_of, to_system_time};
use crate::{NodeId, SpiffeId, TrustDomain};

/// The chain of a peer does not name a workload or a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The peer presented no certificate.
    #[error("the peer presented no certificate: configure it for mutual TLS")]
    NoCertificate,
    /// The leaf certificate breaks a rule of X509-SVID.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The SPIFFE ID of the peer is not that of a node of the trust domain.
    #[error(
        "the peer {spiffe_id} is not a node of the trust domain: issue it an SVID for spiffe://<trust domain>/node/<16 digits>"
    )]
    NotANode {
        /// The SPIFFE ID of the peer.
        spiffe_id: SpiffeId,
    },
}

/// The SPIFFE ID at the head of a chain that a verifier **has already accepted** (in rustls, the
/// `peer_certificates` of a connection whose handshake is over). The chain itself is not verified again.
///
/// # Errors
/// [`PeerError`], when the chain is empty or the leaf breaks a rule of X509-SVID.
pub fn peer_spiffe_id(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, PeerError> {
    Ok(spiffe_id_of(chain.first().ok_or(PeerError::NoCertificate)?)?)
}

/// The node at the head of a chain that a verifier **has already accepted**, as for [`peer_spiffe_id`], of
/// any trust domain: for a verifier that trusts one. With more than one use [`peer_node_id_in`].
///
/// # Errors
/// [`PeerError`], when the chain is empty, the leaf breaks a rule of X509-SVID, or the SPIFFE ID is not that
/// of a node.
pub fn peer_node_id(chain: &[CertificateDer<'_>]) -> Result<NodeId, PeerError> {
    let spiffe_id = peer_spiffe_id(chain)?;
    spiffe_id.node_id().ok_or(PeerError::NotANode { spiffe_id })
}

/// As [`peer_node_id`], for nodes of one trust domain: a federated domain has nodes of its own, with the same
/// numbers.
///
/// # Errors
/// [`PeerError`], as for [`peer_node_id`], and [`PeerError::NotANode`] when the SPIFFE ID is of another trust
/// domain.
pub fn peer_node_id_in(
    trust_domain: &TrustDomain,
    chain: &[CertificateDer<'_>],
) -> Result<NodeId, PeerError> {
    let spiffe_id = peer_spiffe_id(chain)?;
    let node = spiffe_id.node_id().filter(|_| spiffe_id.trust_domain() == trust_domain);
    node.ok_or(PeerError::NotANode { spiffe_id })
}

/// The last second in which the SVID at the head of a chain is valid. A verifier **has already accepted** the
/// chain, as for [`peer_spiffe_id`]. Close the connection at that moment: the SVID no longer proves the
/// identity of the peer.
///
/// # Errors
/// [`PeerError`], when the chain is empty or the leaf breaks a rule of X509-SVID.
pub fn peer_not_after(chain: &[CertificateDer<'_>]) -> Result<SystemTime, PeerError> {
    let leaf = Leaf::read(chain.first().ok_or(PeerError::NoCertificate)?)?;
    Ok(to_system_time(leaf.validity.not_after))
}
