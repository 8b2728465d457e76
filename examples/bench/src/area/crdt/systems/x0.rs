//! x0-crdt: through two sessions, and by deltas alone.

use std::time::Duration;

use anyhow::{Context, Result};
use x0_crdt::{Canonical, CausalMap, HashKey, MapDelta, ReplicaId, SessionOptions};

use super::{Couple, Link, Net, Pair, Replica, System, named};

pub(in super::super) const HASH_KEY: HashKey = HashKey::new(*b"x0-bench measure");

/// Milliseconds since 1970 at which the first write is said to happen: as long as real ones.
const TIME: u64 = 1_760_000_000_000;

/// End to end, through sessions.
pub(in super::super) struct X0;

/// Without sessions: the version and the difference. `own_times`: each write has a millisecond of its own,
/// instead of one for all that were written together.
pub(in super::super) struct X0Bare {
    pub(in super::super) own_times: bool,
}

fn put(map: &mut CausalMap, pairs: &[Pair], own_times: bool) -> Result<()> {
    let mut time = TIME + map.last_dot().map_or(0, |dot| dot.seq);
    for (key, value) in pairs {
        map.put(key.as_bytes(), time, &value.to_le_bytes())?;
        time += u64::from(own_times);
    }
    Ok(())
}

fn value_of(map: &CausalMap, key: &str) -> Option<u32> {
    map.get(key.as_bytes())?.latest().value.try_into().ok().map(u32::from_le_bytes)
}

/// A map that holds `pairs` and remembers nothing of how they came.
pub(in super::super) fn map_of(pairs: &[Pair]) -> Result<CausalMap> {
    let mut map = CausalMap::new(ReplicaId::new(1), HASH_KEY);
    put(&mut map, pairs, false)?;
    let version = map.version();
    map.collect_tombstones(&version);
    Ok(map)
}

/// Another replica of the same.
pub(in super::super) fn replica_of(map: &CausalMap) -> Result<CausalMap> {
    Ok(CausalMap::restore(&map.save(), ReplicaId::new(2), HASH_KEY)?)
}

impl Replica for CausalMap {
    fn put(&mut self, pairs: &[Pair]) -> Result<()> {
        put(self, pairs, false)
    }

    fn remove(&mut self, keys: &[String]) -> Result<()> {
        for key in keys {
            Self::remove(self, key.as_bytes()).context("nothing to remove")?;
        }
        Ok(())
    }

    fn settle(&mut self) {
        let version = self.version();
        self.collect_tombstones(&version);
    }

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(Self::save(self))
    }

    fn len(&self) -> usize {
        Self::len(self)
    }
}

impl System for X0 {
    fn name(&self) -> String {
        named("x0-crdt")
    }

    fn replica(&self) -> Result<Box<dyn Replica>> {
        Ok(Box::new(CausalMap::new(ReplicaId::new(1), HASH_KEY)))
    }

    fn couple(&self, pairs: &[Pair]) -> Result<Box<dyn Couple>> {
        let map = map_of(pairs)?;
        let there = replica_of(&map)?;
        let mut net = Net::new([map, there], &SessionOptions::default(), Link::FAST, 1);
        net.run_until_in_sync(Duration::from_secs(60))?;
        Ok(Box::new(Sessions(net)))
    }

    fn handshake(&self, writers: u64) -> Result<Option<usize>> {
        let mut map = CausalMap::new(ReplicaId::new(1), HASH_KEY);
        let mut random = crate::random::Random::new(writers);
        for _ in 0..writers {
            // A writer that is there for one write.
            map = CausalMap::restore(&map.save(), ReplicaId::new(random.next()), HASH_KEY)?;
            map.put(b"shared", TIME, b"value")?;
        }
        let version = map.version();
        map.collect_tombstones(&version);
        let there = replica_of(&map)?;
        let mut net = Net::new([map, there], &SessionOptions::default(), Link::FAST, 1);
        net.run_until_in_sync(Duration::from_secs(60))?;
        // After a while one of the two asks again.
        net.run(Duration::from_secs(1))?;
        let before = net.bytes();
        while net.bytes() == before {
            net.run(Duration::from_millis(100))?;
        }
        net.run(Duration::from_millis(100))?;
        Ok(Some(net.bytes() - before))
    }
}

struct Sessions(Net);

impl Couple for Sessions {
    fn put(&mut self, pairs: &[Pair]) -> Result<()> {
        // Well after the last exchange, so that no greeting is saved by it.
        self.0.run(Duration::from_secs(2))?;
        put(self.0.map_mut(0), pairs, false)
    }

    fn sync(&mut self) -> Result<usize> {
        let before = self.0.bytes();
        self.0.changed(0)?;
        self.0.run_until_in_sync(Duration::from_secs(600))?;
        Ok(self.0.bytes() - before)
    }

    fn remove(&mut self, keys: &[String]) -> Result<()> {
        self.0.run(Duration::from_secs(2))?;
        Replica::remove(self.0.map_mut(0), keys)
    }

    fn put_by(&mut self, lists: &[&[Pair]]) -> Result<()> {
        self.0.run(Duration::from_secs(2))?;
        let saved = self.0.map(0).save();
        for (node, list) in (100..).zip(lists) {
            let mut writer = CausalMap::restore(&saved, ReplicaId::new(node), HASH_KEY)?;
            let since = writer.version();
            put(&mut writer, list, false)?;
            self.0.map_mut(0).join(&writer.delta(&since)?)?;
        }
        Ok(())
    }

    fn empty(&mut self) -> Result<()> {
        let maps = [self.0.map(0).clone(), CausalMap::new(ReplicaId::new(2), HASH_KEY)];
        self.0 = Net::new(maps, &SessionOptions::default(), Link::FAST, 1);
        Ok(())
    }

    fn forget(&mut self) -> bool {
        let version = self.0.map(0).version();
        self.0.map_mut(0).collect_tombstones(&version);
        true
    }

    fn longest_call(&mut self) -> Option<f64> {
        Some(self.0.take_longest())
    }

    fn there(&self, key: &str) -> Option<u32> {
        value_of(self.0.map(1), key)
    }
}

impl System for X0Bare {
    fn name(&self) -> String {
        let times = if self.own_times { "a time for each write" } else { "one time for all" };
        format!("{} without a session, {times}", named("x0-crdt"))
    }

    fn replica(&self) -> Result<Box<dyn Replica>> {
        X0.replica()
    }

    fn couple(&self, pairs: &[Pair]) -> Result<Box<dyn Couple>> {
        let here = map_of(pairs)?;
        let there = replica_of(&here)?;
        Ok(Box::new(Bare { here, there, own_times: self.own_times }))
    }

    fn handshake(&self, _: u64) -> Result<Option<usize>> {
        Ok(None)
    }
}

struct Bare {
    here: CausalMap,
    there: CausalMap,
    own_times: bool,
}

impl Couple for Bare {
    fn put(&mut self, pairs: &[Pair]) -> Result<()> {
        put(&mut self.here, pairs, self.own_times)
    }

    fn sync(&mut self) -> Result<usize> {
        let since = self.there.version();
        let mut request = Vec::new();
        since.encode(&mut request);
        let delta = self.here.delta(&since)?.encode(&since);
        self.there.join(&MapDelta::decode(&delta, &since)?)?;
        // Both have seen it: what a session's members would find out in their own time.
        self.here.collect_tombstones(&self.there.version());
        Ok(request.len() + delta.len())
    }

    fn there(&self, key: &str) -> Option<u32> {
        value_of(&self.there, key)
    }
}
