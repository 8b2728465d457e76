//! Blobs between nodes of a real cluster: QUIC on the loopback, files, threads; the reference in a CRDT
//! keyspace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};
use x0_kv::blob::{
    BlobOptions, BlobReadError, BlobRef, BlobStore, BlobStoreOptions, Blobs, CHUNK_LEN, Fetch, FetchError,
};
use x0_kv::cluster::{Node, NodeOptions};
use x0_kv::{Client, ClientOptions, CrdtOptions, Store};
use x0_mesh::quic::{PeerBook, QuicOptions, QuicTransport};
use x0_mesh::{Mux, MuxOptions};

const NODES: u64 = 3;

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

struct Cluster {
    authority: Authority,
    folder: tempfile::TempDir,
    addresses: Vec<(NodeId, SocketAddr)>,
    books: Vec<PeerBook>,
}

impl Cluster {
    fn new() -> Cluster {
        let domain = TrustDomain::parse("blobs.test").unwrap();
        let authority = Authority::new(domain, &AuthorityOptions::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Cluster { authority, folder, addresses: Vec::new(), books: Vec::new() }
    }

    fn transport(&mut self, number: u64) -> QuicTransport {
        let spiffe_id = SpiffeId::for_node(self.authority.trust_domain(), id(number));
        let svid = self.authority.issue(&spiffe_id, Duration::from_secs(3600)).unwrap();
        let identity = Identity::new(svid, self.authority.bundle()).unwrap();
        let bind = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config =
            QuicOptions::new(id(number), bind, identity.server_config(), identity.client_config());
        config.peers = self.addresses.iter().filter(|(peer, _)| *peer != id(number)).copied().collect();
        let transport = QuicTransport::bind(config).unwrap();
        let address = transport.local_addr().unwrap();
        self.books.iter().for_each(|book| book.set_peer(id(number), address));
        self.books.push(transport.peers());
        self.addresses.retain(|(peer, _)| *peer != id(number));
        self.addresses.push((id(number), address));
        transport
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.path().join(number.to_string())
    }

    fn node(&mut self, number: u64) -> Node {
        let transport = self.transport(number);
        let mut blobs = BlobOptions::default();
        // Nobody is far away.
        blobs.exchange.patience_min = Duration::from_millis(100);
        blobs.exchange.patience_max = Duration::from_millis(500);
        let options = NodeOptions::new(id(number), self.path(number))
            .founders((1..=NODES).map(id))
            .crdt(CrdtOptions::new([7; 16]))
            .blobs(blobs);
        Node::start(options, &Mux::new(transport, MuxOptions::default())).unwrap()
    }
}

/// Generous: only a test that fails waits for it.
async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// Looks again until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    soon(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn blobs(node: &Node) -> Blobs {
    node.store().blobs().unwrap()
}

