//! Automerge: one map at the root, its sync protocol.

use anyhow::{Result, bail};
use automerge::sync::{Message, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT, ReadDoc};

use super::{Couple, Pair, Replica, System, named};

pub(super) struct Automerge;

fn actor(node: u64) -> ActorId {
    ActorId::from(node.to_le_bytes().to_vec())
}

fn put(doc: &mut AutoCommit, pairs: &[Pair]) -> Result<()> {
    for (key, value) in pairs {
        Transactable::put(doc, ROOT, key.as_str(), u64::from(*value))?;
    }
    doc.commit();
    Ok(())
}

/// Messages in turn until neither has more to say.
fn exchange(here: &mut AutoCommit, there: &mut AutoCommit, states: &mut [State; 2]) -> Result<usize> {
    let mut bytes = 0;
    for _ in 0..100 {
        let mut quiet = true;
        if let Some(message) = here.sync().generate_sync_message(&mut states[0]) {
            let message = message.encode();
            bytes += message.len();
            there.sync().receive_sync_message(&mut states[1], Message::decode(&message)?)?;
            quiet = false;
        }
        if let Some(message) = there.sync().generate_sync_message(&mut states[1]) {
            let message = message.encode();
            bytes += message.len();
            here.sync().receive_sync_message(&mut states[0], Message::decode(&message)?)?;
            quiet = false;
        }
        if quiet {
            return Ok(bytes);
        }
    }
    bail!("automerge's sync protocol has not come to an end after 100 rounds")
}

impl Replica for AutoCommit {
    fn put(&mut self, pairs: &[Pair]) -> Result<()> {
        put(self, pairs)
    }

    fn remove(&mut self, keys: &[String]) -> Result<()> {
        for key in keys {
            self.delete(ROOT, key.as_str())?;
        }
        self.commit();
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(Self::save(self))
    }

    fn len(&self) -> usize {
        self.length(ROOT)
    }
}

impl System for Automerge {
    fn name(&self) -> String {
        named("automerge")
    }

    fn replica(&self) -> Result<Box<dyn Replica>> {
        Ok(Box::new(AutoCommit::new().with_actor(actor(1))))
    }

    fn couple(&self, pairs: &[Pair]) -> Result<Box<dyn Couple>> {
        let mut here = AutoCommit::new().with_actor(actor(1));
        put(&mut here, pairs)?;
        let there = here.fork().with_actor(actor(2));
        let mut couple = Two { here, there, states: [State::new(), State::new()] };
        couple.sync()?;
        Ok(Box::new(couple))
    }

    /// The states of the sync protocol are kept from an earlier meeting, which is its best case.
    fn handshake(&self, writers: u64) -> Result<Option<usize>> {
        let mut random = crate::random::Random::new(writers);
        let mut here = AutoCommit::new();
        for _ in 0..writers {
            here.set_actor(actor(random.next()));
            put(&mut here, &[("shared".to_owned(), 1)])?;
        }
        let mut there = here.fork().with_actor(actor(2));
        let mut states = [State::new(), State::new()];
        exchange(&mut here, &mut there, &mut states)?;
        let mut kept = Vec::new();
        for state in &states {
            kept.push(State::decode(&state.encode())?);
        }
        let [one, two] = <[State; 2]>::try_from(kept).map_err(|_| anyhow::anyhow!("two states"))?;
        Ok(Some(exchange(&mut here, &mut there, &mut [one, two])?))
    }
}

struct Two {
    here: AutoCommit,
    there: AutoCommit,
    states: [State; 2],
}

impl Couple for Two {
    fn put(&mut self, pairs: &[Pair]) -> Result<()> {
        put(&mut self.here, pairs)
    }

    fn sync(&mut self) -> Result<usize> {
        exchange(&mut self.here, &mut self.there, &mut self.states)
    }

    fn remove(&mut self, keys: &[String]) -> Result<()> {
        Replica::remove(&mut self.here, keys)
    }

    fn put_by(&mut self, lists: &[&[Pair]]) -> Result<()> {
        let mut writers = Vec::new();
        for (node, list) in (100..).zip(lists) {
            let mut writer = self.here.fork().with_actor(actor(node));
            put(&mut writer, list)?;
            writers.push(writer);
        }
        for writer in &mut writers {
            self.here.merge(writer)?;
        }
        Ok(())
    }

    fn empty(&mut self) -> Result<()> {
        self.there = AutoCommit::new().with_actor(actor(2));
        self.states = [State::new(), State::new()];
        Ok(())
    }

    /// The states of the sync protocol: the changes themselves stay.
    fn forget(&mut self) -> bool {
        self.states = [State::new(), State::new()];
        true
    }

    fn there(&self, key: &str) -> Option<u32> {
        let (value, _) = self.there.get(ROOT, key).ok()??;
        u32::try_from(value.as_u64()?).ok()
    }
}
