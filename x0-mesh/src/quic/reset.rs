//! The secret behind stateless resets.

use std::fmt;
use std::sync::Arc;

use quinn::EndpointConfig;
use quinn_proto::RandomConnectionIdGenerator;
use ring::hmac;

/// The length of a connection id: so long that a process never meets one that a process before it has used,
/// whose reset token may be known (RFC 9000 §10.3.2).
const CONNECTION_ID_LEN: usize = 8;

/// The secret by which a node that has restarted ends the connections of the process before it (stateless
/// reset, RFC 9000 §10.3).
///
/// A process that dies without a word leaves peers that send to it. The next process on its address does not
/// know their connections; with the same key it proves that it speaks for them, and a peer that dials
/// connects again within milliseconds of its next packet. Without a key it waits for its idle timeout.
///
/// Whoever knows the key can end connections of the node, and do nothing else: keep it like other secrets of
/// the node, and give each node its own.
#[derive(Clone, PartialEq, Eq)]
pub struct ResetKey([u8; ResetKey::LEN]);

impl ResetKey {
    /// The length of the secret, in bytes.
    pub const LEN: usize = 32;

    /// A key of random bytes, the same after each start of the node.
    #[must_use]
    pub fn new(secret: [u8; ResetKey::LEN]) -> ResetKey {
        ResetKey(secret)
    }

    pub(super) fn endpoint_config(&self) -> EndpointConfig {
        let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.0)));
        // quinn's usual ids are authenticated by a key of the process, which answers no others.
        config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID_LEN)));
        config
    }
}

impl fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetKey(..)")
    }
}
