//! The folder against a model: what was added is there, what was damaged is found, what does not fit is
//! refused.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use x0_consensus::sim::{Fault, SimDirectory, Unsynced};
use x0_kv::blob::{
    BlobId, BlobOpenError, BlobReadError, BlobStore, BlobStoreOptions, BlobWriteError, CHUNK_LEN, ChunkSet,
    Piece,
};

use crate::random::{Random, seeds};

pub(crate) fn open(disk: &SimDirectory) -> BlobStore {
    open_with(disk, BlobStoreOptions::default())
}

fn open_with(disk: &SimDirectory, options: BlobStoreOptions) -> BlobStore {
    BlobStore::open_on(Arc::new(disk.clone()), options).unwrap()
}

/// All chunks of some bytes, with what proves them.
pub(crate) fn pieces(bytes: &[u8]) -> (BlobId, [u8; 32], Vec<Piece>) {
    let store = open(&SimDirectory::new());
    let id = store.add(bytes).unwrap().id;
    let holding = store.holding(&id).unwrap();
    let pieces = (0..holding.chunks.count()).map(|index| store.read_piece(&id, index).unwrap()).collect();
    (id, holding.root, pieces)
}

/// The expected content of the folder.
#[derive(Default)]
struct Model {
    whole: BTreeMap<BlobId, Vec<u8>>,
    partial: BTreeMap<BlobId, (Vec<u8>, ChunkSet)>,
}

impl Model {
    fn check(&self, store: &BlobStore, seed: u64) {
        let list = store.list();
        assert_eq!(list.len(), self.whole.len() + self.partial.len(), "seed {seed}");
        for (id, bytes) in &self.whole {
            assert!(store.is_whole(id));
            assert_eq!(store.read(id).unwrap(), *bytes, "seed {seed}");
        }
        for (id, (bytes, chunks)) in &self.partial {
            assert_eq!(store.holding(id).unwrap().chunks, *chunks, "seed {seed}");
            for (index, chunk) in (0..).zip(bytes.chunks(CHUNK_LEN)) {
                match store.read_piece(id, index) {
                    Ok(piece) => assert!(chunks.contains(index) && piece.bytes == chunk),
                    Err(error) => assert!(
                        !chunks.contains(index) && matches!(error, BlobReadError::Missing { .. }),
                        "seed {seed}: {error}"
                    ),
                }
            }
        }
    }
}

#[test]
fn the_folder_does_what_a_model_does_whenever_it_is_opened_again() {
    for seed in seeds(40) {
        let mut random = Random(seed);
        let disk = SimDirectory::new();
        let mut store = open(&disk);
        let mut model = Model::default();
        let blobs: Vec<Vec<u8>> = (0..6)
            .map(|_| {
                let len = random.below(3) as usize * CHUNK_LEN + random.below(3) as usize * 77;
                random.bytes(len)
            })
            .collect();
        for _ in 0..40 {
            let bytes = &blobs[random.below(6) as usize];
            let (id, root, pieces) = pieces(bytes);
            match random.below(6) {
                0 => {
                    assert_eq!(store.add(&bytes[..]).unwrap().id, id);
                    model.partial.remove(&id);
                    model.whole.insert(id, bytes.clone());
                }
                1 => {
                    let existed = model.whole.remove(&id).is_some() | model.partial.remove(&id).is_some();
                    assert_eq!(store.remove(&id).unwrap(), existed);
                }
                2..4 => {
                    let count = pieces.len() as u32;
                    let chunks = store.begin(&id, bytes.len() as u64, &root).unwrap();
                    if model.whole.contains_key(&id) || count == 0 {
                        assert!(chunks.is_whole());
                        model.whole.insert(id, bytes.clone());
                        continue;
                    }
                    let fresh = (bytes.clone(), ChunkSet::none(count));
                    let (_, held) = model.partial.entry(id).or_insert(fresh);
                    assert_eq!(chunks, *held);
                    let index = random.below(count.into()) as u32;
                    store.keep(&id, index, &pieces[index as usize]).unwrap();
                    // Not before it is committed.
                    assert_eq!(store.holding(&id).unwrap().chunks, *held);
                    held.insert(index);
                    assert_eq!(store.commit(&id).unwrap(), held.is_whole());
                    if held.is_whole() {
                        model.partial.remove(&id);
                        model.whole.insert(id, bytes.clone());
                    }
                }
                4 => {
                    drop(store);
                    store = open(&disk);
                }
                _ => model.check(&store, seed),
            }
        }
        drop(store);
        model.check(&open(&disk), seed);
    }
}

