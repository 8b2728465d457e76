//! A signed batch in the map: its checkpoint and the digests of the live events.

use alloc::vec::Vec;

use super::super::checkpoint::Checkpoint;
use super::super::digest::Digest;
use super::super::error::ChainDecodeError;
use super::super::merkle;
use super::super::statement::Statement;
use crate::codec::ByteReader;

/// The digest of one event, as far as a batch holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaf {
    /// The event wrote a value with this digest.
    Live(Digest),
    /// No live value when the batch was signed: a removal, an overwritten value, or chain data.
    Void,
    /// Overwritten since, or outside the batch.
    Unknown,
}

/// A batch from which the digests of events that are gone have been pruned: of each largest part of the
/// Merkle tree without a live event one hash is left, and none where all of it was void from the start,
/// because any replica can compute that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cover {
    checkpoint: Checkpoint,
    /// By place, ascending.
    live: Vec<(u16, Digest)>,
    /// Whether each place is void; false wherever a hash stands for it.
    void: Vec<bool>,
    /// The hashes of what is pruned, in order.
    pruned: Vec<Digest>,
}

/// How many of the pruned hashes a walk over the tree has used.
#[derive(Default)]
struct Cursor {
    pruned: usize,
}

impl Cover {
    /// The digests of all events of a batch that is being made: of each place the live event's, or none.
    pub(super) fn leaves(
        statement_begin: u64,
        writer: crate::ReplicaId,
        live: &[Option<Digest>],
    ) -> Vec<Digest> {
        let seqs = statement_begin.wrapping_add(1)..;
        live.iter().zip(seqs).map(|(live, seq)| live.unwrap_or_else(|| void(writer, seq))).collect()
    }

    /// A batch that has just been signed; its root was made of `live`.
    pub(super) fn new(checkpoint: Checkpoint, live: &[Option<Digest>]) -> Self {
        let places = (0_u16..).zip(live);
        Self {
            checkpoint,
            live: places.filter_map(|(place, live)| live.map(|digest| (place, digest))).collect(),
            void: live.iter().map(Option::is_none).collect(),
            pruned: Vec::new(),
        }
    }

    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub(super) fn statement(&self) -> &Statement {
        self.checkpoint.statement()
    }

    /// How many events are provable by it.
    pub(super) fn live_len(&self) -> usize {
        self.live.len()
    }

    /// The digest of the event `seq`.
    pub(super) fn leaf(&self, seq: u64) -> Leaf {
        let Some(index) = self.statement().index_of(seq) else { return Leaf::Unknown };
        let found = self.live.binary_search_by_key(&index, |(place, _)| usize::from(*place));
        match found.ok().and_then(|at| self.live.get(at)) {
            Some((_, digest)) => Leaf::Live(*digest),
            None if self.void.get(index) == Some(&true) => Leaf::Void,
            None => Leaf::Unknown,
        }
    }

    /// Without the digests of events that `keep` does not want.
    pub(super) fn retain(&self, keep: impl Fn(u64) -> bool) -> Self {
        let begin = self.statement().previous().seq;
        let kept: Vec<_> =
            self.live.iter().filter(|(place, _)| keep(begin + u64::from(*place) + 1)).copied().collect();
        let mut cover = Self {
            checkpoint: self.checkpoint.clone(),
            live: kept,
            void: self.void.clone(),
            pruned: Vec::new(),
        };
        self.prune(0, self.void.len(), &mut Cursor::default(), &mut cover);
        cover
    }

    /// Fills in the hashes of the parts of `cover` without live events.
    fn prune(&self, low: usize, high: usize, cursor: &mut Cursor, cover: &mut Self) {
        if !cover.has_live(low, high) {
            let hash = self.hash(low, high, cursor);
            if !cover.is_void(low, high) {
                cover.pruned.push(hash);
                if let Some(void) = cover.void.get_mut(low..high) {
                    void.fill(false);
                }
            }
        } else if high - low > 1 {
            let middle = low + merkle::split(high - low);
            self.prune(low, middle, cursor, cover);
            self.prune(middle, high, cursor, cover);
        }
    }

