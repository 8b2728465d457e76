//! Three nodes, of which one dies at every write to the store and at every operation on the files of its
//! index, and a cut between them.

#[path = "../../../../tests/knowledge/folder.rs"]
mod folder;

use std::time::Instant;

use tokio::runtime::Runtime;
use x0_example_own_transport::Switchboard;
use x0_identity::NodeId;
use x0_kv::CrdtOptions;
use x0_kv::cluster::{Node, NodeOptions};
use x0_mesh::{FaultHandle, FaultInjector, Mux, MuxOptions};

use self::folder::{SharedFolder, SimFolder};
use super::*;
use crate::chunk::ChunkOptions;
use crate::embed::{Embedder, HashedWords};
use crate::index::{HnswOptions, Metric, Search};
use crate::knowledge::{KnowledgeBase, KnowledgeBaseOptions, KnowledgeOptions};
use crate::retrieve::{DocumentId, Mode};

const NODES: u64 = 3;
/// The node that dies.
const VICTIM: u64 = 3;
/// Only a test that fails reaches it.
const LIMIT: Duration = Duration::from_secs(240);
const DIMENSIONS: usize = 48;

type Base = KnowledgeBase<KvKnowledge, HashedWords, SharedFolder>;
type Listing = Vec<(DocumentId, u64)>;

struct Member {
    node: Node,
    faults: FaultHandle,
    _mux: Mux,
}

/// Nodes with files, connected in memory.
struct Cluster {
    members: BTreeMap<u64, Member>,
    board: Switchboard,
    folder: tempfile::TempDir,
    runtime: Runtime,
}

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// Tries until there is something.
fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "{what} takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Cluster {
    fn start() -> Cluster {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        let (board, folder) = (Switchboard::default(), tempfile::tempdir().unwrap());
        let mut cluster = Cluster { members: BTreeMap::new(), board, folder, runtime };
        (1..=NODES).for_each(|number| cluster.start_node(number));
        // The victim does not lead, so that its deaths cost no election.
        let mut asked: Option<Instant> = None;
        until("a leader that stays", || {
            let mut nodes = (1..NODES).map(|number| &cluster.members[&number].node);
            if nodes.any(|node| node.status().is_leader()) {
                return Some(());
            }
            // An election takes its time on a loaded machine, and another request would begin it again.
            if asked.is_none_or(|at| at.elapsed() > Duration::from_secs(5)) {
                cluster.members[&1].node.take_over();
                asked = Some(Instant::now());
            }
            None
        });
        cluster
    }

    fn start_node(&mut self, number: u64) {
        let _runtime = self.runtime.enter();
        let (transport, faults) = FaultInjector::new(self.board.plug_in(id(number)));
        let mux = Mux::new(transport, MuxOptions::default());
        let options = NodeOptions::new(id(number), self.folder.path().join(number.to_string()))
            .founders((1..=NODES).map(id))
            .crdt(CrdtOptions::new([7; 16]));
        let node = Node::start(options, &mux).unwrap();
        self.members.insert(number, Member { node, faults, _mux: mux });
    }

    /// Stops a node without notice to the others, and waits until its files are free.
    fn kill(&mut self, number: u64) {
        let Member { node, .. } = self.members.remove(&number).unwrap();
        self.runtime.block_on(node.shutdown()).unwrap();
    }

    fn store(&self, number: u64) -> &Store {
        self.members[&number].node.store()
    }

    fn collection(&self, number: u64, kind: CollectionKind) -> KvKnowledge {
        // A node that has just started may lack a leader.
        until("the collection", || KvKnowledge::create(self.store(number), "manuals", kind, options()).ok())
    }

    /// A handle that stops at a write.
    fn stopping(&self, number: u64, kind: CollectionKind, left: usize, loses_answer: bool) -> KvKnowledge {
        let inner = cells(self.store(number), "manuals", kind).unwrap();
        let stopping = Stopping { inner, left: Arc::new(AtomicUsize::new(left)), loses_answer };
        let long_texts = LongTexts::new(self.store(number), &keyspace("manuals"));
        KvKnowledge::over(Box::new(stopping), long_texts, options()).unwrap()
    }

    /// The base of a node over its files, or `None` if the power goes meanwhile.
    fn base(&self, number: u64, kind: CollectionKind, folder: &SharedFolder) -> Option<Base> {
        self.base_that_scans(number, kind, folder, 0)
    }

    fn base_that_scans(
        &self,
        number: u64,
        kind: CollectionKind,
        folder: &SharedFolder,
        scan_len_max: usize,
    ) -> Option<Base> {
        let index =
            HnswOptions::new(DIMENSIONS, Metric::Cosine).m(6).ef_construction(60).scan_len_max(scan_len_max);
        let knowledge = KnowledgeOptions::new().page_max(2).save_changes(2).retry(Duration::from_millis(20));
        let options = KnowledgeBaseOptions::new()
            .chunk(ChunkOptions::new().tokens_max(40))
            .knowledge(knowledge)
            .index(index);
        Base::open(options, self.collection(number, kind), HashedWords::new(DIMENSIONS), folder.clone()).ok()
    }
}