/// What stands at a key of the CRDT keyspace, once it is there.
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
fn a_blob_is_fetched_from_who_has_it_and_a_restart_goes_on_where_it_was() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut cluster = Cluster::new();
        let (one, two, three) = (cluster.node(1), cluster.node(2), cluster.node(3));
        let content = content();

        // One node adds it, and says so where all can read it.
        let (adder, bytes) = (blobs(&one), content.clone());
        let mut added = blocking(move || adder.add(&bytes[..]).unwrap()).await;
        added.media_type = "application/octet-stream".into();
        added.provenance.maker = "node 1".into();
        let crdt = one.store().crdt().unwrap();
        crdt.put("adapter/7", added.encode().unwrap()).await.unwrap();
        let found = reference(two.store(), "adapter/7").await;
        assert_eq!(found, added);

        // Its disk forgets the last twelve chunks: the other gets twenty, and waits.
        damage(&cluster.path(1), &added, 20);
        let fetch = blobs(&two).fetch(&found);
        until("the sound chunks", || fetch.progress().held_bytes == 20 * CHUNK_LEN as u64).await;
        assert_eq!(fetch.progress().total_bytes, 8 << 20);
        until("the damage", || blobs(&one).list()[0].held_bytes == 20 * CHUNK_LEN as u64).await;
        let reader = blobs(&two);
        let unread = blocking(move || reader.read(&added.id)).await;
        assert!(matches!(unread, Err(BlobReadError::Missing { .. })));

        // It stops in the middle, and its caller hears of it.
        soon("the stop", two.shutdown()).await.unwrap();
        assert!(matches!(soon("the answer", fetch).await, Err(FetchError::Closed)));
        let two = cluster.node(2);
        let found = reference(two.store(), "adapter/7").await;
        let fetch = blobs(&two).fetch(&found);
        assert_eq!(fetch.progress().held_bytes, 20 * CHUNK_LEN as u64, "it is still there");

        // A third has it from elsewhere: the rest comes from there, and nothing twice. The first mends
        // itself.
        let (adder, bytes) = (blobs(&three), content.clone());
        assert_eq!(blocking(move || adder.add(&bytes[..]).unwrap()).await.id, found.id);
        soon("the fetch", fetch).await.unwrap();
        let totals = blobs(&two).status().totals;
        assert_eq!((totals.received_chunks, totals.received_chunk_bytes), (12, 12 * CHUNK_LEN as u64));
        let reader = blobs(&two);
        assert!(blocking(move || reader.read(&found.id).unwrap()).await == content);
        until("the repair", || blobs(&one).list()[0].is_whole).await;
        let reader = blobs(&one);
        assert_eq!(blocking(move || reader.verify(&found.id).unwrap()).await, []);
        for node in [&one, &two, &three] {
            let status = blobs(node).status();
            assert!(status.misbehaving.is_empty(), "{status:?}");
            assert_eq!((status.whole, status.partial), (1, 0));
        }

        // What was in flight has left, and what is removed is gone here alone.
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
fn fetches_end_when_nobody_waits_and_a_client_has_none() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut cluster = Cluster::new();
        let nodes = [cluster.node(1), cluster.node(2), cluster.node(3)];
        let nowhere = BlobRef::new(x0_kv::blob::BlobId::of(b"nowhere"), 7);
        let held = blobs(&nodes[0]);
        let (first, second): (Fetch, Fetch) = (held.fetch(&nowhere), held.fetch(&nowhere));
        until("the fetch to begin", || held.status().fetching == 1).await;
        drop(first);
        // Another call, to be behind the first in the queue.
        let third = held.fetch(&BlobRef::new(x0_kv::blob::BlobId::of(b"never"), 5));
        until("the other to begin", || held.status().fetching == 2).await;
        drop((second, third));
        until("the fetches to end", || held.status().fetching == 0).await;

        // A wrong length is found, by a node that knows the right one.
        let adder = blobs(&nodes[1]);
        let mut wrong = blocking(move || adder.add(&b"seven by seven"[..]).unwrap()).await;
        wrong.len = 15;
        let error = soon("the answer", held.fetch(&wrong)).await.unwrap_err();
        assert!(matches!(error, FetchError::Length { stated: 15, actual: 14 }), "{error}");
        wrong.len = 14;
        soon("the fetch", held.fetch(&wrong)).await.unwrap();

        let transport = cluster.transport(9);
        let client = Client::connect(
            ClientOptions::new(id(9), (1..=NODES).map(id)),
            &Mux::new(transport, MuxOptions::default()),
        )
        .unwrap();
        assert!(client.store().blobs().is_none());
        client.close().await;
        for node in nodes {
            let kept = blobs(&node);
            soon("the stop", node.shutdown()).await.unwrap();
            // Who kept a handle hears that it is closed, and does not keep the folder.
            assert!(matches!(soon("the answer", kept.fetch(&nowhere)).await, Err(FetchError::Closed)));
        }
        BlobStore::open(cluster.path(1).join("blobs"), BlobStoreOptions::default()).unwrap();
    });
}
