//! Join tokens: a secret that admits one workload once.

use core::fmt;
use std::collections::HashMap;
use std::string::String;
use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::{Selector, SelectorError};
use crate::base64::{Alphabet, encode};

/// Tokens that were handed out and not used. A token is stored as its hash, and removed by the first use.
#[derive(Default)]
pub struct JoinTokens {
    /// By SHA-256 of the token: a lookup says nothing of how close a guess is.
    tokens: HashMap<[u8; 32], (Selector, SystemTime)>,
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
    /// There are 65,536 unused tokens.
    #[error("65,536 join tokens are unused: remove expired ones, or wait until some are used")]
    Tokens,
    /// The system provides no randomness.
    #[error("cannot choose a join token: the system provides no randomness")]
    Random,
}

impl JoinTokens {
    /// The most tokens that are unused at a time.
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
        self.tokens.insert(hash(&token), (selector, expires));
        Ok(token)
    }

    /// Takes a token that a workload presents, and returns the selector that it proves. The token is used up.
    ///
    /// # Errors
    /// [`JoinTokenError`], when the token is unknown, was used before, or is expired.
    pub fn attest(&mut self, token: &str, now: SystemTime) -> Result<Selector, JoinTokenError> {
        let (selector, expires) = self.tokens.remove(&hash(token)).ok_or(JoinTokenError::Unknown)?;
        if now < expires { Ok(selector) } else { Err(JoinTokenError::Expired) }
    }

    /// Removes expired tokens.
    pub fn remove_expired(&mut self, now: SystemTime) {
        self.tokens.retain(|_, (_, expires)| now < *expires);
    }

    /// The number of unused tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether every token was used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// Without the hashes.
impl fmt::Debug for JoinTokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JoinTokens").field("len", &self.tokens.len()).finish_non_exhaustive()
    }
}
