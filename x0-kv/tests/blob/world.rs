//! Nodes with folders on disks that can crash, over a network that loses, doubles and reorders, in virtual
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use x0_consensus::sim::{SimDirectory, Unsynced};
use x0_identity::NodeId;
use x0_kv::Bytes;
use x0_kv::blob::{
    BlobExchange, BlobId, BlobStore, BlobStoreOptions, ExchangeInput, ExchangeOptions, ExchangeOutput,
    ExchangeTotals, FetchFailure, Holding, Misbehavior, Piece,
};

use crate::random::Random;

pub(crate) fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// A fault of a serving node.
pub(crate) type Tamper = Box<dyn FnMut(&mut Served<'_>)>;

/// An answer of a node before it is served.
pub(crate) enum Served<'a> {
    Holding(&'a mut Option<Holding>),
    Piece(u32, &'a mut Option<Piece>),
}

pub(crate) struct Host {
    pub(crate) disk: SimDirectory,
    pub(crate) store: Option<BlobStore>,
    pub(crate) exchange: BlobExchange,
    life: u64,
    pub(crate) tamper: Option<Tamper>,
    pub(crate) done: BTreeMap<BlobId, Result<(), FetchFailure>>,
    pub(crate) misbehaving: Vec<(NodeId, Misbehavior)>,
    /// Chunks that it read for others, in its whole life.
    pub(crate) reads: u64,
    /// The totals of earlier processes of this node.
    pub(crate) before: Vec<ExchangeTotals>,
}

enum Happening {
    Message { from: NodeId, payload: Vec<u8> },
    Answer { life: u64, input: ExchangeInput },
    Up { peer: NodeId },
    Wake,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) now: Duration,
    pub(crate) hosts: BTreeMap<NodeId, Host>,
    queue: BTreeMap<(Duration, u64), (NodeId, Happening)>,
    number: u64,
    /// Lost messages, in thousandths.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) options: ExchangeOptions,
    /// The bandwidth of each node in bytes a second, if it is bounded, and the time until which the node is
    /// busy.
    pub(crate) rate: Option<u64>,
    busy_until: BTreeMap<NodeId, Duration>,
    /// Messages that were sent, the first ones.
    pub(crate) tape: Vec<Vec<u8>>,
}

const TAPE_MAX: usize = 100;

impl World {
    pub(crate) fn new(seed: u64, count: u64) -> World {
        let mut world = World {
            random: Random(seed),
            now: Duration::ZERO,
            hosts: BTreeMap::new(),
            queue: BTreeMap::new(),
            number: 0,
            lost: 0,
            doubled: 0,
            options: ExchangeOptions::default(),
            rate: None,
            busy_until: BTreeMap::new(),
            tape: Vec::new(),
        };
        for number in 1..=count {
            let disk = SimDirectory::new();
            let exchange = BlobExchange::new(world.options.clone(), 0);
            let host = Host {
                disk,
                store: None,
                exchange,
                life: 0,
                tamper: None,
                done: BTreeMap::new(),
                misbehaving: Vec::new(),
                reads: 0,
                before: Vec::new(),
            };
            world.hosts.insert(node(number), host);
        }
        for number in 1..=count {
            world.start(node(number));
        }
        world
    }

    pub(crate) fn host(&mut self, number: u64) -> &mut Host {
        self.hosts.get_mut(&node(number)).unwrap()
    }

    pub(crate) fn store(&self, number: u64) -> &BlobStore {
        self.hosts[&node(number)].store.as_ref().unwrap()
    }

    fn start(&mut self, id: NodeId) {
        let seed = self.random.next();
        let everybody: BTreeSet<NodeId> = self.hosts.keys().copied().filter(|other| *other != id).collect();
        let options = self.options.clone();
        let host = self.hosts.get_mut(&id).unwrap();
        host.life += 1;
        host.store =
            Some(BlobStore::open_on(Arc::new(host.disk.clone()), BlobStoreOptions::default()).unwrap());
        let old = std::mem::replace(&mut host.exchange, BlobExchange::new(options, seed));
        host.before.push(old.totals());
        self.input(id, ExchangeInput::Sources(everybody.clone()));
        for other in everybody {
            self.input(id, ExchangeInput::Up(other));
        }
    }

    /// The process ends and starts again; without power, bytes that were not synchronised may be lost.
    pub(crate) fn restart(&mut self, number: u64, fate: Option<Unsynced>, is_told: bool) {
        let id = node(number);
        self.host(number).store = None;
        if let Some(fate) = fate {
            self.host(number).disk.crash(fate);
        }
        if is_told {
            self.cut(number);
        }
        self.start(id);
        let others: Vec<NodeId> = self.hosts.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            if is_told {
                self.input(other, ExchangeInput::Down(id));
                self.after(Duration::from_millis(50), other, Happening::Up { peer: id });
            }
        }
    }

    /// Messages on the way to and from this node are lost with its connections.
    pub(crate) fn cut(&mut self, number: u64) {
        let id = node(number);
        self.queue.retain(|_, (to, happening)| {
            !matches!(happening, Happening::Message { from, .. } if *to == id || *from == id)
        });
    }

    fn after(&mut self, delay: Duration, to: NodeId, happening: Happening) {
        self.number += 1;
        self.queue.insert((self.now + delay, self.number), (to, happening));
    }

    pub(crate) fn fetch(&mut self, number: u64, id: BlobId, len: u64) {
        let holding = self.store(number).holding(&id);
        self.host(number).done.remove(&id);
        self.input(node(number), ExchangeInput::Fetch { id, len, holding });
    }

    pub(crate) fn message(&mut self, to: u64, from: u64, payload: Bytes) {
        self.input(node(to), ExchangeInput::Message { from: node(from), payload });
    }

    pub(crate) fn input(&mut self, at: NodeId, input: ExchangeInput) {
        let now = self.now;
        // A malformed message is reported; everything else continues.
        let _ = self.hosts.get_mut(&at).unwrap().exchange.handle(now, input);
        while let Some(output) = self.hosts.get_mut(&at).unwrap().exchange.poll_output() {
            self.carry_out(at, output);
        }
        if let Some(due) = self.hosts[&at].exchange.poll_timeout() {
            assert!(due > self.now, "a time that has passed is not waited for");
            self.after(due - now, at, Happening::Wake);
        }
        let exchange = &self.hosts[&at].exchange;
        assert!(exchange.asked_chunks() <= self.options.asked_max);
        let bound =
            self.options.serving_bytes_total_max + 3 * self.options.asked_max * x0_kv::blob::CHUNK_LEN;
        assert!(exchange.pending_bytes() <= bound);
    }

    fn carry_out(&mut self, at: NodeId, output: ExchangeOutput) {
        let host = self.hosts.get_mut(&at).unwrap();
        let life = host.life;
        let store = host.store.clone().unwrap();
        let answer = match output {
            ExchangeOutput::Send { to, payload, ticket } => {
                if self.tape.len() < TAPE_MAX {
                    self.tape.push(payload.clone());
                }
                let copies = if self.random.below(1000) < self.doubled { 2 } else { 1 };
                let mut queued = Duration::ZERO;
                if let Some(rate) = self.rate {
                    let free_at = self.busy_until.entry(at).or_default();
                    *free_at = (*free_at).max(self.now)
                        + Duration::from_micros(payload.len() as u64 * 1_000_000 / rate);
                    queued = *free_at - self.now;
                }
                for _ in 0..copies {
                    if self.random.below(1000) >= self.lost {
                        let delay = Duration::from_micros(500 + self.random.below(40_000));
                        self.after(
                            queued + delay,
                            to,
                            Happening::Message { from: at, payload: payload.clone() },
                        );
                    }
                }
                let Some(ticket) = ticket else { return };
                ExchangeInput::Left { ticket }
            }
            ExchangeOutput::Look { to, id } => {
                let mut holding = store.holding(&id);
                if let Some(tamper) = &mut host.tamper {
                    tamper(&mut Served::Holding(&mut holding));
                }
                ExchangeInput::Looked { to, id, holding }
            }
            ExchangeOutput::Read { ticket, id, index } => {
                host.reads += 1;
                let mut piece = store.read_piece(&id, index).ok();
                if let Some(tamper) = &mut host.tamper {
                    tamper(&mut Served::Piece(index, &mut piece));
                }
                ExchangeInput::Read { ticket, piece }
            }
            ExchangeOutput::Begin { id, len, root } => {
                ExchangeInput::Begun { id, chunks: store.begin(&id, len, &root).ok() }
            }
            ExchangeOutput::Keep { id, index, piece } => {
                store.keep(&id, index, &piece).unwrap();
                store.commit(&id).unwrap();
                ExchangeInput::Kept { id, index, is_kept: true }
            }
            ExchangeOutput::Complete { id } => {
                assert!(store.is_whole(&id));
                host.done.insert(id, Ok(()));
                return;
            }
            ExchangeOutput::Failed { id, failure } => {
                host.done.insert(id, Err(failure));
                return;
            }
            ExchangeOutput::Misbehaved { peer, misbehavior, .. } => {
                return host.misbehaving.push((peer, misbehavior));
            }
            other => panic!("{other:?}"),
        };
        // Files answer soon, or later, in any order.
        let delay = Duration::from_micros(self.random.below(3000));
        self.after(delay, at, Happening::Answer { life, input: answer });
    }

    /// Lets the next thing happen; whether there was one before `end`.
    pub(crate) fn step(&mut self, end: Duration) -> bool {
        let Some(((due, _), _)) = self.queue.first_key_value() else { return false };
        if *due > end {
            self.now = end;
            return false;
        }
        let ((due, _), (at, happening)) = self.queue.pop_first().unwrap();
        self.now = due;
        match happening {
            Happening::Message { from, payload } => {
                self.input(at, ExchangeInput::Message { from, payload: payload.into() });
            }
            Happening::Answer { life, input } if life == self.hosts[&at].life => self.input(at, input),
            Happening::Answer { .. } => {}
            Happening::Up { peer } => self.input(at, ExchangeInput::Up(peer)),
            Happening::Wake => {
                if self.hosts[&at].exchange.poll_timeout().is_some_and(|due| due <= self.now) {
                    self.input(at, ExchangeInput::Timeout);
                }
            }
        }
        true
    }

    /// Until the fetch at this node has ended. Whether it has, in `limit`.
    pub(crate) fn run(
        &mut self,
        number: u64,
        id: BlobId,
        limit: Duration,
    ) -> Option<Result<(), FetchFailure>> {
        let end = self.now + limit;
        while !self.hosts[&node(number)].done.contains_key(&id) && self.step(end) {}
        self.hosts[&node(number)].done.get(&id).copied()
    }

    /// Chunks of a blob that this node holds.
    pub(crate) fn held(&self, number: u64, id: &BlobId) -> u32 {
        self.store(number).holding(id).map_or(0, |holding| holding.chunks.held())
    }
}
