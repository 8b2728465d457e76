//! The references to blobs.

use x0_kv::Bytes;
use x0_kv::blob::{BLOB_LEN_MAX, BlobId, BlobRef, BlobRefError, Provenance};

use crate::random::Random;

fn longest() -> BlobRef {
    let mut reference = BlobRef::new(BlobId::of(b"blob"), BLOB_LEN_MAX);
    reference.media_type = "m".repeat(BlobRef::MEDIA_TYPE_LEN_MAX);
    reference.provenance = Provenance {
        maker: "w".repeat(Provenance::MAKER_LEN_MAX),
        parents: vec![BlobId::of(b"parent"); Provenance::PARENTS_MAX],
        note: "n".repeat(Provenance::NOTE_LEN_MAX),
    };
    reference
}

fn short() -> BlobRef {
    let mut reference = BlobRef::new(BlobId::of(b"blob"), 300);
    reference.media_type = "text/plain".into();
    reference.provenance =
        Provenance { maker: "é".into(), parents: vec![BlobId::of(b"")], note: "why".into() };
    reference
}

#[test]
fn a_reference_is_small_and_comes_back_as_it_was() {
    for reference in [longest(), short(), BlobRef::new(BlobId::of(b""), 0)] {
        let bytes = reference.encode().unwrap();
        assert!(bytes.len() <= BlobRef::LEN_MAX);
        assert_eq!(BlobRef::decode(&bytes).unwrap(), reference);
    }
    assert_eq!(BlobRef::new(BlobId::of(b"x"), 1).encode().unwrap().len(), 38);
}

#[test]
fn long_messages_are_refused_on_either_side() {
    let changes: [fn(&mut BlobRef); 5] = [
        |reference| reference.len += 1,
        |reference| reference.media_type.push('x'),
        |reference| reference.provenance.maker.push('x'),
        |reference| reference.provenance.parents.push(BlobId::of(b"")),
        |reference| reference.provenance.note.push('x'),
    ];
    for change in changes {
        let mut reference = longest();
        change(&mut reference);
        assert!(matches!(reference.encode(), Err(BlobRefError::TooLong { .. })));
    }
}

/// Whatever is read is written in the same way.
#[test]
fn damaged_references_are_refused_or_say_something_else() {
    let check = |bytes: Vec<u8>| {
        let bytes = Bytes::from(bytes);
        if let Ok(reference) = BlobRef::decode(&bytes) {
            assert_eq!(reference.encode().unwrap(), bytes);
        }
    };
    for reference in [longest(), short()] {
        let bytes = reference.encode().unwrap();
        for at in 0..bytes.len() {
            assert!(BlobRef::decode(&bytes.slice(..at)).is_err());
            for bit in 0..8 {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 1 << bit;
                check(damaged);
            }
        }
        let mut long = bytes.to_vec();
        long.push(0);
        assert!(BlobRef::decode(&long.into()).is_err());
    }
    let rounds =
        std::env::var("X0_KV_BLOB_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000_u64);
    let mut random = Random(5);
    let good = short().encode().unwrap();
    for round in 0..rounds {
        let len = random.below(120) as usize;
        let mut bytes = if round % 2 == 0 { random.bytes(len) } else { good.to_vec() };
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        check(bytes);
    }
}
