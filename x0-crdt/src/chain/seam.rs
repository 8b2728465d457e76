//! The seams to cryptography: [`Signer`] and [`Verifier`].

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::error::{SignError, VerifyError};
use crate::ReplicaId;

/// Signs for one writer.
///
/// # Contract
///
/// - The message begins with `x0-crdt chain checkpoint v1\0`, which names protocol and version. Sign it as it
///   is, with a scheme that is unforgeable under chosen messages. A key that also signs elsewhere must do so
///   under other contexts.
/// - The key belongs to the writer's *node*; all incarnations may share it, for the writer is in the message.
/// - At most [`SIGNATURE_LEN_MAX`](crate::SIGNATURE_LEN_MAX) bytes come out, and at least one.
/// - Two calls with one message may answer differently (ECDSA does): a checkpoint is signed once and stored.
/// - A signer does not block for long: [`SignedMap`](crate::SignedMap) calls it from `handle` and
///   `poll_output`.
pub trait Signer {
    /// Signs `message`.
    ///
    /// # Errors
    ///
    /// [`SignError`] when the key cannot be used now; nothing has been signed.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

impl<S: Signer + ?Sized> Signer for Box<S> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        (**self).sign(message)
    }
}

impl<S: Signer + ?Sized> Signer for &S {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        (**self).sign(message)
    }
}

/// Verifies the signatures of all writers.
///
/// # Contract
///
/// - `Ok` means: the key of `writer.node` signed exactly `message`. An unknown writer is refused.
/// - The answer is the same on every replica and does not change from `Ok` to an error while state of the
///   writer is alive: a key that was rotated out still verifies what it signed. Where replicas disagree here,
///   they disagree on what they hold.
/// - `message` begins as that of [`Signer`]; `signature` has at most
///   [`SIGNATURE_LEN_MAX`](crate::SIGNATURE_LEN_MAX) bytes. Both come from outside: it must not panic.
/// - One signature per message: a scheme in which a third party makes a second valid signature out of a first
///   does no harm, for conflicts are judged on what was signed.
pub trait Verifier {
    /// Checks `signature` over `message` against the key of `writer`.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] if the writer is unknown or the signature is not its own.
    fn verify(&self, writer: ReplicaId, message: &[u8], signature: &[u8]) -> Result<(), VerifyError>;
}

impl<V: Verifier + ?Sized> Verifier for Box<V> {
    fn verify(&self, writer: ReplicaId, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        (**self).verify(writer, message, signature)
    }
}

impl<V: Verifier + ?Sized> Verifier for &V {
    fn verify(&self, writer: ReplicaId, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        (**self).verify(writer, message, signature)
    }
}

/// A [`Verifier`] that accepts no writer: the verifier of a replica before it has keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RejectAll;

impl Verifier for RejectAll {
    fn verify(&self, _: ReplicaId, _: &[u8], _: &[u8]) -> Result<(), VerifyError> {
        Err(VerifyError::UnknownWriter)
    }
}
