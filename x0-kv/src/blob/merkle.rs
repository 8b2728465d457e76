//! The Merkle tree over the chunks of a blob: the shape and the hashes of RFC 9162 §2.1.1, over SHA-256.
//!
//! A leaf is the hash of `0x00` and a chunk, an inner node that of `0x01` and its two children. Nodes are
//! numbered in order, leaf `i` as `2i`, so that a tree of `n` leaves is an array of `2n - 1` hashes of which
//! any part may be known.

use sha2::{Digest as _, Sha256};

use super::CHUNK_LEN;

/// A SHA-256 hash (FIPS 180-4).
pub(crate) type Digest = [u8; 32];

const LEAF: u8 = 0;
const NODE: u8 = 1;
const BLOB: u8 = 2;

fn hash(parts: &[&[u8]]) -> Digest {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part);
    }
    sha.finalize().into()
}

pub(super) fn leaf(chunk: &[u8]) -> Digest {
    hash(&[&[LEAF], chunk])
}

fn node(left: &Digest, right: &Digest) -> Digest {
    hash(&[&[NODE], left, right])
}

/// The name of a blob: its length and the root over its chunks. A root alone leaves the number of leaves
/// open: the path of one leaf can be right in trees of several sizes.
pub(super) fn name(len: u64, root: &Digest) -> Digest {
    hash(&[&[BLOB], &len.to_be_bytes(), root])
}

/// How many chunks a blob of `len` bytes has. Callers have checked `len` against the limit.
pub(super) fn chunk_count(len: u64) -> u32 {
    u32::try_from(len.div_ceil(CHUNK_LEN as u64)).unwrap_or(u32::MAX)
}

/// The length of chunk `index` of a blob of `len` bytes: that of all but the last is [`CHUNK_LEN`].
pub(super) fn chunk_len(len: u64, index: u32) -> usize {
    let left = len.saturating_sub(u64::from(index) * CHUNK_LEN as u64);
    usize::try_from(left).map_or(CHUNK_LEN, |left| left.min(CHUNK_LEN))
}

/// The largest power of two below `count`, which is two or more.
fn split(count: u32) -> u32 {
    1 << (u32::BITS - 1 - (count - 1).leading_zeros())
}

/// The number of the node over the leaves `start .. start + count`.
fn number(start: u32, count: u32) -> u32 {
    if count == 1 { 2 * start } else { 2 * (start + split(count)) - 1 }
}

/// How many nodes a tree over `count` leaves has.
pub(super) fn node_count(count: u32) -> u32 {
    (2 * count).saturating_sub(1)
}

/// The siblings of leaf `index` among `count` up to the root, the lowest first: the number of each, and
/// whether it is the left one.
pub(super) fn siblings(index: u32, count: u32) -> Vec<(u32, bool)> {
    let (mut start, mut count, mut found) = (0, count, Vec::new());
    while count > 1 {
        let left = split(count);
        if index < start + left {
            found.push((number(start + left, count - left), false));
            count = left;
        } else {
            found.push((number(start, left), true));
            start += left;
            count -= left;
        }
    }
    found.reverse();
    found
}

/// The root that `path` leads to from leaf `index` of `count`; `None` if the path has not the length that the
/// place asks for.
pub(super) fn climb(leaf: Digest, index: u32, count: u32, path: &[Digest]) -> Option<Digest> {
    let siblings = siblings(index, count);
    if index >= count || siblings.len() != path.len() {
        return None;
    }
    let mut at = leaf;
    for (sibling, (_, is_left)) in path.iter().zip(siblings) {
        at = if is_left { node(sibling, &at) } else { node(&at, sibling) };
    }
    Some(at)
}

/// All nodes over `leaves`, in order of their numbers, and the root.
pub(super) fn tree(leaves: &[Digest]) -> (Vec<Digest>, Digest) {
    let mut nodes = vec![[0; 32]; (2 * leaves.len()).saturating_sub(1)];
    // RFC 9162 §2.1.1: the hash of an empty list is the hash of nothing.
    let root = if leaves.is_empty() { hash(&[]) } else { fill(&mut nodes, leaves) };
    (nodes, root)
}

/// Fills the nodes over `leaves`, of which there is one at least; answers the uppermost.
fn fill(nodes: &mut [Digest], leaves: &[Digest]) -> Digest {
    if let [leaf] = leaves {
        nodes[0] = *leaf;
        return *leaf;
    }
    // Half of the next power of two is the largest one below.
    let left = leaves.len().next_power_of_two() / 2;
    let (left_nodes, rest) = nodes.split_at_mut(2 * left - 1);
    let (left_leaves, right_leaves) = leaves.split_at(left);
    let top = node(&fill(left_nodes, left_leaves), &fill(&mut rest[1..], right_leaves));
    rest[0] = top;
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u8) -> Vec<Digest> {
        (0..count).map(|byte| leaf(&[byte])).collect()
    }

    fn hex(digest: Digest) -> String {
        super::super::BlobId::from_bytes(digest).to_string()
    }

    /// RFC 9162 fixes the hashes; these are the values that Certificate Transparency's implementations test
    /// with (RFC 6962 has the same tree).
    #[test]
    fn the_roots_are_those_of_the_rfc() {
        assert_eq!(hex(tree(&[]).1), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(leaf(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves: Vec<Digest> = inputs.iter().map(|input| leaf(input)).collect();
        for (count, root) in (1..).zip(roots) {
            assert_eq!(hex(tree(&leaves[..count]).1), root);
        }
    }

    #[test]
    fn every_leaf_of_every_size_climbs_to_the_root_and_to_no_other_place() {
        for count in 1..=40_u8 {
            let leaves = leaves(count);
            let (nodes, root) = tree(&leaves);
            let count = u32::from(count);
            assert_eq!(nodes.len(), node_count(count) as usize);
            for (index, leaf) in (0..).zip(&leaves) {
                assert_eq!(nodes[2 * index as usize], *leaf);
                let path: Vec<Digest> =
                    siblings(index, count).iter().map(|(number, _)| nodes[*number as usize]).collect();
                assert_eq!(climb(*leaf, index, count, &path), Some(root));
                for other in (0..count + 2).filter(|other| *other != index) {
                    assert_ne!(climb(*leaf, other, count, &path), Some(root), "{index} taken for {other}");
                }
                let mut long = path.clone();
                long.push(root);
                assert_eq!(climb(*leaf, index, count, &long), None);
                if let Some((_, short)) = path.split_last() {
                    assert_eq!(climb(*leaf, index, count, short), None);
                }
            }
        }
    }

    #[test]
    fn the_length_is_part_of_the_name() {
        let (nodes, root) = tree(&leaves(3));
        // The path of the first leaf is valid in a tree of four as well as in the one of three; only the name
        // distinguishes them.
        let path = [nodes[2], nodes[4]];
        assert_eq!(climb(nodes[0], 0, 3, &path), Some(root));
        assert_eq!(climb(nodes[0], 0, 4, &path), Some(root));
        assert_ne!(name(3, &root), name(4, &root));
    }
}
