//! X.509-SVIDs: what certificates and keys are, and the rules of X509-SVID that a single certificate must keep.

mod bundle;
mod certificate;
mod leaf;
mod peer;
mod pem;
mod signing;
mod svid;

pub(crate) use certificate::{Certificate, Validity, to_system_time};
pub(crate) use leaf::Leaf;
pub(crate) use pem::{read_parts, write_certificate, write_key};
pub(crate) use signing::check_signing_certificate;

pub use bundle::{BundleError, TrustBundle};
pub use certificate::{CERTIFICATE_LEN_MAX, EncodingError};
pub use leaf::{LeafError, spiffe_id_of};
pub use peer::{PeerError, peer_node_id, peer_not_after, peer_spiffe_id};
pub use pem::{PEM_LEN_MAX, PemError};
pub use signing::{SigningError, spiffe_id_of_signer};
pub use svid::{SvidError, X509Svid};
