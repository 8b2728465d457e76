//! [`HashKey`]: the secret of keyed hashes.

use core::hash::Hasher;

use siphasher::sip::SipHasher13;

/// The secret that the members of one map share for their hashes.
///
/// Replicas compare, sum and reconcile the hashes of values instead of the values. An attacker that knows the
/// secret can craft two values with one hash and so hide one from a set reconciliation: keep it among the
/// members.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey(u64, u64);

impl HashKey {
    /// The key of these 16 secret bytes.
    #[must_use]
    pub const fn new(secret: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = secret;
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p]))
    }

    /// SipHash-1-3 over the parts, each followed by its length.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        for part in parts {
            hasher.write(part);
            hasher.write(&(part.len() as u64).to_le_bytes());
        }
        hasher.finish()
    }
}

impl core::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKey(..)")
    }
}
