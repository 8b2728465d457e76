//! Steering: packets that the routes send through one interface leave through another, from one packet to the
//! next.

use std::io;

use crate::attach::{AttachError, Held, Point, attach_tc, index_of};
use crate::filter::Mac;
use crate::object;
use crate::program::{LoadError, Loaded, Recipe};
use crate::sys::Map;

/// The maximum number of paths of all steered interfaces together.
pub const PATHS_MAX: u32 = 256;
/// The maximum number of steered interfaces.
pub const STEERED_MAX: usize = 64;

/// An interface to leave through, and the Ethernet addresses that frames need there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteerPath {
    /// The interface to leave through, in this network namespace.
    pub interface: String,
    /// The addresses to write into each frame; `None` keeps them. The path through the steered interface
    /// itself needs none.
    pub addresses: Option<PathAddresses>,
}

/// Ethernet addresses of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathAddresses {
    /// The next hop's address on that link.
    pub target: Mac,
    /// The address of this node on that link.
    pub source: Mac,
}

/// The number of a path that was added to a [`Steering`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId(u32);

/// The packets of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// The failure to change steering. Packets keep their path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SteerError {
    /// The interface could not be found or attached to.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Too many paths or interfaces.
    #[error(
        "steering holds at most {PATHS_MAX} paths and {STEERED_MAX} interfaces: release one, or load another Steering"
    )]
    Full,
    /// The path leads to an interface that is itself steered: frames could loop.
    #[error(
        "`{0}` is itself steered, so that frames could loop: choose an interface that is not steered, or release `{0}`"
    )]
    Circle(String),
    /// No path has this number.
    #[error("this path id belongs to no path of this `Steering`: use an id that its `add_path` returned")]
    NoPath,
    /// The interface is not steered.
    #[error("`{0}` is not steered: call `Steering::steer` first")]
    NotSteered(String),
    /// The kernel refused the change.
    #[error("the kernel refused to read or change a path; packets keep their path")]
    System(#[from] io::Error),
}

/// The steering program: attached at TC egress of each interface it steers.
///
/// Failover without a change of routes: routes name one interface, and the program sends its frames through
/// the chosen path. A flip is one store of four bytes; the next packet takes the new path. Packets in the
/// queues of the old link are not moved.
///
/// The kernel resolves neighbours on the interface that the route names. When that link is cut, its neighbour
/// entries expire: use a permanent entry, or steer a point-to-point or dummy interface. Frames of other
/// protocols than IP (ARP among them) are steered too.
#[derive(Debug)]
pub struct Steering {
    // Declared before `loaded`, so that attachments are dropped before their program.
    steered: Vec<(String, u32, Held)>,
    loaded: Loaded,
    paths: Map,
    chosen: Map,
    counters: Map,
    /// The interface index of each path.
    known: Vec<u32>,
}