fn put(collection: &mut KvKnowledge, name: &str, content: &str) -> u64 {
    // Attempts may fail while there is no leader; a write that was done is done again.
    until("a write", || collection.put(&name.into(), Document::new(content)).ok())
}

fn remove(collection: &mut KvKnowledge, name: &str) -> u64 {
    let mut attempts = 0;
    until("a removal", || {
        attempts += 1;
        collection.remove(&name.into()).ok().map(|revision| revision.or((attempts > 1).then_some(0)))
    })
    .unwrap()
}

fn listing(collection: &mut KvKnowledge) -> Listing {
    let page = until("a page", || collection.list(None, 1000).ok());
    assert!(page.is_last);
    page.documents
}

fn held(base: &Base) -> Listing {
    let engine = base.engine();
    let documents = engine.passages().documents();
    documents.map(|(document, revision)| (document.clone(), revision)).collect()
}

/// Steps until the base holds these documents and nothing else. `false`: the power went before.
fn follow(base: &mut Base, folder: &SharedFolder, wanted: &Listing) -> bool {
    let begun = Instant::now();
    until("the index of the store", || {
        while !folder.has_crashed() && base.step(begun.elapsed()).unwrap() {}
        let is_there = base.engine().is_idle() && held(base) == *wanted;
        (folder.has_crashed() || is_there).then(|| !folder.has_crashed())
    })
}

/// All hits of queries by meaning and by words, without the order of equal scores.
fn answers(base: &Base) -> Vec<Vec<(String, usize, u64)>> {
    let queries = ["Sentence 3 of alpha", "Sentence 7 names 49", "gamma 1600", "delta names"];
    let all = queries.iter().flat_map(|query| [Mode::Dense, Mode::Lexical].map(|mode| (query, mode)));
    all.map(|(query, mode)| {
        let hits = base.query(query, 1000, mode).unwrap();
        let mut hits: Vec<_> =
            hits.iter().map(|hit| (hit.document.to_string(), hit.span.start, hit.revision)).collect();
        hits.sort();
        hits
    })
    .collect()
}

/// The scores of the 10 nearest chunks of queries.
fn nearest(base: &Base) -> Vec<Vec<f32>> {
    let near = |query: String| {
        let mut vector = [0.0; DIMENSIONS];
        HashedWords::new(DIMENSIONS).embed(&[&query], &mut vector).unwrap();
        let found = base.reader().search(&Search::new(&vector, 10).effort(20)).unwrap();
        found.iter().map(|near| near.score).collect()
    };
    (0..30).map(|n| near(format!("Sentence {n} of alpha and gamma names {}", n * n))).collect()
}

/// How many of the nearest a graph found.
#[derive(Debug, Default)]
struct Recall {
    wanted: usize,
    survivor: usize,
    fresh: usize,
}

impl Cluster {
    /// Asserts that the base holds exactly the live chunks of the store of node 1, and answers as one that is
    /// built from it there.
    fn check(&self, kind: CollectionKind, base: &Base, recall: &mut Recall, what: &str) {
        let documents = listing(&mut self.collection(1, kind));
        assert_eq!(held(base), documents, "{what}");
        let build = |scan_len_max| {
            let folder = SharedFolder::new(SimFolder::new(9));
            let mut fresh = self.base_that_scans(1, kind, &folder, scan_len_max).unwrap();
            assert!(follow(&mut fresh, &folder, &documents));
            fresh
        };
        let (fresh, exact) = (build(0), build(usize::MAX));
        let chunks = fresh.engine().passages().chunks_len();
        assert_eq!(base.engine().passages().chunks_len(), chunks, "{what}");
        assert_eq!(base.reader().len(), chunks, "{what}: the index holds the live chunks only");
        assert_eq!(answers(base), answers(&exact), "{what}");
        let truth = nearest(&exact);
        let hits = |base: &Base| -> usize {
            let found = nearest(base).into_iter().zip(&truth);
            found
                .map(|(found, truth)| found.iter().filter(|score| **score >= truth[truth.len() - 1]).count())
                .sum()
        };
        recall.wanted += truth.iter().map(Vec::len).sum::<usize>();
        recall.survivor += hits(base);
        recall.fresh += hits(&fresh);
    }
}