#[test]
fn readers_read_any_part_in_any_way() {
    let store = open(&SimDirectory::new());
    let mut random = Random(1);
    let bytes = random.bytes(2 * CHUNK_LEN + 500);
    let id = store.add(&bytes[..]).unwrap().id;
    let mut reader = store.reader(&id).unwrap();
    assert_eq!(reader.len_bytes(), bytes.len() as u64);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert!(all == bytes);
    for _ in 0..200 {
        let at = random.below(bytes.len() as u64 + 10) as usize;
        let len = random.below(300_000) as usize;
        let expected = &bytes[at.min(bytes.len())..(at + len).min(bytes.len())];
        let mut buffer = vec![0; len];
        let read = store.read_at(&id, at as u64, &mut buffer).unwrap();
        assert!(buffer[..read] == *expected);
        reader.seek(SeekFrom::Start(at as u64)).unwrap();
        let mut some = Vec::new();
        (&mut reader).take(len as u64).read_to_end(&mut some).unwrap();
        assert!(some == expected);
    }
    assert_eq!(reader.seek(SeekFrom::End(-1)).unwrap(), bytes.len() as u64 - 1);
    assert!(reader.seek(SeekFrom::Current(-(1 << 40))).is_err());
    let other = BlobId::of(b"other");
    assert!(matches!(store.read(&other), Err(BlobReadError::NotHeld { .. })));
    assert!(!store.remove(&other).unwrap());
}

#[test]
fn nothing_wrong_is_kept() {
    let bytes = Random(2).bytes(3 * CHUNK_LEN);
    let (id, root, pieces) = pieces(&bytes);
    let len = bytes.len() as u64;
    let store = open(&SimDirectory::new());
    assert!(matches!(store.begin(&id, len + 1, &root), Err(BlobWriteError::Wrong { .. })));
    assert!(matches!(store.begin(&id, len, &[0; 32]), Err(BlobWriteError::Wrong { .. })));
    assert!(matches!(store.keep(&id, 0, &pieces[0]), Err(BlobWriteError::NotHeld { .. })));
    assert!(store.begin(&id, len, &root).unwrap().held() == 0);
    for (index, piece) in [(1, 0), (0, 2), (3, 0), (u32::MAX, 0)] {
        assert!(matches!(store.keep(&id, index, &pieces[piece]), Err(BlobWriteError::Wrong { .. })));
    }
    let mut damaged = pieces[0].bytes.to_vec();
    damaged[99] ^= 1;
    let wrong = Piece::new(pieces[0].path.clone(), damaged.into());
    assert!(matches!(store.keep(&id, 0, &wrong), Err(BlobWriteError::Wrong { .. })));
    assert!(!store.commit(&id).unwrap());
    assert_eq!(store.holding(&id).unwrap().chunks.held(), 0);
}

