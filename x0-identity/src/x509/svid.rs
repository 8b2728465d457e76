//! X.509-SVIDs: a certificate chain and the private key of its leaf.

use core::fmt;
use std::string::String;
use std::time::SystemTime;
use std::vec::Vec;

use pki_types::{CertificateDer, PrivateKeyDer};

use super::{
    Leaf, LeafError, PemError, SigningError, check_signing_certificate, read_parts, to_system_time,
    write_certificate, write_key,
};
use crate::{NodeId, SpiffeId};

/// An X.509-SVID: a leaf certificate, the intermediates behind it, and the leaf's private key.
///
/// Each certificate was checked against the rules of X509-SVID for a single certificate. Two properties need
/// cryptography and are checked by `Identity` instead: an authority of the bundle signed the chain, and the
/// key belongs to the leaf.
pub struct X509Svid {
    /// The leaf first, then each signer of the one before.
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    leaf: Leaf,
}

impl X509Svid {
    /// The longest chain, in certificates, the leaf included.
    pub const CHAIN_LEN_MAX: usize = 8;

    /// Builds an SVID from its certificates, the leaf first and then each signer, and the leaf's private key.
    ///
    /// # Errors
    /// [`SvidError`], when there are none or too many, or when one breaks a rule of X509-SVID.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<X509Svid, SvidError> {
        if chain.len() > Self::CHAIN_LEN_MAX {
            return Err(SvidError::ChainLength { len: chain.len() });
        }
        let (first, signers) = chain.split_first().ok_or(SvidError::NoCertificate)?;
        let leaf = Leaf::read(first)?;
        for (position, signer) in signers.iter().enumerate() {
            check_signing_certificate(signer)
                .map_err(|source| SvidError::Signer { position: position + 1, source })?;
        }
        Ok(X509Svid { chain, key, leaf })
    }

    /// Reads PEM text with the certificates in order, the leaf first, and one private key (PKCS #8, SEC 1 or
    /// PKCS #1) anywhere among them. Sections of other kinds are skipped.
    ///
    /// # Errors
    /// [`SvidError`], when the text is damaged, the key is missing, or as for [`X509Svid::from_der`].
    pub fn from_pem(pem: &[u8]) -> Result<X509Svid, SvidError> {
        let parts = read_parts(pem)?;
        X509Svid::from_der(parts.certificates, parts.key.ok_or(SvidError::NoKey)?)
    }

    /// The chain and then the **private key** as PEM text: keep it where only its owner can read it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut pem = String::new();
        for certificate in &self.chain {
            write_certificate(certificate, &mut pem);
        }
        write_key(&self.key, &mut pem);
        pem
    }

    /// The SPIFFE ID of the leaf.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.leaf.spiffe_id
    }

    /// The node, if the SPIFFE ID is that of a node.
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        self.leaf.spiffe_id.node_id()
    }

    /// The certificates, the leaf first. Never empty.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf's private key.
    #[must_use]
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// The leaf's serial number: a big-endian integer as in the certificate. It differs between rotations.
    #[must_use]
    pub fn serial_number(&self) -> &[u8] {
        &self.leaf.serial_number
    }

    /// The first moment at which the leaf is valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        to_system_time(self.leaf.validity.not_before)
    }

    /// The last second in which the leaf is valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        to_system_time(self.leaf.validity.not_after)
    }
}

/// Without the private key.
impl fmt::Debug for X509Svid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("X509Svid")
            .field("spiffe_id", &self.leaf.spiffe_id)
            .field("chain_len", &self.chain.len())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

impl Clone for X509Svid {
    fn clone(&self) -> X509Svid {
        X509Svid { chain: self.chain.clone(), key: self.key.clone_key(), leaf: self.leaf.clone() }
    }
}

/// Certificates and a key are not an SVID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// The PEM text cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The chain is empty.
    #[error("the SVID has no certificate: write the leaf first, then its signers")]
    NoCertificate,
    /// The private key is missing.
    #[error("the SVID has no private key: append the key of the leaf to the certificates")]
    NoKey,
    /// The chain has more certificates than [`X509Svid::CHAIN_LEN_MAX`].
    #[error(
        "the chain has {len} certificates, more than the 8 allowed: leave the root out, or use fewer intermediates"
    )]
    ChainLength {
        /// The number of certificates.
        len: usize,
    },
    /// The first certificate breaks a rule for leaves.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// A later certificate breaks a rule for signing certificates.
    #[error(
        "certificate {position} of the chain is not a valid signing certificate: replace it with the issuer of the one before"
    )]
    Signer {
        /// The position in the chain; the leaf has position 0.
        position: usize,
        /// The rule that is broken.
        source: SigningError,
    },
}
