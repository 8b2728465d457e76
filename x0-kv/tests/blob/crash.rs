//! Power lost at every operation of the disk, and files damaged in every way: the folder opens, and nothing
//! wrong is read.

use std::sync::Arc;

use x0_consensus::sim::{Fault, SimDirectory, Unsynced};
use x0_kv::blob::{BlobId, BlobReadError, BlobStore, BlobStoreOptions, BlobWriteError, CHUNK_LEN, Piece};

use crate::folder::{open, pieces};
use crate::random::Random;

/// An operation on the folder, and the condition that holds from then on.
struct Script {
    added: Vec<u8>,
    fetched: Vec<u8>,
    id: BlobId,
    root: [u8; 32],
    pieces: Vec<Piece>,
    removed: Vec<u8>,
}

/// The steps that were reported as done before the power went.
#[derive(Default, Clone)]
struct Reported {
    added: bool,
    begun: bool,
    /// Chunks whose commit came back, and those before the last commit.
    committed: Vec<u32>,
    durable: usize,
    whole: bool,
    removed: bool,
}

impl Script {
    fn new() -> Script {
        let mut random = Random(42);
        let fetched = random.bytes(2 * CHUNK_LEN + 9);
        let (id, root, pieces) = pieces(&fetched);
        let (added, removed) = (random.bytes(CHUNK_LEN + 1), random.bytes(33));
        Script { added, fetched, id, root, pieces, removed }
    }

    fn run(&self, disk: &SimDirectory, reported: &mut Reported) -> Result<(), BlobWriteError> {
        let Ok(store) = BlobStore::open_on(Arc::new(disk.clone()), BlobStoreOptions::default()) else {
            return Err(BlobWriteError::Closed);
        };
        store.add(&self.removed[..])?;
        store.add(&self.added[..])?;
        reported.added = true;
        store.begin(&self.id, self.fetched.len() as u64, &self.root)?;
        reported.begun = true;
        for index in [2, 0, 1] {
            store.keep(&self.id, index, &self.pieces[index as usize])?;
            let is_whole = store.commit(&self.id)?;
            reported.durable = reported.committed.len();
            reported.committed.push(index);
            reported.whole = is_whole;
        }
        store.remove(&BlobId::of(&self.removed))?;
        reported.removed = true;
        Ok(())
    }

    fn check(&self, disk: &SimDirectory, reported: &Reported, what: &str) {
        let store = open(disk);
        let added = BlobId::of(&self.added);
        if reported.added {
            assert_eq!(store.read(&added).unwrap(), self.added, "{what}");
        }
        if reported.begun {
            let chunks = store.holding(&self.id).expect(what).chunks;
            for index in &reported.committed[..reported.durable] {
                assert!(chunks.contains(*index), "{what}: chunk {index} was durable");
            }
        }
        if reported.whole {
            assert_eq!(store.read(&self.id).unwrap(), self.fetched, "{what}");
        }
        assert!(!reported.removed || !store.is_whole(&BlobId::of(&self.removed)), "{what}");
        // Whatever is claimed to be held can be read, and is right.
        for blob in store.list() {
            assert_eq!(
                store.verify(&blob.id).unwrap(),
                Vec::<u32>::new(),
                "{what}: a claim was made before it was true"
            );
        }
        assert!(!disk_names(disk).iter().any(|name| name.ends_with(".tmp")), "{what}");
        // And everything goes on from there.
        store.add(&self.added[..]).unwrap();
        let chunks = store.begin(&self.id, self.fetched.len() as u64, &self.root).unwrap();
        let missing: Vec<u32> = chunks.missing().collect();
        for index in missing {
            store.keep(&self.id, index, &self.pieces[index as usize]).unwrap();
            store.commit(&self.id).unwrap();
        }
        assert_eq!(store.read(&self.id).unwrap(), self.fetched, "{what}");
    }
}

fn disk_names(disk: &SimDirectory) -> Vec<String> {
    x0_consensus::Directory::list(disk).unwrap()
}

#[test]
fn power_may_go_at_any_operation() {
    let script = Script::new();
    let disk = SimDirectory::new();
    let mut reported = Reported::default();
    script.run(&disk, &mut reported).unwrap();
    assert!(reported.whole && reported.removed);
    let operations = disk.operations();
    let mut runs = 0;
    for operation in 0..operations {
        let fates = [
            Unsynced::Lost,
            Unsynced::Kept,
            Unsynced::Sectors(operation),
            Unsynced::Sectors(operation ^ 0xABCD),
            Unsynced::Cut(operation),
            Unsynced::Cut(operation ^ 0xABCD),
        ];
        for fate in fates {
            let what = format!("power lost at operation {operation} of {operations}, {fate:?}");
            let disk = SimDirectory::new();
            disk.plant(operation, Fault::PowerLoss);
            let mut reported = Reported::default();
            assert!(script.run(&disk, &mut reported).is_err(), "{what}");
            disk.crash(fate);
            script.check(&disk, &reported, &what);
            runs += 1;
        }
    }
    println!("{runs} runs over {operations} operations");
}

