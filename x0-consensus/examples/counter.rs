//! A replicated counter: three members with a log on disk each, which survive the loss of any one of them.
//!
//! `cargo run --release -p x0-consensus --example counter [FOLDER]` increments the counter by 1,000. Halfway
//! it stops the leader, continues with the other two, restarts the stopped member from its log, and checks
//! that all three have the same count. The members run in one process and pass their messages to each other
//! directly; with sockets only `Mesh` changes.
#![allow(clippy::print_stdout, reason = "a program that prints its results")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use x0_consensus::{
    Bytes, Class, Congested, Entry, Event, Handle, NodeId, Observer, Options, Outbox, SnapshotMeta,
    StateMachine, StateMachineError, Wal, WalOptions, local,
};

/// The state machine. A command has the next number, so that a repeated command counts once. The state is in
/// memory, and is rebuilt from the log at each start.
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

/// The running members.
#[derive(Clone, Default)]
struct Mesh(Arc<Mutex<BTreeMap<NodeId, Handle>>>);

impl Mesh {
    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<NodeId, Handle>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The outbox of one member.
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
        // The receiver is gone when the program ends.
        let _ = self.1.send((self.0, event));
    }
}

struct Group<'a> {
    folder: &'a Path,
    ids: Vec<NodeId>,
    mesh: Mesh,
    sender: Sender<(NodeId, Event)>,
    events: Receiver<(NodeId, Event)>,
}

impl Group<'_> {
    fn start(&self, id: NodeId) -> Result<(), Box<dyn Error>> {
        let wal = Wal::open_path(self.folder.join(id.to_string()), WalOptions::default())?;
        // The founders have an effect on an empty log only, so that a restart may set them again.
        let mut options = Options::new(id).bootstrap(self.ids.clone());
        options.seed = id.get();
        let (way, sender) = (Way(id, self.mesh.clone()), Tell(id, self.sender.clone()));
        let handle = local::start(options, wal, Counter(0), way, sender)?;
        self.mesh.with(|members| members.insert(id, handle));
        Ok(())
    }

    /// Stops a member as a power failure would.
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

    /// Increments the counter through the current leader, and returns the count.
    fn count(&self, next: u64) -> Result<u64, Box<dyn Error>> {
        loop {
            let (leader, handle) = self.leader();
            handle.propose(next, Bytes::copy_from_slice(&next.to_le_bytes()));
            let answer = self.events.iter().find_map(|(by, event)| match event {
                Event::Outcome { token, outcome, .. } if token == next => Some(Some(outcome)),
                // The command may take effect nevertheless, see `DropReason`; repeating it is harmless here.
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
    let (sender, events) = mpsc::channel();
    let group = Group { folder, ids, mesh: Mesh::default(), sender, events };
    for id in &group.ids {
        group.start(*id)?;
    }
    let (first, _) = group.leader();
    println!("{first} leads");
    // The number 0 has no effect: the command only reads the count.
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
