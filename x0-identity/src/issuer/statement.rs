//! Statements that an authority signs, beside certificates.

use crate::x509::Certificate;
use crate::{RevocationView, Revoked, TrustBundle};

use super::KeyAlgorithm;

/// The longest signature, in bytes: that of a key of RSA 8192.
pub(super) const SIGNATURE_LEN_MAX: usize = 1024;

/// Whether an authority of the bundle has signed the message, and is not revoked.
pub(super) fn is_signed(
    bundle: &TrustBundle,
    revoked: &RevocationView,
    message: &[u8],
    signature: &[u8],
) -> bool {
    bundle.authorities().iter().any(|authority| {
        let Ok(certificate) = Certificate::parse(authority) else { return false };
        let key = Revoked::Authority { public_key_info: certificate.public_key_info.to_vec() };
        let algorithm = KeyAlgorithm::of_key(certificate.public_key_algorithm);
        let verifies =
            |algorithm: KeyAlgorithm| algorithm.verifies(certificate.public_key, message, signature);
        !revoked.contains(&key) && algorithm.is_some_and(verifies)
    })
}
