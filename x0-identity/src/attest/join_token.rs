//! Join tokens: a secret that admits one workload once.

use core::fmt;
use std::collections::HashMap;
use std::string::String;
use std::time::SystemTime;
use std::vec::Vec;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::{Selector, SelectorError};
use crate::base64::{Alphabet, encode};

/// Tokens that were handed out. A token is stored as its hash. [`JoinTokens::attest`] uses it up;
/// [`JoinTokens::redeem`] binds it to a key.
#[derive(Default)]
pub struct JoinTokens {
    /// By SHA-256 of the token: a lookup says nothing of how close a guess is.
    tokens: HashMap<[u8; 32], StoredToken>,
}

/// A join token as its store keeps it: without the token itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredToken {
    /// The SHA-256 of the token.
    pub hash: [u8; 32],
    /// The selector that the token proves.
    pub selector: Selector,
    /// The end of its validity.
    pub expires: SystemTime,
    /// The SHA-256 of the `SubjectPublicKeyInfo` that it was redeemed with.
    pub redeemed_by: Option<[u8; 32]>,
}

impl StoredToken {
    /// Builds a token that was not redeemed.
    #[must_use]
    pub fn new(hash: [u8; 32], selector: Selector, expires: SystemTime) -> StoredToken {
        StoredToken { hash, selector, expires, redeemed_by: None }
    }

    /// Sets [`StoredToken::redeemed_by`].
    #[must_use]
    pub fn redeemed_by(mut self, key: Option<[u8; 32]>) -> StoredToken {
        self.redeemed_by = key;
        self
    }
}

/// A join token was not issued or not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinTokenError {
    /// The token is unknown, or was used before.
    #[error("the join token is unknown or was used before: request a new one from the operator")]
    Unknown,
    /// The token is expired. It was removed.
    #[error("the join token is expired: request a new one from the operator")]
    Expired,
    /// The name does not make a selector.
    #[error("the name of the join token does not make a selector: choose a shorter name that is not empty")]
    Name(#[from] SelectorError),
    /// There are 65,536 tokens.
    #[error("there are 65,536 join tokens: remove expired ones, or wait until some are used")]
    Tokens,
    /// The system provides no randomness.
    #[error("cannot choose a join token: the system provides no randomness")]
    Random,
}

impl JoinTokens {
    /// The most tokens at a time.
    pub const TOKENS_MAX: usize = 65_536;

    /// Builds an empty store.
    #[must_use]
    pub fn new() -> JoinTokens {
        JoinTokens::default()
    }

    /// Issues a token of 256 random bits. The workload that presents it before `expires` has the selector
    /// `join_token:<name>`.
    ///
    /// # Errors
    /// [`JoinTokenError`], when the name does not make a selector, there are too many tokens, or there is no
    /// randomness.
    pub fn issue(&mut self, name: &str, expires: SystemTime) -> Result<String, JoinTokenError> {
        let selector = Selector::parse(&std::format!("join_token:{name}"))?;
        if self.tokens.len() >= Self::TOKENS_MAX {
            return Err(JoinTokenError::Tokens);
        }
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| JoinTokenError::Random)?;
        let token = encode(&secret, Alphabet::Url);
        self.insert(StoredToken::new(hash(token.as_bytes()), selector, expires))?;
        Ok(token)
    }

    /// Puts a token that was stored in the place of the one with its hash.
    ///
    /// # Errors
    /// [`JoinTokenError::Tokens`], when there are too many.
    pub fn insert(&mut self, token: StoredToken) -> Result<(), JoinTokenError> {
        if self.tokens.len() >= Self::TOKENS_MAX && !self.tokens.contains_key(&token.hash) {
            return Err(JoinTokenError::Tokens);
        }
        self.tokens.insert(token.hash, token);
        Ok(())
    }

    /// The tokens, ordered by hash, for a store that keeps them.
    #[must_use]
    pub fn stored(&self) -> Vec<&StoredToken> {
        let mut tokens: Vec<&StoredToken> = self.tokens.values().collect();
        tokens.sort_by_key(|token| token.hash);
        tokens
    }

    /// Takes a token that a workload presents, and returns the selector that it proves. The token is used up.
    ///
    /// # Errors
    /// [`JoinTokenError`], when the token is unknown, was used before, or is expired.
    pub fn attest(&mut self, token: &str, now: SystemTime) -> Result<Selector, JoinTokenError> {
        let token = self.tokens.remove(&hash(token.as_bytes())).ok_or(JoinTokenError::Unknown)?;
        match token.redeemed_by {
            Some(_) => Err(JoinTokenError::Unknown),
            None if now < token.expires => Ok(token.selector),
            None => Err(JoinTokenError::Expired),
        }
    }

    /// Takes a token that a workload presents with the key of its certificate request (the DER of the
    /// `SubjectPublicKeyInfo`), and returns the selector that it proves. The token serves this key alone from
    /// then on, until it expires: a workload that did not receive the answer asks again with the same key.
    ///
    /// # Errors
    /// [`JoinTokenError`], when the token is unknown, serves another key, or is expired. An expired token is
    /// removed.
    pub fn redeem(
        &mut self,
        token: &str,
        public_key_info: &[u8],
        now: SystemTime,
    ) -> Result<Selector, JoinTokenError> {
        let (token, key) = (hash(token.as_bytes()), hash(public_key_info));
        let stored = self.tokens.get_mut(&token).ok_or(JoinTokenError::Unknown)?;
        if now >= stored.expires {
            self.tokens.remove(&token);
            return Err(JoinTokenError::Expired);
        }
        match stored.redeemed_by {
            Some(other) if other != key => Err(JoinTokenError::Unknown),
            _ => {
                stored.redeemed_by = Some(key);
                Ok(stored.selector.clone())
            }
        }
    }

    /// Removes expired tokens.
    pub fn remove_expired(&mut self, now: SystemTime) {
        self.tokens.retain(|_, token| now < token.expires);
    }

    /// The number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// Without the hashes.
impl fmt::Debug for JoinTokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JoinTokens").field("len", &self.tokens.len()).finish_non_exhaustive()
    }
}
