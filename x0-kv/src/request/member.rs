//! The member table: the addresses of each member, as part of the replicated state.
//!
//! The membership of the replicated log says which nodes vote, and which data folder speaks for each of them.
//! The member table says where they are reached. Commands of the log change it, so that every replica has the
//! same table at the same applied index.

use std::collections::BTreeMap;

use bytes::BufMut;
use x0_identity::NodeId;

use crate::request::codec::{self, DecodeError, Decoder};
use crate::request::limits::{LimitError, MEMBER_ADDRESS_LEN_MAX, MEMBER_ADDRESSES_MAX, MEMBERS_MAX};
use crate::request::outcome::Refusal;

/// One member of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// The addresses at which its peers reach it, the preferred one first. Their form is that of the
    /// transport; the store compares and stores them only.
    pub addresses: Vec<String>,
}

/// A change of the member table. Applied twice in succession, it has the effect of once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberChange {
    /// Sets the addresses of a member, which is added to the table if it is not there.
    Addresses {
        /// The member.
        node: NodeId,
        /// The addresses of the member, at most [`MEMBER_ADDRESSES_MAX`].
        addresses: Vec<String>,
    },
    /// Removes a member from the table.
    Remove {
        /// The member.
        node: NodeId,
    },
}

impl MemberChange {
    /// Checks the change against the limits.
    ///
    /// # Errors
    /// The first limit that it breaks. Nothing was done.
    pub fn check(&self) -> Result<(), LimitError> {
        let MemberChange::Addresses { addresses, .. } = self else { return Ok(()) };
        check_addresses(addresses)
    }

    pub(crate) fn encode(&self, to: &mut impl BufMut) {
        match self {
            MemberChange::Addresses { node, addresses } => {
                to.put_u8(0);
                codec::put_u64(to, node.get());
                put_addresses(to, addresses);
            }
            MemberChange::Remove { node } => {
                to.put_u8(1);
                codec::put_u64(to, node.get());
            }
        }
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<MemberChange, DecodeError> {
        match from.u8("kind of member change")? {
            0 => Ok(MemberChange::Addresses { node: node(from)?, addresses: addresses(from)? }),
            1 => Ok(MemberChange::Remove { node: node(from)? }),
            tag => Err(DecodeError::Tag { what: "kind of member change", tag }),
        }
    }
}

/// All members by id. Empty on a store that is not part of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    by_id: BTreeMap<NodeId, Member>,
}

impl Members {
    /// The member `node`, if the table has it.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Member> {
        self.by_id.get(&node)
    }

    /// All members, ascending by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.by_id.iter().map(|(node, member)| (*node, member))
    }

    /// How many members the table has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether the table has no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Makes a change. The table is as it was if it is refused.
    pub(crate) fn change(&mut self, change: &MemberChange) -> Result<(), Refusal> {
        match change {
            MemberChange::Addresses { node, addresses } => {
                self.entry(*node)?.addresses.clone_from(addresses);
            }
            MemberChange::Remove { node } => drop(self.by_id.remove(node)),
        }
        Ok(())
    }

    fn entry(&mut self, node: NodeId) -> Result<&mut Member, Refusal> {
        if self.by_id.len() >= MEMBERS_MAX && !self.by_id.contains_key(&node) {
            return Err(Refusal::MembersExceeded);
        }
        Ok(self.by_id.entry(node).or_default())
    }

    pub(crate) fn encode(&self, to: &mut impl BufMut) {
        for (node, member) in self.iter() {
            codec::put_u64(to, node.get());
            put_addresses(to, &member.addresses);
        }
    }

    /// Reads what [`encode`](Members::encode) wrote, to the end of `from`.
    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Members, DecodeError> {
        let mut members = Members::default();
        while from.remaining() > 0 {
            let node = node(from)?;
            let member = Member { addresses: addresses(from)? };
            if members.by_id.last_key_value().is_some_and(|(last, _)| *last >= node) {
                return Err(DecodeError::Order { what: "members" });
            }
            if members.len() >= MEMBERS_MAX {
                let len = members.len() as u64 + 1;
                return Err(DecodeError::TooLong { what: "list of members", len, max: MEMBERS_MAX });
            }
            members.by_id.insert(node, member);
        }
        Ok(members)
    }
}

pub(crate) fn check_addresses(addresses: &[String]) -> Result<(), LimitError> {
    if addresses.len() > MEMBER_ADDRESSES_MAX {
        return Err(LimitError::MemberAddresses { count: addresses.len() });
    }
    for address in addresses {
        let is_text = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_text || address.len() > MEMBER_ADDRESS_LEN_MAX {
            return Err(LimitError::MemberAddress { len: address.len() });
        }
    }
    Ok(())
}