    /// The hash of a part of the tree; [`Digest::GENESIS`] where a hash is missing, which never leads to the
    /// root.
    fn hash(&self, low: usize, high: usize, cursor: &mut Cursor) -> Digest {
        if !self.has_live(low, high) {
            if !self.is_void(low, high) {
                cursor.pruned += 1;
                return self.pruned.get(cursor.pruned - 1).copied().unwrap_or(Digest::GENESIS);
            }
        } else if high - low == 1 {
            let live = self.live.binary_search_by_key(&low, |(place, _)| usize::from(*place));
            return live.ok().and_then(|at| self.live.get(at)).map_or(Digest::GENESIS, |(_, digest)| *digest);
        }
        if high - low == 1 {
            return void(self.statement().writer(), self.statement().previous().seq + low as u64 + 1);
        }
        let middle = low + merkle::split(high - low);
        Digest::of_node(self.hash(low, middle, cursor), self.hash(middle, high, cursor))
    }

    fn has_live(&self, low: usize, high: usize) -> bool {
        let first = self.live.partition_point(|(place, _)| usize::from(*place) < low);
        self.live.get(first).is_some_and(|(place, _)| usize::from(*place) < high)
    }

    fn is_void(&self, low: usize, high: usize) -> bool {
        self.void.get(low..high).is_some_and(|void| void.iter().all(|void| *void))
    }

    /// The bytes: the checkpoint's, two bits for each event, 32 bytes for each live one and for each pruned
    /// part.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.checkpoint.encode();
        let mut live = alloc::vec![false; self.void.len()];
        for (place, _) in &self.live {
            if let Some(live) = live.get_mut(usize::from(*place)) {
                *live = true;
            }
        }
        put_bits(&live, &mut bytes);
        put_bits(&self.void, &mut bytes);
        let digests = self.live.iter().map(|(_, digest)| digest).chain(&self.pruned);
        bytes.extend(digests.flat_map(|digest| digest.0));
        bytes
    }

    /// How long the bytes are.
    pub(super) fn encoded_len(&self) -> usize {
        let digests = (self.live.len() + self.pruned.len()) * Digest::LEN;
        2 + Statement::LEN + self.checkpoint.signature().len() + 2 * self.void.len().div_ceil(8) + digests
    }

    /// Reads what [`encode`](Self::encode) wrote. Checked against the root; the signature is not checked.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ChainDecodeError> {
        const WHAT: &str = "the digests of a batch";
        let mut input = ByteReader::new(bytes);
        let checkpoint = Checkpoint::read(&mut input)?;
        let count = checkpoint.statement().count();
        let live = take_bits(&mut input, count)?;
        let void = take_bits(&mut input, count)?;
        if !input.len().is_multiple_of(Digest::LEN) {
            return Err(crate::codec::DecodeError::Trailing { len: input.len() % Digest::LEN }.into());
        }
        let (digests, _) = input.take(input.len(), WHAT)?.as_chunks::<{ Digest::LEN }>();
        if live.iter().zip(&void).any(|(live, void)| *live && *void) {
            return Err(crate::codec::DecodeError::NotCanonical { what: WHAT }.into());
        }
        let places = (0_u16..).zip(&live).filter(|(_, live)| **live).map(|(place, _)| place);
        let live: Vec<_> = places.zip(digests.iter().copied().map(Digest)).collect();
        let pruned = digests.get(live.len()..).unwrap_or_default().iter().copied().map(Digest).collect();
        let cover = Self { checkpoint, live, void, pruned };
        let mut cursor = Cursor::default();
        let root = cover.hash(0, usize::from(count), &mut cursor);
        // Too few digests lead to another root; too many are left over; a void place inside a pruned part
        // cannot be verified.
        let is_whole = cursor.pruned == cover.pruned.len() && cover == cover.retain(|_| true);
        if root != cover.statement().root() || !is_whole {
            return Err(ChainDecodeError::Root);
        }
        Ok(cover)
    }
}

/// The digest of a void event: that of no bytes. The event of a value has at least one byte.
fn void(writer: crate::ReplicaId, seq: u64) -> Digest {
    Digest::of_event(writer, seq, &[])
}

fn put_bits(bits: &[bool], out: &mut Vec<u8>) {
    out.extend(bits.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit))));
}