#[test]
fn a_disk_that_refuses_now_and_then_loses_nothing() {
    let script = Script::new();
    let disk = SimDirectory::new();
    script.run(&disk, &mut Reported::default()).unwrap();
    for operation in 0..disk.operations() {
        for fault in [Fault::Error(std::io::ErrorKind::StorageFull), Fault::Half(std::io::ErrorKind::Other)] {
            let disk = SimDirectory::new();
            disk.plant(operation, fault);
            let mut reported = Reported::default();
            // A folder that cannot be synchronised is no reason to stop reading it.
            let _ = script.run(&disk, &mut reported);
            disk.crash(Unsynced::Lost);
            script.check(&disk, &reported, &format!("{fault:?} at operation {operation}"));
        }
    }
}

/// Whatever becomes of a file, the folder opens, and what is read is right.
#[test]
fn damaged_files_do_not_keep_the_folder_from_opening() {
    let script = Script::new();
    let disk = SimDirectory::new();
    script.run(&disk, &mut Reported::default()).unwrap();
    let name = format!("{}.blob", script.id);
    let whole = disk.contents(&name).unwrap();
    let (bytes_at, nodes_at) = (4096, 4096 + script.fetched.len());
    let mut damages: Vec<(String, Vec<u8>)> = Vec::new();
    let cuts = [0, 1, 83, 84, 4095, 4096, 5000, bytes_at + CHUNK_LEN, nodes_at - 1, nodes_at, nodes_at + 40];
    for cut in cuts.into_iter().chain([whole.len() - 1]) {
        damages.push((format!("cut at {cut}"), whole[..cut].to_vec()));
    }
    // Each byte of the header and of what is behind the bytes, and some in between; to zeros, too.
    let places = (0..84).chain(nodes_at..whole.len()).chain((bytes_at..nodes_at).step_by(40_000));
    for place in places {
        let mut file = whole.clone();
        file[place] ^= 1 << (place % 8);
        damages.push((format!("a bit at {place}"), file));
    }
    for sector in (0..whole.len()).step_by(512 * 32) {
        let mut file = whole.clone();
        let end = (sector + 512).min(file.len());
        file[sector..end].fill(0);
        damages.push((format!("zeros at {sector}"), file));
    }
    let mut long = whole;
    long.extend([0xFF; 5000]);
    damages.push(("bytes behind the end".into(), long));
    for (what, file) in damages {
        let disk = SimDirectory::new();
        script.run(&disk, &mut Reported::default()).unwrap();
        disk.replace_contents(&name, file);
        let store = open(&disk);
        let id = script.id;
        match store.read(&id) {
            Ok(bytes) => assert!(bytes == script.fetched, "{what}"),
            Err(
                BlobReadError::Missing { .. } | BlobReadError::Damaged { .. } | BlobReadError::NotHeld { .. },
            ) => {}
            Err(error) => panic!("{what}: {error}"),
        }
        assert_eq!(store.read(&BlobId::of(&script.added)).unwrap(), script.added, "{what}: another blob");
        assert_eq!(store.list().len(), 2, "{what}");
        // The blob is repaired chunk by chunk, or added again, or removed.
        store.verify(&id).unwrap_or_default();
        let chunks = store.begin(&id, script.fetched.len() as u64, &script.root).unwrap();
        let missing: Vec<u32> = chunks.missing().collect();
        for index in missing {
            store.keep(&id, index, &script.pieces[index as usize]).unwrap();
        }
        assert!(store.commit(&id).unwrap(), "{what}");
        assert_eq!(store.read(&id).unwrap(), script.fetched, "{what}");
        drop(store);
        let store = open(&disk);
        assert_eq!(store.read(&id).unwrap(), script.fetched, "{what}");
        assert!(store.remove(&id).unwrap());
        assert_eq!(store.list().len(), 1);
    }
}

#[test]
fn a_file_of_another_version_is_left_alone_until_its_blob_comes_again() {
    let disk = SimDirectory::new();
    let bytes = Random(43).bytes(100);
    let (id, root, pieces) = pieces(&bytes);
    open(&disk).add(&bytes[..]).unwrap();
    let name = format!("{id}.blob");
    let mut file = disk.contents(&name).unwrap();
    file[7] = 2;
    disk.replace_contents(&name, file.clone());
    let store = open(&disk);
    assert!(store.holding(&id).is_none() && !store.is_whole(&id));
    assert!(matches!(store.read(&id), Err(BlobReadError::NotHeld { .. })));
    assert_eq!(disk.contents(&name).unwrap(), file);
    assert_eq!((store.list().len(), store.used_bytes()), (1, file.len() as u64));
    store.begin(&id, 100, &root).unwrap();
    store.keep(&id, 0, &pieces[0]).unwrap();
    assert!(store.commit(&id).unwrap());
    assert_eq!((store.read(&id).unwrap(), store.used_bytes()), (bytes, file.len() as u64));
}