/// The moment at which the victim dies: before a write of its own to the store, after one and before its
/// answer, or at an operation on the files of its index.
#[derive(Debug, Clone, Copy)]
enum Death {
    Write(usize),
    Answer(usize),
    File(usize),
}

impl Death {
    fn next(self) -> Death {
        match self {
            Death::Write(at) => Death::Write(at + 1),
            Death::Answer(at) => Death::Answer(at + 1),
            Death::File(at) => Death::File(at + 1),
        }
    }
}

/// The victim takes documents, indexes and saves them, until it dies; `false`: it did all of it before.
fn live(cluster: &Cluster, kind: CollectionKind, folder: &SharedFolder, death: Death, round: usize) -> bool {
    let (left, loses_answer) = match death {
        Death::Write(at) => (at, false),
        // One more, because the write at which it dies is done.
        Death::Answer(at) => (at + 1, true),
        Death::File(_) => (usize::MAX, false),
    };
    let mut writer = cluster.stopping(VICTIM, kind, left, loses_answer);
    let Some(mut base) = cluster.base(VICTIM, kind, folder) else { return true };
    let begun = Instant::now();
    let changes = [
        ("alpha", Some(text("alpha", 250 + round % 7))),
        ("beta", Some(text("beta", 10 + round % 5))),
        ("alpha", Some(text("gamma", 90))),
        ("beta", None),
        ("delta", Some(text("delta", 5 + round % 3))),
    ];
    for (step, (name, content)) in (0..).zip(changes) {
        let written = match content {
            Some(content) => writer.put(&name.into(), Document::new(content)).map(Some),
            None => writer.remove(&name.into()),
        };
        let Ok(revision) = written else { return true };
        let is_alive = until("a document of the victim", || {
            while !folder.has_crashed() && base.step(begun.elapsed()).unwrap() {}
            let is_there = base.engine().applied() >= revision.unwrap_or_default();
            (folder.has_crashed() || is_there).then(|| !folder.has_crashed())
        });
        if !is_alive {
            return true;
        }
        // Pieces that no document needs since the step before leave.
        if writer.sweep(GRACE * step).is_err() {
            return true;
        }
    }
    !base.save(begun.elapsed()).unwrap()
}

fn deaths(kind: CollectionKind) {
    let mut cluster = Cluster::start();
    let mut other = cluster.collection(1, kind);
    put(&mut other, "gamma", &text("gamma", 60));
    let (mut image, mut recall, mut round) = (SimFolder::new(kind as u64 + 1), Recall::default(), 0);
    for first in [Death::Write(0), Death::Answer(0), Death::File(0)] {
        let mut death = first;
        loop {
            if let Death::File(at) = death {
                image.crash_at(image.operations() + at);
            }
            let folder = SharedFolder::new(image);
            let has_died = live(&cluster, kind, &folder, death, round);
            drop(other);
            cluster.kill(VICTIM);
            // Documents change while it is dead.
            other = cluster.collection(1, kind);
            put(&mut other, "gamma", &text("gamma", 60 + round % 9));
            put(&mut other, "new", &text("alpha", 20 + round % 4));
            if round % 2 == 0 {
                remove(&mut other, "new");
            }
            image = folder.take();
            image.restart();
            cluster.start_node(VICTIM);
            let what = format!("{kind:?}, {death:?} in round {round}");
            let folder = SharedFolder::new(image);
            let mut base = cluster.base(VICTIM, kind, &folder).unwrap();
            // The last writes of the victim may be on their way.
            until("the same documents on both sides", || {
                let here = listing(&mut cluster.collection(VICTIM, kind));
                (here == listing(&mut other)).then_some(())
            });
            assert!(follow(&mut base, &folder, &listing(&mut other)), "{what}");
            cluster.check(kind, &base, &mut recall, &what);
            drop(base);
            image = folder.take();
            round += 1;
            if !has_died {
                break;
            }
            death = death.next();
        }
        let least = if matches!(death, Death::File(_)) { 20 } else { 9 };
        let (Death::Write(at) | Death::Answer(at) | Death::File(at)) = death;
        assert!(at >= least, "{kind:?}: the victim lives through {death:?}");
    }
    let Recall { wanted, survivor, fresh } = recall;
    let share = |found: usize| found as f64 / wanted as f64;
    println!("{kind:?}: {round} deaths, recall {} and {}", share(survivor), share(fresh));
    assert!(share(survivor) >= share(fresh) - 0.005, "{recall:?}");
    assert!(share(fresh) > 0.95, "{recall:?}");
}