pub(crate) fn put_addresses(to: &mut impl BufMut, addresses: &[String]) {
    codec::put_u64(to, addresses.len() as u64);
    addresses.iter().for_each(|address| codec::put_bytes(to, address.as_bytes()));
}

pub(crate) fn addresses(from: &mut Decoder<'_>) -> Result<Vec<String>, DecodeError> {
    let count = from.len("count of addresses", MEMBER_ADDRESSES_MAX)?;
    let mut addresses = Vec::new();
    for _ in 0..count {
        let bytes = from.bytes("address of a member", MEMBER_ADDRESS_LEN_MAX)?;
        // Bytes that are not UTF-8 become characters that the check refuses.
        addresses.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    check_addresses(&addresses)?;
    Ok(addresses)
}

pub(crate) fn node(from: &mut Decoder<'_>) -> Result<NodeId, DecodeError> {
    NodeId::new(from.u64("member")?).ok_or(DecodeError::Tag { what: "member", tag: 0 })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn addresses_of(node: u64, address: &str) -> MemberChange {
        MemberChange::Addresses { node: id(node), addresses: vec![address.to_owned()] }
    }

    #[test]
    fn a_repeated_change_has_the_effect_of_once() {
        let mut members = Members::default();
        for address in ["a:1", "b:2"] {
            for _ in 0..2 {
                assert_eq!(members.change(&addresses_of(1, address)), Ok(()));
                assert_eq!(members.get(id(1)), Some(&Member { addresses: vec![address.into()] }));
            }
        }
        for _ in 0..2 {
            assert_eq!(members.change(&MemberChange::Remove { node: id(1) }), Ok(()));
            assert!(members.is_empty());
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let mut members = Members::default();
        for node in 1..=MEMBERS_MAX as u64 {
            members.change(&addresses_of(node, "a:1")).unwrap();
        }
        let beyond = MEMBERS_MAX as u64 + 1;
        assert_eq!(members.change(&addresses_of(beyond, "a:1")), Err(Refusal::MembersExceeded));
        assert_eq!(members.change(&addresses_of(1, "b:1")), Ok(()));
        assert_eq!(members.len(), MEMBERS_MAX);
        let (mut encoded, mut longer) = (Vec::new(), Vec::new());
        members.encode(&mut encoded);
        longer.extend_from_slice(&encoded);
        longer.extend_from_slice(&[0x81, 0x01, 0]);
        let bytes = Bytes::from(longer);
        assert!(matches!(Members::decode(&mut Decoder::new(&bytes)), Err(DecodeError::TooLong { .. })));
        let bytes = Bytes::from(encoded);
        assert_eq!(Members::decode(&mut Decoder::new(&bytes)), Ok(members));
    }

    /// Every bit of an encoded table flipped, every length cut: refused or read as another table that has
    /// this encoding, never a panic.
    #[test]
    fn a_damaged_table_has_one_encoding_or_none() {
        let mut members = Members::default();
        members.change(&addresses_of(1, "10.0.0.1:7401")).unwrap();
        members.change(&addresses_of(300, "[::1]:7401")).unwrap();
        let mut encoded = Vec::new();
        members.encode(&mut encoded);
        let whole = Bytes::from(encoded);
        for position in 0..whole.len() {
            let _ = Members::decode(&mut Decoder::new(&whole.slice(..position)));
            for bit in 0..8 {
                let mut damaged = whole.to_vec();
                damaged[position] ^= 1 << bit;
                let damaged = Bytes::from(damaged);
                if let Ok(read) = Members::decode(&mut Decoder::new(&damaged)) {
                    let mut again = Vec::new();
                    read.encode(&mut again);
                    assert_eq!(again, damaged);
                }
            }
        }
    }

    #[test]
    fn addresses_are_short_printable_text() {
        for (address, is_good) in [("a:1", true), ("", false), ("a b", false), ("a\n", false), ("ä:1", false)]
        {
            assert_eq!(addresses_of(1, address).check().is_ok(), is_good, "{address:?}");
        }
        assert!(addresses_of(1, &"a".repeat(MEMBER_ADDRESS_LEN_MAX)).check().is_ok());
        let too_long = addresses_of(1, &"a".repeat(MEMBER_ADDRESS_LEN_MAX + 1)).check();
        assert_eq!(too_long, Err(LimitError::MemberAddress { len: MEMBER_ADDRESS_LEN_MAX + 1 }));
        let many = MemberChange::Addresses { node: id(1), addresses: vec!["a:1".into(); 9] };
        assert_eq!(many.check(), Err(LimitError::MemberAddresses { count: 9 }));
    }
}
