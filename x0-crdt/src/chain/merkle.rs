//! The Merkle tree over a batch: the shape of RFC 9162 §2.1.1, the hashes of this module.
//!
//! The number of leaves is signed beside the root, so the shape, and with it the length of every path, is
//! fixed.

use alloc::vec::Vec;

use super::digest::Digest;

/// The largest power of two below `count`, which is two or more.
pub(super) fn split(count: usize) -> usize {
    1 << (usize::BITS - 1 - (count - 1).leading_zeros())
}

/// The root over `leaves`. Without leaves there is no tree: the answer is then [`Digest::GENESIS`], which no
/// batch has.
pub(super) fn root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::GENESIS,
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            Digest::of_node(root(left), root(right))
        }
    }
}

/// The siblings from leaf `index` up to the root, the lowest first. Empty if there is no such leaf.
pub(super) fn path(leaves: &[Digest], index: usize) -> Vec<Digest> {
    let mut path = Vec::new();
    let (mut leaves, mut index) = (leaves, index);
    while leaves.len() > 1 && index < leaves.len() {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if index < left.len() {
            path.push(root(right));
            leaves = left;
        } else {
            path.push(root(left));
            index -= left.len();
            leaves = right;
        }
    }
    path.reverse();
    path
}

/// How many hashes the path of leaf `index` among `count` has.
pub(super) fn path_len(index: usize, count: usize) -> usize {
    let (mut index, mut count, mut len) = (index, count, 0);
    while count > 1 {
        let left = split(count);
        if index < left {
            count = left;
        } else {
            index -= left;
            count -= left;
        }
        len += 1;
    }
    len
}

/// The root that `path` leads to from `leaf`; `None` if the path has not the length that the place asks for.
pub(super) fn climb(leaf: Digest, index: usize, count: usize, path: &[Digest]) -> Option<Digest> {
    if count <= 1 {
        return (path.is_empty() && index == 0).then_some(leaf);
    }
    let (sibling, below) = path.split_last()?;
    let left = split(count);
    Some(if index < left {
        Digest::of_node(climb(leaf, index, left, below)?, *sibling)
    } else {
        Digest::of_node(*sibling, climb(leaf, index - left, count - left, below)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u8) -> Vec<Digest> {
        (0..count).map(|byte| Digest([byte; 32])).collect()
    }

    #[test]
    fn every_leaf_of_every_size_climbs_to_the_root_and_to_no_other_place() {
        for count in 1..=40 {
            let leaves = leaves(count);
            let root = root(&leaves);
            for (index, leaf) in leaves.iter().enumerate() {
                let path = path(&leaves, index);
                assert_eq!(path.len(), path_len(index, leaves.len()));
                assert_eq!(climb(*leaf, index, leaves.len(), &path), Some(root));
                for other in (0..leaves.len()).filter(|other| *other != index) {
                    assert_ne!(
                        climb(*leaf, other, leaves.len(), &path),
                        Some(root),
                        "{index} taken for {other}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_path_that_is_too_short_or_too_long_leads_nowhere() {
        let leaves = leaves(7);
        let mut path = path(&leaves, 2);
        path.push(Digest::GENESIS);
        assert_eq!(climb(leaves[2], 2, 7, &path), None);
        path.truncate(2);
        assert_eq!(climb(leaves[2], 2, 7, &path), None);
    }

    #[test]
    fn an_inner_node_is_not_taken_for_a_leaf() {
        let leaves = leaves(4);
        let pair = [root(&leaves[..2]), root(&leaves[2..])];
        // The same root, but the count is signed: with four leaves the path must have two hashes.
        assert_eq!(root(&pair), root(&leaves));
        assert_eq!(climb(pair[0], 0, 4, &path(&pair, 0)), None);
    }
}