#[test]
fn a_linearizable_index_survives_every_death_of_its_node() {
    deaths(CollectionKind::Linearizable);
}

#[test]
fn a_crdt_index_survives_every_death_of_its_node() {
    deaths(CollectionKind::Crdt);
}

/// Both sides of a cut write, remove and sweep; once it is healed, all nodes answer alike.
#[test]
fn both_sides_of_a_cut_write_and_answer_alike_after_it() {
    let kind = CollectionKind::Crdt;
    let cluster = Cluster::start();
    let mut collections: Vec<KvKnowledge> =
        (1..=NODES).map(|number| cluster.collection(number, kind)).collect();
    let folders: Vec<SharedFolder> =
        (1..=NODES).map(|number| SharedFolder::new(SimFolder::new(number))).collect();
    let mut bases: Vec<Base> = (1..=NODES)
        .zip(&folders)
        .map(|(number, folder)| cluster.base(number, kind, folder).unwrap())
        .collect();
    let follow_all = |bases: &mut [Base], collections: &mut [KvKnowledge]| {
        for ((base, folder), collection) in bases.iter_mut().zip(&folders).zip(collections) {
            let documents = listing(collection);
            assert!(follow(base, folder, &documents));
        }
    };
    let alike = |collections: &mut [KvKnowledge]| {
        until("the same documents on all nodes", || {
            let listings: Vec<Listing> = collections.iter_mut().map(listing).collect();
            listings.iter().all(|documents| *documents == listings[0]).then_some(())
        });
    };
    for name in ["alpha", "beta", "delta", "old"] {
        put(&mut collections[0], name, &text(name, 40));
    }
    until("the documents everywhere", || {
        let lens: Vec<usize> = collections.iter_mut().map(|collection| listing(collection).len()).collect();
        (lens == [4; 3]).then_some(())
    });
    alike(&mut collections);
    follow_all(&mut bases, &mut collections);

    cluster.members[&VICTIM].faults.block_all();
    let long = text("alpha", 250);
    put(&mut collections[0], "alpha", &format!("{long}At the greater side."));
    put(&mut collections[2], "alpha", &format!("{long}At the smaller side."));
    put(&mut collections[1], "here", &text("here", 30));
    put(&mut collections[2], "there", &text("there", 30));
    remove(&mut collections[0], "beta");
    remove(&mut collections[2], "delta");
    remove(&mut collections[2], "old");
    // The same text again, whose pieces the other side sweeps.
    put(&mut collections[0], "old", &text("old", 40));
    for now in [Duration::ZERO, GRACE] {
        let swept = collections[2].sweep(now).unwrap();
        assert!(now == Duration::ZERO || swept.pieces > 0, "{swept:?}");
    }
    until("both nodes of the greater side", || {
        (listing(&mut collections[0]) == listing(&mut collections[1])).then_some(())
    });
    follow_all(&mut bases, &mut collections);
    assert_eq!(answers(&bases[0]), answers(&bases[1]));
    let found = |base: &Base, text: &str| {
        let hits = base.query(text, 1000, Mode::Lexical).unwrap();
        hits.into_iter().map(|hit| hit.document.to_string()).collect::<BTreeSet<_>>()
    };
    for (node, own, foreign) in [(0, "here", "there"), (2, "there", "here")] {
        assert!(found(&bases[node], own).contains(own) && !found(&bases[node], own).contains(foreign));
    }

    cluster.members[&VICTIM].faults.unblock_all();
    // A removal does not cover the text that the other side wrote at the same time.
    let names = ["alpha", "here", "old", "there"];
    until("the end of the cut", || {
        let mut listings = collections.iter_mut().map(listing);
        listings.all(|documents| documents.iter().map(|(name, _)| name.as_str()).eq(names)).then_some(())
    });
    alike(&mut collections);
    follow_all(&mut bases, &mut collections);
    let mut recall = Recall::default();
    for base in &bases {
        cluster.check(kind, base, &mut recall, "after the cut");
    }
    // Of the siblings, the latest is indexed, and only this one.
    assert_eq!((found(&bases[0], "greater").len(), found(&bases[0], "smaller").len()), (0, 1));
    let texts: Vec<Texts> = collections.iter_mut().map(read_all).collect();
    assert!(texts.iter().all(|found| *found == texts[0]));
    assert_eq!(texts[0]["old"], text("old", 40));
}
