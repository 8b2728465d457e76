//! X.509-SVIDs: what certificates and keys are, and the rules of X509-SVID that a single certificate must
//! keep.

mod bundle;
mod bundle_set;
mod certificate;
#[cfg_attr(not(feature = "rustls"), allow(dead_code, reason = "path validation reads more types"))]
pub(crate) mod der;
mod leaf;
mod name;
mod peer;
mod pem;
mod signing;
mod svid;

pub(crate) use certificate::{Certificate, Validity, to_system_time};
#[cfg(feature = "rustls")]
pub(crate) use certificate::{
    Criticality, DIRECTORY_NAME, DNS_NAME, GENERAL_NAMES, IP_ADDRESS, RFC822_NAME, URI,
};
pub(crate) use leaf::Leaf;
pub(crate) use name::Name;
#[cfg(feature = "rustls")]
pub(crate) use name::{attributes, canonical};
pub(crate) use pem::{read_parts, write_certificate, write_key};
pub(crate) use signing::{Signer, check_signing_certificate};

pub use bundle::{BundleError, TrustBundle};
pub use bundle_set::{BundleSource, TrustBundleSet};
pub use certificate::{CERTIFICATE_LEN_MAX, EncodingError};
pub use leaf::{LeafError, spiffe_id_of};
pub use peer::{PeerError, peer_node_id, peer_node_id_in, peer_not_after, peer_spiffe_id};
pub use pem::{PEM_LEN_MAX, PemError};
pub use signing::{SigningError, spiffe_id_of_signer};
pub use svid::{SvidError, X509Svid};