#[test]
fn a_full_store_refuses_and_loses_nothing() {
    let disk = SimDirectory::new();
    let mut options = BlobStoreOptions::default();
    options.bytes_max = 3 * CHUNK_LEN as u64;
    options.partial_max = 2;
    let store = open_with(&disk, options.clone());
    let mut random = Random(3);
    let first = random.bytes(CHUNK_LEN);
    let held = store.add(&first[..]).unwrap().id;
    let used = store.used_bytes();
    let large = random.bytes(2 * CHUNK_LEN);
    let (id, root, _) = pieces(&large);
    for _ in 0..3 {
        let error = store.add(&large[..]).unwrap_err();
        assert!(matches!(error, BlobWriteError::Full { .. }), "{error}");
        assert!(matches!(store.begin(&id, large.len() as u64, &root), Err(BlobWriteError::Full { .. })));
        // A source that never ends is no other matter.
        assert!(matches!(store.add(std::io::repeat(7)), Err(BlobWriteError::Full { .. })));
    }
    assert_eq!((store.used_bytes(), store.list().len()), (used, 1), "what was refused takes no room");
    assert_eq!(store.read(&held).unwrap(), first);
    // Adding what is there already needs room for a moment, and takes none.
    store.add(&first[..]).unwrap();
    assert_eq!(store.used_bytes(), used);
    for number in 0..3_u8 {
        let (id, root, _) = pieces(&[number]);
        let begun = store.begin(&id, 1, &root);
        assert_eq!(begun.is_ok(), number < 2);
        assert!(number < 2 || matches!(begun, Err(BlobWriteError::TooManyPartial { max: 2 })));
    }
    store.remove(&held).unwrap();
    store.add(&large[..]).unwrap();
    let used = store.used_bytes();
    drop(store);
    assert_eq!(open_with(&disk, options).used_bytes(), used, "the same after opening again");
}

struct Fails(usize);

impl Read for Fails {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                Ok(buffer.len())
            }
            None => Err(std::io::Error::other("the source is gone")),
        }
    }
}

#[test]
fn an_add_that_fails_leaves_nothing() {
    let disk = SimDirectory::new();
    let store = open(&disk);
    assert!(matches!(store.add(Fails(3)), Err(BlobWriteError::Source { .. })));
    let bytes = Random(4).bytes(CHUNK_LEN + 5);
    // Each operation of an add, failing.
    for number in 0.. {
        let fault = if number % 2 == 0 { Fault::Error } else { Fault::Half };
        disk.plant(disk.operations() + number / 2, fault(std::io::ErrorKind::StorageFull));
        match store.add(&bytes[..]) {
            Ok(added) => {
                assert!(number > 10);
                assert_eq!(store.read(&added.id).unwrap(), bytes);
                break;
            }
            Err(error) => {
                assert!(matches!(error, BlobWriteError::Io { .. }), "{error}");
                let id = BlobId::of(&bytes);
                // Only the last operation leaves open whether it is there.
                if store.is_whole(&id) {
                    assert_eq!(store.read(&id).unwrap(), bytes);
                    store.remove(&id).unwrap();
                }
                assert_eq!((store.used_bytes(), store.list().len()), (0, 0));
            }
        }
    }
    assert!(disk.contents("1.tmp").is_none());
}

#[test]
fn damage_is_found_counted_as_missing_and_mended() {
    let bytes = Random(5).bytes(4 * CHUNK_LEN + 100);
    let (id, root, pieces) = pieces(&bytes);
    let name = format!("{id}.blob");
    let count = pieces.len() as u32;
    // A byte of each chunk, and of each node of the tree.
    let places = (0..count).map(|index| 4096 + index as usize * CHUNK_LEN + 50).chain({
        let nodes = 4096 + bytes.len();
        (0..2 * count as usize - 1).map(move |node| nodes + node * 32 + 5)
    });
    for place in places {
        let disk = SimDirectory::new();
        let store = open(&disk);
        store.add(&bytes[..]).unwrap();
        let mut file = disk.contents(&name).unwrap();
        file[place] ^= 0x10;
        disk.replace_contents(&name, file);
        let damaged = store.verify(&id).unwrap();
        assert_eq!(store.verify(&id).unwrap(), Vec::<u32>::new(), "they count as missing now");
        assert_eq!(store.holding(&id).unwrap().chunks.held(), count - damaged.len() as u32);
        if place < 4096 + bytes.len() {
            assert_eq!(damaged, [((place - 4096) / CHUNK_LEN) as u32]);
            assert!(matches!(store.read(&id), Err(BlobReadError::Missing { .. })));
        }
        // The damage is known after opening again, and repaired as a blob that is fetched.
        disk.crash(Unsynced::Lost);
        drop(store);
        let store = open(&disk);
        assert_eq!(store.is_whole(&id), damaged.is_empty());
        assert_eq!(store.begin(&id, bytes.len() as u64, &root).unwrap().held(), count - damaged.len() as u32);
        for index in damaged {
            store.keep(&id, index, &pieces[index as usize]).unwrap();
            store.commit(&id).unwrap();
        }
        assert!(store.is_whole(&id));
        assert_eq!(store.read(&id).unwrap(), bytes);
    }
}

