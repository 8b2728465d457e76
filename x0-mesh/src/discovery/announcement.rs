//! The bytes of an announcement. See the wire format in the documentation of the [module](super).

use x0_identity::NodeId;

pub(super) const LEN: usize = 22;
const MAGIC: [u8; 3] = *b"x0d";
const VERSION: u8 = 1;

/// A node that can be dialled at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) realm: u64,
    pub(super) node: NodeId,
    /// Not 0.
    pub(super) port: u16,
}

impl Announcement {
    pub(super) fn encode(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = VERSION;
        bytes[4..12].copy_from_slice(&self.realm.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.node.get().to_le_bytes());
        bytes[20..].copy_from_slice(&self.port.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Announcement> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let (realm, rest) = rest.split_first_chunk::<8>()?;
        let (node, rest) = rest.split_first_chunk::<8>()?;
        let port = u16::from_le_bytes(rest.try_into().ok()?);
        let [m0, m1, m2, version] = *head;
        let is_known = [m0, m1, m2] == MAGIC && version == VERSION && port != 0;
        let node = NodeId::new(u64::from_le_bytes(*node))?;
        is_known.then_some(Announcement { realm: u64::from_le_bytes(*realm), node, port })
    }
}

/// The number of a realm: FNV-1a (Fowler, Noll and Vo) with 64 bits.
pub(super) fn realm_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Announcement {
        Announcement { realm: realm_of("mesh.test"), node: NodeId::new(0x0102).unwrap(), port: 7001 }
    }

    /// The bytes of version 1 do not change.
    #[test]
    fn the_recorded_announcement_is_read() {
        let recorded = include_bytes!("../../tests/data/announcement_v1.bin");
        assert_eq!(sample().encode(), *recorded);
        assert_eq!(Announcement::decode(recorded), Some(sample()));
    }

    /// Values of the authors' test suite.
    #[test]
    fn realms_are_numbered_by_fnv_1a() {
        assert_eq!(realm_of(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(realm_of("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(realm_of("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn an_announcement_has_one_encoding() {
        let bytes = sample().encode();
        for len in 0..LEN {
            assert_eq!(Announcement::decode(&bytes[..len]), None);
        }
        assert_eq!(Announcement::decode(&[&bytes[..], &[0]].concat()), None);
        for position in 0..LEN {
            for byte in 0..=255 {
                let mut changed = bytes;
                changed[position] = byte;
                match Announcement::decode(&changed) {
                    Some(announcement) => assert_eq!(announcement.encode(), changed),
                    None => assert!(position < 4, "byte {position} has any value"),
                }
            }
        }
        let mut no_node = bytes;
        no_node[12..20].fill(0);
        let mut no_port = bytes;
        no_port[20..].fill(0);
        for invalid in [no_node, no_port] {
            assert_eq!(Announcement::decode(&invalid), None);
        }
    }
}
