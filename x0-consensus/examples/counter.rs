//! A counter that three members agree on, each with a log on disk, and that outlives any one of them.
//!
//! `cargo run --release -p x0-consensus --example counter [FOLDER]` counts on by 1,000; halfway it stops the member that leads, goes on with
//! the other two, starts the stopped one again from its log, and checks that all three have counted the same. The members live in one
//! process and hand their messages to each other directly: with sockets in between only `Mesh` would be another.
#![allow(clippy::print_stdout, reason = "a program that talks to who started it")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use x0_consensus::{
    Bytes, Class, Config, Congested, Entry, Event, Handle, NodeId, Observer, Outbox, SnapshotMeta,
    StateMachine, StateMachineError, Wal, WalConfig, local,
};

/// What the log is for. A command names the number that comes next, so that one that is given twice counts once. Kept in memory, and made
/// again from the log at each start.
struct Counter(u64);

impl StateMachine for Counter {
    fn durable_index(&self) -> u64 {
        0
    }

    fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError> {
        for command in entries.iter().filter(|entry| entry.is_command()) {
            if *command.payload == (self.0 + 1).to_le_bytes() {
                self.0 += 1;
            }
            outcomes.push(Bytes::copy_from_slice(&self.0.to_le_bytes()));
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Box<dyn Read + Send>, StateMachineError> {
        Ok(Box::new(Cursor::new(self.0.to_le_bytes())))
    }

    fn restore(&mut self, _: &SnapshotMeta, from: &mut dyn Read) -> Result<(), StateMachineError> {
        let mut count = [0; 8];
        from.read_exact(&mut count).map_err(StateMachineError::new)?;
        self.0 = u64::from_le_bytes(count);
        Ok(())
    }
}

/// Who is there at the moment.
#[derive(Clone, Default)]
struct Mesh(Arc<Mutex<BTreeMap<NodeId, Handle>>>);

impl Mesh {
    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<NodeId, Handle>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The way out of one member.
struct Way(NodeId, Mesh);

impl Outbox for Way {
    fn send(&mut self, to: NodeId, _: Class, payload: Vec<u8>) -> Result<(), Congested> {
        let peer = self.1.with(|members| members.get(&to).cloned());
        peer.ok_or(Congested)?.deliver(self.0, payload.into());
        Ok(())
    }
}

struct Tell(NodeId, Sender<(NodeId, Event)>);

impl Observer for Tell {
    fn event(&mut self, event: Event) {
        // Nobody listens any more once the program is about to end.
        let _ = self.1.send((self.0, event));
    }
}

struct Group<'a> {
    folder: &'a Path,
    ids: Vec<NodeId>,
    mesh: Mesh,
    tell: Sender<(NodeId, Event)>,
    told: Receiver<(NodeId, Event)>,
}

impl Group<'_> {
    fn start(&self, id: NodeId) -> Result<(), Box<dyn Error>> {
        let wal = Wal::open_path(self.folder.join(id.to_string()), WalConfig::default())?;
        // The first members are written into an empty log only, so a restart may name them again.
        let mut config = Config::new(id).bootstrap(self.ids.clone());
        config.seed = id.get();
        let (way, tell) = (Way(id, self.mesh.clone()), Tell(id, self.tell.clone()));
        let handle = local::start(config, wal, Counter(0), way, tell)?;
        self.mesh.with(|members| members.insert(id, handle));
        Ok(())
    }

    /// Stops a member as a lost power supply would.
    fn stop(&self, id: NodeId) {
        if let Some(handle) = self.mesh.with(|members| members.remove(&id)) {
            handle.stop();
            handle.wait_ended();
        }
    }

    fn leader(&self) -> (NodeId, Handle) {
        loop {
            let leads = |handle: &Handle| handle.status().leader == Some(handle.status().id);
            let members = self.mesh.with(|members| members.clone());
            if let Some(found) = members.into_iter().find(|(_, handle)| leads(handle)) {
                return found;
            }
            thread::yield_now();
        }
    }

    /// Has the next number counted, by whoever leads, and returns where the counter stands then.
    fn count(&self, next: u64) -> Result<u64, Box<dyn Error>> {
        loop {
            let (leader, handle) = self.leader();
            handle.propose(next, Bytes::copy_from_slice(&next.to_le_bytes()));
            let answer = self.told.iter().find_map(|(by, event)| match event {
                Event::Outcome { token, outcome, .. } if token == next => Some(Some(outcome)),
                // It may have been taken nevertheless, see `DropReason`; to say it again does no harm here.
                Event::Dropped { token, .. } if (by, token) == (leader, next) => Some(None),
                _ => None,
            });
            if let Some(outcome) = answer.ok_or("all members have ended")? {
                return Ok(u64::from_le_bytes(outcome.as_ref().try_into()?));
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let given = std::env::args_os().nth(1);
    run(given.as_ref().map_or(temporary.path(), |folder| Path::new(folder)))
}

pub(crate) fn run(folder: &Path) -> Result<(), Box<dyn Error>> {
    let ids = (1..=3).map(|number| NodeId::new(number).ok_or("zero names no node"));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    let (tell, told) = mpsc::channel();
    let group = Group { folder, ids, mesh: Mesh::default(), tell, told };
    for id in &group.ids {
        group.start(*id)?;
    }
    let (first, _) = group.leader();
    println!("{first} leads");
    // There was no number 0: it only asks.
    let begun = group.count(0)?;
    for next in begun + 1..=begun + 500 {
        group.count(next)?;
    }
    group.stop(first);
    let stopped = Instant::now();
    group.count(begun + 501)?;
    println!("{first} is gone; {} leads, and counts on after {:.0?}", group.leader().0, stopped.elapsed());
    for next in begun + 502..=begun + 1000 {
        group.count(next)?;
    }
    group.start(first)?;
    let reached = |group: &Group<'_>| {
        let applied = |handle: &Handle| handle.status().applied_index;
        let all: Vec<_> = group.mesh.with(|members| members.values().map(applied).collect());
        all.windows(2).all(|pair| matches!(pair, [a, b] if a == b))
    };
    while !reached(&group) {
        thread::sleep(Duration::from_millis(5));
    }
    let count = group.count(0)?;
    println!("{first} is back, and all three have applied the same: from {begun} to {count}");
    for id in &group.ids {
        group.stop(*id);
    }
    if count == begun + 1000 { Ok(()) } else { Err(format!("1,000 more than {begun} is not {count}").into()) }
}