fn take_bits(input: &mut ByteReader<'_>, count: u16) -> Result<Vec<bool>, ChainDecodeError> {
    const WHAT: &str = "the places of a batch";
    let count = usize::from(count);
    let bytes = input.take(count.div_ceil(8), WHAT)?;
    let mut bits: Vec<bool> =
        bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).collect();
    if bits.get(count..).is_some_and(|rest| rest.contains(&true)) {
        return Err(crate::codec::DecodeError::Range { what: WHAT }.into());
    }
    bits.truncate(count);
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReplicaId;
    use crate::chain::Head;

    const WRITER: ReplicaId = ReplicaId::new(3);
    const BEGIN: Head = Head { seq: 40, digest: Digest([1; 32]) };

    fn digest(place: usize) -> Digest {
        Digest::of_event(WRITER, 41 + place as u64, b"value")
    }

    fn cover(live: &[Option<Digest>]) -> Cover {
        let root = merkle::root(&Cover::leaves(BEGIN.seq, WRITER, live));
        let count = u16::try_from(live.len()).unwrap();
        let statement = Statement::new(WRITER, BEGIN, count, root).unwrap();
        Cover::new(Checkpoint::new(statement, alloc::vec![0; 64]).unwrap(), live)
    }

    #[test]
    fn any_part_of_any_batch_can_be_pruned_and_still_leads_to_the_root() {
        let mut state = 7_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for count in (1..40).chain([64, 100, 257]) {
            for _ in 0..20 {
                let (share, keep) = (random() % 11, random() % 11);
                let live: Vec<_> =
                    (0..count).map(|place| (random() % 10 < share).then(|| digest(place))).collect();
                let mut cover = cover(&live);
                let mut alive: Vec<bool> = live.iter().map(Option::is_some).collect();
                for _ in 0..3 {
                    assert_eq!(Cover::decode(&cover.encode()).as_ref(), Ok(&cover));
                    assert_eq!(cover.encode().len(), cover.encoded_len());
                    for (place, (seq, alive)) in (41_u64..).zip(&alive).enumerate() {
                        match cover.leaf(seq) {
                            Leaf::Live(found) => assert!(*alive && found == digest(place)),
                            Leaf::Void => assert!(live[place].is_none()),
                            Leaf::Unknown => assert!(!alive),
                        }
                    }
                    for alive in &mut alive {
                        *alive &= random() % 10 < keep;
                    }
                    cover = cover.retain(|seq| alive[usize::try_from(seq - 41).unwrap()]);
                }
                assert_eq!((cover.leaf(40), cover.leaf(41 + count as u64)), (Leaf::Unknown, Leaf::Unknown));
            }
        }
    }

    #[test]
    fn a_pruned_batch_is_short() {
        let all: Vec<_> = (0..64).map(|place| Some(digest(place))).collect();
        let whole = cover(&all);
        assert_eq!(whole.encoded_len(), 152 + 16 + 64 * 32);
        let none = whole.retain(|_| false);
        assert_eq!((none.encoded_len(), none.live_len()), (152 + 16 + 32, 0));
        assert_eq!(whole.retain(|seq| seq == 50).encoded_len(), 152 + 16 + 32 + 6 * 32);
        assert_eq!(cover(&[None; 64]).encoded_len(), 152 + 16);
    }

    #[test]
    fn a_batch_with_any_changed_byte_is_refused() {
        let live: Vec<_> = (0..20).map(|place| (place % 3 > 0).then(|| digest(place))).collect();
        let bytes = cover(&live).retain(|seq| seq < 50).encode();
        assert!(Cover::decode(&bytes).is_ok());
        // `decode` does not verify the signature.
        for at in (0..88).chain(152..bytes.len()) {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                if let Ok(cover) = Cover::decode(&bytes) {
                    // Before the root there are fields that the signature alone covers.
                    assert!(at < 55, "byte {at} bit {bit}: {cover:?}");
                }
            }
        }
        for len in 0..bytes.len() {
            assert!(Cover::decode(&bytes[..len]).is_err());
        }
        assert!(Cover::decode(&[&bytes[..], &[0; 32]].concat()).is_err());
    }
}
