//! Blobs between nodes; the reference in a CRDT keyspace.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use x0_kv::blob::{
    BlobOptions, BlobReadError, BlobRef, BlobStore, BlobStoreOptions, Blobs, CHUNK_LEN, Fetch, FetchError,
};
use x0_kv::cluster::Node;
use x0_kv::{Client, ClientOptions, CrdtOptions, Store};

use crate::machine::{Machine, NODES, id, soon, until};

/// Starts a member with blobs and a CRDT keyspace.
fn start(machine: &mut Machine, number: u64) -> Node {
    let (mux, _) = machine.mux(number);
    let mut blobs = BlobOptions::default();
    // All members are on this machine.
    blobs.exchange.patience_min = Duration::from_millis(100);
    blobs.exchange.patience_max = Duration::from_millis(500);
    let options = machine.options(number).crdt(CrdtOptions::new([7; 16])).blobs(blobs);
    Node::start(options, &mux).unwrap()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Reads the totals at the moment when a fetch wakes its caller.
struct AtEnd {
    blobs: Blobs,
    received: Mutex<Option<u64>>,
}

impl Wake for AtEnd {
    fn wake(self: Arc<Self>) {
        *self.received.lock().unwrap() = Some(self.blobs.status().totals.received_chunks);
    }
}

fn blobs(node: &Node) -> Blobs {
    node.store().blobs().unwrap()
}

/// The reference at a key of the CRDT keyspace, once it is there.
async fn reference(store: &Store, key: &'static str) -> BlobRef {
    let crdt = store.crdt().unwrap();
    let mut watch = crdt.watch(key).unwrap();
    loop {
        if let Some(found) = crdt.get(key).await.unwrap() {
            return BlobRef::decode(&found.value).unwrap();
        }
        soon("the reference", watch.next()).await.unwrap();
    }
}

fn content() -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(8 << 20).collect()
}

/// Damages the chunks from `first` on.
fn damage(folder: &Path, reference: &BlobRef, first: usize) {
    let path = folder.join("blobs").join(format!("{}.blob", reference.id));
    let mut file = std::fs::read(&path).unwrap();
    for chunk in first..32 {
        file[4096 + chunk * CHUNK_LEN + 1000] ^= 1;
    }
    std::fs::write(path, file).unwrap();
}

#[test]
fn a_blob_is_fetched_from_its_holders_and_a_restart_continues() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut machine = Machine::new();
        let (one, two, three) = (start(&mut machine, 1), start(&mut machine, 2), start(&mut machine, 3));
        let content = content();

        // One node adds it, and puts the reference where all nodes read it.
        let (adder, bytes) = (blobs(&one), content.clone());
        let mut added = blocking(move || adder.add(&bytes[..]).unwrap()).await;
        added.media_type = "application/octet-stream".into();
        added.provenance.maker = "node 1".into();
        let crdt = one.store().crdt().unwrap();
        crdt.put("adapter/7", added.encode().unwrap()).await.unwrap();
        let found = reference(two.store(), "adapter/7").await;
        assert_eq!(found, added);

        // The disk of node 1 loses the last twelve chunks: the other node gets twenty, and waits.
        damage(&machine.path(1), &added, 20);
        let fetch = blobs(&two).fetch(&found);
        until("the sound chunks", || fetch.progress().held_bytes == 20 * CHUNK_LEN as u64).await;
        assert_eq!(fetch.progress().total_bytes, 8 << 20);
        until("the damage", || blobs(&one).list()[0].held_bytes == 20 * CHUNK_LEN as u64).await;
        let reader = blobs(&two);
        let unread = blocking(move || reader.read(&added.id)).await;
        assert!(matches!(unread, Err(BlobReadError::Missing { .. })));

        // The fetching node stops, and its caller gets an error.
        soon("the stop", two.shutdown()).await.unwrap();
        assert!(matches!(soon("the answer", fetch).await, Err(FetchError::Closed)));
        let two = start(&mut machine, 2);
        let found = reference(two.store(), "adapter/7").await;
        let fetch = blobs(&two).fetch(&found);
        assert_eq!(fetch.progress().held_bytes, 20 * CHUNK_LEN as u64, "it is still there");

        // The third node gets the blob from its own disk: the rest comes from there, and no chunk twice. The
        // first node repairs its copy.
        let (adder, bytes) = (blobs(&three), content.clone());
        assert_eq!(blocking(move || adder.add(&bytes[..]).unwrap()).await.id, found.id);
        soon("the fetch", fetch).await.unwrap();
        let totals = blobs(&two).status().totals;
        assert_eq!((totals.received_chunks, totals.received_chunk_bytes), (12, 12 * CHUNK_LEN as u64));
        let reader = blobs(&two);
        assert!(blocking(move || reader.read(&found.id).unwrap()).await == content);
        until("the repair", || blobs(&one).list()[0].is_whole).await;
        let reader = blobs(&one);
        assert_eq!(blocking(move || reader.verify(&found.id).unwrap()).await, Vec::<u32>::new());
        for node in [&one, &two, &three] {
            let status = blobs(node).status();
            assert!(status.misbehaving.is_empty(), "{status:?}");
            assert_eq!((status.whole, status.partial), (1, 0));
        }

        // Chunks in flight have left, and a removed blob is removed on one node alone.
        until("the queues to empty", || {
            [&one, &two, &three].iter().all(|node| blobs(node).status().pending_bytes == 0)
        })
        .await;
        let remover = blobs(&two);
        assert!(blocking(move || remover.remove(&found.id).unwrap()).await);
        assert_eq!((blobs(&two).list().len(), blobs(&three).list().len()), (0, 1));
        for node in [one, two, three] {
            soon("the stop", node.shutdown()).await.unwrap();
        }
    });
}

