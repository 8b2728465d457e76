//! The compared systems.

mod automerge;
mod crdts;
mod loro;
mod net;
mod x0;
mod yrs;

use anyhow::{Result, bail};

pub(super) use net::{Link, Net};
pub(super) use x0::{HASH_KEY, map_of, replica_of};

/// A key and its value.
pub(super) type Pair = (String, u32);

/// One replica of a map.
pub(super) trait Replica {
    /// Writes over what is there, in one transaction where the system has them.
    fn put(&mut self, pairs: &[Pair]) -> Result<()>;
    fn remove(&mut self, keys: &[String]) -> Result<()>;
    /// Drops what the system lets one drop when every replica has seen everything.
    fn settle(&mut self) {}
    /// The shortest bytes from which the system can go on with what is in it now.
    fn save(&mut self) -> Result<Vec<u8>>;
    fn len(&self) -> usize;
}

/// Two replicas in sync, of which the first is written to.
pub(super) trait Couple {
    fn put(&mut self, pairs: &[Pair]) -> Result<()>;
    /// Brings the second up to the first. Gives the bytes that crossed the wire, in both directions.
    fn sync(&mut self) -> Result<usize>;
    /// The value of the second replica at a key.
    fn there(&self, key: &str) -> Option<u32>;
    /// Removes keys from the first replica, in one transaction where the system has them.
    fn remove(&mut self, _keys: &[String]) -> Result<()> {
        bail!("not implemented for this system")
    }
    /// Overwrites in the first replica by as many other writers as there are lists. Each of them knows what
    /// is there now, and writes its list.
    fn put_by(&mut self, _lists: &[&[Pair]]) -> Result<()> {
        bail!("not implemented for this system")
    }
    /// Replaces the second replica by an empty one.
    fn empty(&mut self) -> Result<()> {
        bail!("not implemented for this system")
    }
    /// Makes the first replica forget all history, and both whatever shows what the other one knows. `false`:
    /// the system cannot.
    fn forget(&mut self) -> bool {
        false
    }
    /// The longest call of a session since the last call of this, in seconds of processor time.
    fn longest_call(&mut self) -> Option<f64> {
        None
    }
}

/// A system to compare.
pub(super) trait System {
    /// With the version, as Cargo.lock has it.
    fn name(&self) -> String;
    fn replica(&self) -> Result<Box<dyn Replica>>;
    /// Two replicas that hold `pairs`.
    fn couple(&self, pairs: &[Pair]) -> Result<Box<dyn Couple>>;
    /// Bytes, in both directions, for two replicas to find that they hold the same, when `writers` have
    /// written and gone. None: the system has no way but to send its state.
    fn handshake(&self, writers: u64) -> Result<Option<usize>>;
}

/// x0 first, then its peers.
pub(super) fn all() -> Vec<Box<dyn System>> {
    vec![
        Box::new(x0::X0),
        Box::new(automerge::Automerge),
        Box::new(yrs::Yrs),
        Box::new(loro::Loro),
        Box::new(crdts::Crdts),
    ]
}

/// The systems that can make differences.
pub(super) fn with_differences() -> Vec<Box<dyn System>> {
    vec![Box::new(x0::X0), Box::new(automerge::Automerge), Box::new(yrs::Yrs), Box::new(loro::Loro)]
}

/// The systems that can be compared on a million keys: automerge takes minutes for each turn.
pub(super) fn of_a_million() -> Vec<Box<dyn System>> {
    vec![Box::new(x0::X0), Box::new(yrs::Yrs), Box::new(loro::Loro)]
}

pub(super) use x0::X0Bare;

/// `name version`, from the lock file this was built with.
pub(super) fn named(name: &str) -> String {
    let lock = include_str!("../../../../../Cargo.lock");
    let found = lock.split("[[package]]").find_map(|package| {
        let rest = package.trim_start().strip_prefix(&format!("name = \"{name}\"\n"))?;
        rest.strip_prefix("version = \"")?.split('"').next()
    });
    match found {
        Some(version) => format!("{name} {version}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(keys: std::ops::Range<u32>, add: u32) -> Vec<Pair> {
        keys.map(|key| (format!("key-{key:06}"), key + add)).collect()
    }

    #[test]
    fn every_system_brings_its_second_replica_up_to_the_first() {
        let mut systems = all();
        systems.push(Box::new(X0Bare { own_times: true }));
        for system in systems {
            let mut couple = system.couple(&pairs(0..500, 0)).unwrap();
            assert_eq!(couple.there("key-000007"), Some(7), "{}", system.name());
            for round in 1..4 {
                couple.put(&pairs(100..200, round)).unwrap();
                let bytes = couple.sync().unwrap();
                // Whatever it does, a hundred values are more than a hundred bytes.
                assert!(bytes > 100, "{}: {bytes}", system.name());
                assert_eq!(couple.there("key-000150"), Some(150 + round), "{}", system.name());
                assert_eq!(couple.there("key-000007"), Some(7), "{}", system.name());
            }
        }
    }

    #[test]
    fn replicas_hold_what_was_put_and_not_removed() {
        for system in all() {
            let mut replica = system.replica().unwrap();
            replica.put(&pairs(0..300, 0)).unwrap();
            replica.put(&pairs(0..300, 9)).unwrap();
            let keys: Vec<String> = pairs(0..200, 0).into_iter().map(|(key, _)| key).collect();
            replica.remove(&keys).unwrap();
            replica.settle();
            assert_eq!(replica.len(), 100, "{}", system.name());
            assert!(replica.save().unwrap().len() > 400, "{}", system.name());
        }
    }

    #[test]
    fn removals_other_writers_and_empty_replicas_reach_the_second() {
        for system in with_differences() {
            let mut couple = system.couple(&pairs(0..500, 0)).unwrap();
            couple.remove(&["key-000007".to_owned()]).unwrap();
            let lists = [pairs(100..150, 1), pairs(150..200, 1)];
            couple.put_by(&[&lists[0], &lists[1]]).unwrap();
            couple.sync().unwrap();
            let found = ["key-000007", "key-000100", "key-000199"].map(|key| couple.there(key));
            assert_eq!(found, [None, Some(101), Some(200)], "{}", system.name());
            couple.empty().unwrap();
            assert_eq!(couple.there("key-000100"), None, "{}", system.name());
            assert!(couple.sync().unwrap() > 1_000, "{}", system.name());
            assert_eq!(couple.there("key-000100"), Some(101), "{}", system.name());
            couple.put(&pairs(300..350, 2)).unwrap();
            couple.forget();
            couple.sync().unwrap();
            assert_eq!(couple.there("key-000300"), Some(302), "{}", system.name());
        }
    }

    #[test]
    fn versions_are_known() {
        for system in all() {
            assert!(system.name().split_once(' ').is_some(), "{}", system.name());
        }
    }
}