#[test]
fn a_folder_is_used_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path(), BlobStoreOptions::default()).unwrap();
    let second = BlobStore::open(folder.path(), BlobStoreOptions::default());
    assert!(matches!(second, Err(BlobOpenError::InUse { .. })));
    let id = store.add(&b"on a real disk"[..]).unwrap().id;
    // Files of other programs are left alone.
    std::fs::write(folder.path().join("README"), "hands off").unwrap();
    std::fs::write(folder.path().join("7.tmp"), "left over").unwrap();
    drop(store);
    let store = BlobStore::open(folder.path(), BlobStoreOptions::default()).unwrap();
    assert_eq!(store.read(&id).unwrap(), b"on a real disk");
    assert!(folder.path().join("README").exists());
    assert!(!folder.path().join("7.tmp").exists());
}

#[test]
fn a_file_that_somebody_took_away_is_not_held_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path(), BlobStoreOptions::default()).unwrap();
    let bytes = Random(8).bytes(CHUNK_LEN + 7);
    let (id, root, pieces) = pieces(&bytes);
    let path = folder.path().join(format!("{id}.blob"));
    store.add(&bytes[..]).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(store.read(&id), Err(BlobReadError::NotHeld { .. })));
    assert_eq!((store.list(), store.used_bytes()), (vec![], 0));
    store.begin(&id, bytes.len() as u64, &root).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(store.keep(&id, 0, &pieces[0]), Err(BlobWriteError::NotHeld { .. })));
    store.add(&bytes[..]).unwrap();
    assert_eq!(store.read(&id).unwrap(), bytes);
    std::fs::remove_file(&path).unwrap();
    assert!(store.remove(&id).unwrap());
    assert!(store.list().is_empty());
}

#[test]
fn many_threads_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path(), BlobStoreOptions::default()).unwrap();
    let mut random = Random(6);
    let blobs: Vec<Vec<u8>> = [10, CHUNK_LEN, CHUNK_LEN + 1, 3].map(|len| random.bytes(len)).into();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (store, blobs) = (&store, &blobs);
            scope.spawn(move || {
                let mut random = Random(seed);
                for _ in 0..60 {
                    let bytes = &blobs[random.below(4) as usize];
                    let (id, root, pieces) = pieces(bytes);
                    match random.below(4) {
                        0 => assert_eq!(store.add(&bytes[..]).unwrap().id, id),
                        1 => drop(store.remove(&id).unwrap()),
                        2 => {
                            store.begin(&id, bytes.len() as u64, &root).unwrap();
                            for (index, piece) in (0..).zip(&pieces) {
                                // Another thread may remove it meanwhile.
                                let kept = store.keep(&id, index, piece).and_then(|()| store.commit(&id));
                                assert!(
                                    matches!(kept, Ok(_) | Err(BlobWriteError::NotHeld { .. })),
                                    "{kept:?}"
                                );
                            }
                        }
                        _ => match store.read(&id) {
                            Ok(read) => assert!(read == *bytes),
                            Err(BlobReadError::NotHeld { .. } | BlobReadError::Missing { .. }) => {}
                            Err(error) => panic!("{error}"),
                        },
                    }
                }
            });
        }
    });
    let (used, list) = (store.used_bytes(), store.list());
    for blob in &list {
        assert_eq!(store.verify(&blob.id).unwrap(), Vec::<u32>::new());
    }
    drop(store);
    let store = BlobStore::open(folder.path(), BlobStoreOptions::default()).unwrap();
    assert_eq!((store.used_bytes(), store.list()), (used, list));
}