#[test]
fn a_fetch_without_callers_ends_and_a_client_has_no_blobs() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut machine = Machine::new();
        let nodes = [start(&mut machine, 1), start(&mut machine, 2), start(&mut machine, 3)];
        let nowhere = BlobRef::new(x0_kv::blob::BlobId::of(b"nowhere"), 7);
        let held = blobs(&nodes[0]);
        let (first, second): (Fetch, Fetch) = (held.fetch(&nowhere), held.fetch(&nowhere));
        until("the fetch to begin", || held.status().fetching == 1).await;
        drop(first);
        // A further call, which is in the queue after the drop of the first.
        let third = held.fetch(&BlobRef::new(x0_kv::blob::BlobId::of(b"never"), 5));
        until("the other to begin", || held.status().fetching == 2).await;
        drop((second, third));
        until("the fetches to end", || held.status().fetching == 0).await;

        // A node that has the blob disproves a wrong length.
        let adder = blobs(&nodes[1]);
        let mut wrong = blocking(move || adder.add(&b"seven by seven"[..]).unwrap()).await;
        wrong.len = 15;
        let error = soon("the answer", held.fetch(&wrong)).await.unwrap_err();
        assert!(matches!(error, FetchError::Length { stated: 15, actual: 14 }), "{error}");
        wrong.len = 14;
        let observer = Arc::new(AtEnd { blobs: held.clone(), received: Mutex::default() });
        let mut fetch = Box::pin(held.fetch(&wrong));
        let waker = Waker::from(Arc::clone(&observer));
        if fetch.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            until("the end of the fetch", || observer.received.lock().unwrap().is_some()).await;
            assert_eq!(
                *observer.received.lock().unwrap(),
                Some(1),
                "the totals contain the fetch at its end"
            );
        }
        soon("the fetch", fetch).await.unwrap();

        let (mux, _) = machine.mux(9);
        let client = Client::connect(ClientOptions::new(id(9), (1..=NODES).map(id)), &mux).unwrap();
        assert!(client.store().blobs().is_none());
        client.close().await;
        for node in nodes {
            let kept = blobs(&node);
            soon("the stop", node.shutdown()).await.unwrap();
            // A handle that outlives the node reports that it is closed, and does not hold the folder.
            assert!(matches!(soon("the answer", kept.fetch(&nowhere)).await, Err(FetchError::Closed)));
        }
        BlobStore::open(machine.path(1).join("blobs"), BlobStoreOptions::default()).unwrap();
    });
}