impl Steering {
    /// Loads the program. Nothing is steered yet.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load() -> Result<Self, LoadError> {
        let mut loaded = Loaded::new(object::STEER, &Recipe::default())?;
        loaded.classifier("x0_steer")?;
        let (paths, chosen, counters) = (loaded.map("paths")?, loaded.map("chosen")?, loaded.map("steered")?);
        Ok(Self { steered: Vec::new(), loaded, paths, chosen, counters, known: Vec::new() })
    }

    /// Adds a path. It is not used until [`steer`](Self::steer) or [`flip`](Self::flip) names it.
    ///
    /// # Errors
    /// [`SteerError`].
    pub fn add_path(&mut self, path: &SteerPath) -> Result<PathId, SteerError> {
        let index = index_of(&path.interface)?;
        let number = u32::try_from(self.known.len()).map_err(|_| SteerError::Full)?;
        if number >= PATHS_MAX {
            return Err(SteerError::Full);
        }
        let mut value = [0; 24];
        value[..4].copy_from_slice(&index.to_ne_bytes());
        if let Some(addresses) = &path.addresses {
            value[4..8].copy_from_slice(&1u32.to_ne_bytes());
            value[8..14].copy_from_slice(&addresses.target);
            value[14..20].copy_from_slice(&addresses.source);
        }
        self.paths.update(&number.to_ne_bytes(), &value)?;
        self.known.push(index);
        Ok(PathId(number))
    }

    /// Starts to steer the packets that leave through `interface`, along `path` at first.
    ///
    /// # Errors
    /// [`SteerError`].
    pub fn steer(&mut self, interface: &str, path: PathId) -> Result<(), SteerError> {
        let index = index_of(interface)?;
        if self.steered.iter().any(|(_, steered, _)| *steered == index) {
            return Err(AttachError::Already(interface.to_owned()).into());
        }
        if self.steered.len() >= STEERED_MAX {
            return Err(SteerError::Full);
        }
        self.check(index, path)?;
        // No chosen path may lead through an interface that is steered from now on.
        for (name, other, _) in &self.steered {
            if self.choice(*other)?.and_then(|path| self.known.get(path as usize)) == Some(&index) {
                return Err(SteerError::Circle(name.clone()));
            }
        }
        self.chosen.update(&index.to_ne_bytes(), &path.0.to_ne_bytes())?;
        let outcome = self
            .loaded
            .classifier("x0_steer")
            .map_err(AttachError::from)
            .and_then(|program| attach_tc(program, interface, Point::Egress, false));
        match outcome {
            Ok(link) => {
                self.steered.push((interface.to_owned(), index, Held::Tc(link)));
                Ok(())
            }
            Err(error) => {
                self.chosen.delete(&index.to_ne_bytes())?;
                Err(error.into())
            }
        }
    }

    fn check(&self, interface: u32, path: PathId) -> Result<(), SteerError> {
        let target = *self.known.get(path.0 as usize).ok_or(SteerError::NoPath)?;
        match self.steered.iter().find(|(_, steered, _)| *steered == target && target != interface) {
            Some((name, ..)) => Err(SteerError::Circle(name.clone())),
            None => Ok(()),
        }
    }

    fn choice(&self, interface: u32) -> io::Result<Option<u32>> {
        let value = self.chosen.lookup(&interface.to_ne_bytes())?;
        Ok(value.and_then(|value| value.try_into().ok()).map(u32::from_ne_bytes))
    }

    fn steered_index(&self, interface: &str) -> Result<u32, SteerError> {
        let found = self.steered.iter().find(|(name, ..)| name == interface);
        found.map(|(_, index, _)| *index).ok_or_else(|| SteerError::NotSteered(interface.to_owned()))
    }

    /// Sends the packets that leave through `interface` along another path, from the next packet on.
    ///
    /// # Errors
    /// [`SteerError`].
    pub fn flip(&mut self, interface: &str, path: PathId) -> Result<(), SteerError> {
        let index = self.steered_index(interface)?;
        self.check(index, path)?;
        Ok(self.chosen.update(&index.to_ne_bytes(), &path.0.to_ne_bytes())?)
    }

    /// The path in use.
    ///
    /// # Errors
    /// [`SteerError`].
    pub fn path_of(&self, interface: &str) -> Result<PathId, SteerError> {
        let index = self.steered_index(interface)?;
        self.choice(index)?.map(PathId).ok_or(SteerError::NoPath)
    }

    /// Ends the steering of an interface, so that its packets leave through it again.
    ///
    /// # Errors
    /// [`SteerError::NotSteered`].
    pub fn release(&mut self, interface: &str) -> Result<(), SteerError> {
        let index = self.steered_index(interface)?;
        self.steered.retain(|(_, steered, _)| *steered != index);
        self.chosen.delete(&index.to_ne_bytes())?;
        Ok(())
    }

    /// The packets that took a path so far, including one through the steered interface itself.
    ///
    /// # Errors
    /// [`SteerError`].
    pub fn counters(&self, path: PathId) -> Result<PathCounters, SteerError> {
        let value = self.counters.lookup(&path.0.to_ne_bytes())?.ok_or(SteerError::NoPath)?;
        let [packets, bytes] = crate::counters::sum_words(&value, self.counters.stride(), 0);
        Ok(PathCounters { packets, bytes })
    }
}
