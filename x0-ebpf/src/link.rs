//! The link program: loaded once, attached to any number of interfaces; its counters and its filter.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::SchedClassifierLink;
use aya::programs::xdp::XdpLink;

use crate::attach::{
    AttachError, AttachMode, AttachPolicy, Attached, Held, Point, attach_tc, attach_xdp, index_of,
};
use crate::control::{Control, SLOTS};
use crate::counters::{InterfaceCounters, Peer, PeerBy, PeerTraffic, Peers, WAYS};
use crate::filter::{Filter, FilterError, FilterMaps, FilterState, Front};
use crate::flows::{self, Flow, FlowCounters};
use crate::object;
use crate::program::{Constant, LoadError, Loaded, Recipe, bounded, may_subtract_pointers, os_error};
use crate::rate::Rate;
use crate::sys;

/// The tables of the link program and their sizes, which are fixed once it is loaded.
///
/// ```
/// use x0_ebpf::{LinkOptions, PeerBy};
///
/// let options = LinkOptions::default().peers_max(256).peer_by(PeerBy::Mac);
/// assert_eq!(options.peers_max, 256);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkOptions {
    /// Peers in the table, 64..=1_048_576; a new peer replaces the least recently seen one. 96 bytes each,
    /// plus 48 per possible CPU; a cache of at most 4096 of them takes another 82 bytes per entry and CPU.
    pub peers_max: u32,
    /// The address that identifies a peer.
    pub peer_by: PeerBy,
    /// Flows in the table, 0..=1_048_576; 0 omits the table. About 100 bytes each, plus 32 per possible CPU.
    /// Needs CAP_PERFMON besides CAP_BPF and CAP_NET_ADMIN.
    pub flows_max: u32,
    /// Network rules per address family, 0..=1_048_576; 0 omits the filter. About 140 bytes each when used,
    /// and 17 bytes each plus 16 per possible CPU from the start.
    pub rules_max: u32,
    /// Rules for hardware addresses, 1..=65_536.
    pub macs_max: u32,
    /// Rules with a rate, 1..=65_536. 16 bytes each.
    pub limits_max: u32,
    /// Whether [`LinkProgram::set_peer_rate`] can be used. It costs time per packet even while no rate is
    /// set.
    pub peer_rate: bool,
    /// The seed of the hashes in the kernel. A secret seed prevents senders from aiming at one bucket.
    /// `None`: random.
    pub seed: Option<u64>,
    /// A folder on bpffs. With it, maps and attachments outlive this process, and the next
    /// [`LinkProgram::load`] with the same folder takes them over without losing a packet or a count.
    pub pin: Option<PathBuf>,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            peers_max: 1024,
            peer_by: PeerBy::Address,
            flows_max: 0,
            rules_max: 1024,
            macs_max: 256,
            limits_max: 64,
            peer_rate: false,
            seed: None,
            pin: None,
        }
    }
}

impl LinkOptions {
    /// Sets [`peers_max`](Self::peers_max).
    #[must_use]
    pub fn peers_max(mut self, peers_max: u32) -> Self {
        self.peers_max = peers_max;
        self
    }

    /// Sets [`peer_by`](Self::peer_by).
    #[must_use]
    pub fn peer_by(mut self, peer_by: PeerBy) -> Self {
        self.peer_by = peer_by;
        self
    }

    /// Sets [`flows_max`](Self::flows_max).
    #[must_use]
    pub fn flows_max(mut self, flows_max: u32) -> Self {
        self.flows_max = flows_max;
        self
    }

    /// Sets [`rules_max`](Self::rules_max).
    #[must_use]
    pub fn rules_max(mut self, rules_max: u32) -> Self {
        self.rules_max = rules_max;
        self
    }

    /// Sets [`macs_max`](Self::macs_max).
    #[must_use]
    pub fn macs_max(mut self, macs_max: u32) -> Self {
        self.macs_max = macs_max;
        self
    }

    /// Sets [`limits_max`](Self::limits_max).
    #[must_use]
    pub fn limits_max(mut self, limits_max: u32) -> Self {
        self.limits_max = limits_max;
        self
    }

    /// Sets [`peer_rate`](Self::peer_rate).
    #[must_use]
    pub fn peer_rate(mut self, peer_rate: bool) -> Self {
        self.peer_rate = peer_rate;
        self
    }

    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets [`pin`](Self::pin).
    #[must_use]
    pub fn pin(mut self, pin: impl Into<PathBuf>) -> Self {
        self.pin = Some(pin.into());
        self
    }
}

/// The failure to read counters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CountersError {
    /// The program is not attached there.
    #[error("the link program is not attached to `{0}` at this point: attach it there first")]
    NotAttached(String),
    /// The program was loaded without this table.
    #[error("the link program was loaded without {0}: change its LinkOptions")]
    Absent(&'static str),
    /// The kernel refused the read.
    #[error("the kernel refused to read the counters; read again")]
    System(#[from] io::Error),
}

const PINNED: &[&str] = &[
    "control",
    "interfaces",
    "peers",
    "peer_cache",
    "peer_buckets",
    "flows",
    "rules_v4",
    "rules_v6",
    "rules_mac",
    "rule_hits",
    "buckets",
    "front_v4",
    "front_v6",
];

/// The link program in the kernel, with its counters and filter. Dropping it detaches every attachment that
/// is not pinned.
#[derive(Debug)]
pub struct LinkProgram {
    // Declared before `loaded`, so that attachments are dropped before their program.
    attachments: Vec<(Attached, Held)>,
    loaded: Loaded,
    options: LinkOptions,
    control: Control,
    interfaces: sys::Map,
    peers: Peers,
    flows: sys::Map,
    filter: Option<FilterState>,
}

fn system(what: &str, source: io::Error) -> LoadError {
    if source.raw_os_error() == Some(libc::EPERM) {
        return LoadError::Denied;
    }
    LoadError::System { what: what.to_owned(), source }
}

impl LinkProgram {
    /// Loads the program, or adopts the maps and attachments that an earlier process pinned in `options.pin`.
    ///
    /// Adoption replaces the program of each pinned attachment in one step: every packet meets the old
    /// program or the new one. Counters and rules continue. Attachments whose interface no longer exists are
    /// removed.
    ///
    /// # Errors
    /// [`LoadError`]. Nothing was attached; pinned attachments continue unchanged.
    pub fn load(options: LinkOptions) -> Result<Self, LoadError> {
        let sizes = Sizes::of(&options)?;
        // Ports follow headers of variable length; the verifier allows the pointer arithmetic only with
        // CAP_PERFMON.
        if options.flows_max > 0 && !may_subtract_pointers() {
            return Err(LoadError::Perfmon { option: "flows_max" });
        }
        let pinned_seed = match &options.pin {
            Some(folder) => prepare_folder(folder)?,
            None => None,
        };
        let seed = pinned_seed.unwrap_or_else(|| options.seed.unwrap_or_else(random_seed));
        let recipe = Recipe {
            constants: vec![
                (
                    "peer_by",
                    Constant::U32(match options.peer_by {
                        PeerBy::Nothing => 0,
                        PeerBy::Address => 1,
                        PeerBy::Mac => 2,
                    }),
                ),
                ("with_rules", Constant::U32((options.rules_max > 0).into())),
                ("with_peer_rate", Constant::U32(options.peer_rate.into())),
                ("with_flows", Constant::U32((options.flows_max > 0).into())),
                ("with_length_helper", Constant::U32((!may_subtract_pointers()).into())),
                ("peer_cache_shift", Constant::U32(64 - sizes.cache.trailing_zeros())),
                ("peer_buckets_shift", Constant::U32(64 - sizes.peer_buckets.trailing_zeros())),
                ("front_shift", Constant::U32(Front::shift_of(options.rules_max))),
                ("front_seed", Constant::U64(seed)),
            ],
            entries_max: sizes.entries_max(),
            pinned: options.pin.clone().map(|folder| (folder, PINNED)),
        };
        let loaded = Loaded::new(object::LINK, &recipe)?;
        let mut control = Control::open(loaded.map("control")?)
            .map_err(|error| system("read the settings of the link program", error))?
            .ok_or_else(|| LoadError::PinMismatch {
                folder: options.pin.clone().unwrap_or_default(),
                map: "control".to_owned(),
                cause: "another version of this crate made it".to_owned(),
            })?;
        if pinned_seed.is_none() {
            control.begin(seed).map_err(|error| system("write the settings of the link program", error))?;
        }
        let filter = if options.rules_max > 0 {
            let maps = FilterMaps {
                v4: loaded.map("rules_v4")?,
                v6: loaded.map("rules_v6")?,
                macs: loaded.map("rules_mac")?,
                hits: loaded.map("rule_hits")?,
                buckets: loaded.map("buckets")?,
                front_v4: loaded.map("front_v4")?,
                front_v6: loaded.map("front_v6")?,
            };
            Some(
                FilterState::open(maps, seed, options.rules_max, options.macs_max)
                    .map_err(|error| system("read the filter", error))?,
            )
        } else {
            None
        };
        let peers =
            Peers { table: loaded.map("peers")?, cache: loaded.map("peer_cache")?, by: options.peer_by };
        let mut program = Self {
            attachments: Vec::new(),
            interfaces: loaded.map("interfaces")?,
            flows: loaded.map("flows")?,
            loaded,
            control,
            peers,
            filter,
            options,
        };
        // Loaded here rather than at the first attachment, so that a refusal is a LoadError of this call.
        program.loaded.xdp("x0_link")?;
        program.loaded.classifier("x0_ingress")?;
        program.loaded.classifier("x0_egress")?;
        program.adopt()?;
        Ok(program)
    }

    /// Replaces the program of every attachment that an earlier process pinned.
    fn adopt(&mut self) -> Result<(), LoadError> {
        let Some(folder) = self.options.pin.clone() else { return Ok(()) };
        let entries = std::fs::read_dir(&folder)
            .map_err(|source| LoadError::PinFolder { folder: folder.clone(), source })?;
        for entry in entries {
            let entry = entry.map_err(|source| LoadError::PinFolder { folder: folder.clone(), source })?;
            let Some(name) = PinName::parse(&entry.file_name().to_string_lossy()) else { continue };
            match self.adopt_one(&entry.path(), name) {
                Ok(Some(held)) => self.attachments.push(held),
                Ok(None) => {
                    // The interface no longer exists, and neither does the attachment: only the file remains.
                    let _ = std::fs::remove_file(entry.path());
                    self.control.free_slot(name.index);
                }
                Err(source) => {
                    return Err(LoadError::System {
                        what: format!("adopt the pinned attachment {}", entry.path().display()),
                        source,
                    });
                }
            }
        }
        self.control.write().map_err(|error| system("write the settings of the link program", error))
    }

    fn adopt_one(&mut self, path: &Path, name: PinName) -> io::Result<Option<(Attached, Held)>> {
        let other = |error: &(dyn std::error::Error + 'static)| {
            os_error(error).map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
        };
        let link: FdLink = match PinnedLink::from_pin(path) {
            Ok(link) => link.into(),
            Err(LinkError::SyscallError(error)) => return Err(error.io_error),
            Err(error) => return Err(other(&error)),
        };
        let outcome = match name.point {
            Point::Xdp => {
                let link = XdpLink::try_from(link).map_err(|error| other(&error))?;
                let program = self.loaded.xdp("x0_link").map_err(|error| other(&error))?;
                program.attach_to_link(link).and_then(|id| program.take_link(id)).map(Held::Xdp)
            }
            point => {
                let link = SchedClassifierLink::try_from(link).map_err(|error| other(&error))?;
                let program = self.loaded.classifier(program_name(point)).map_err(|error| other(&error))?;
                program.attach_to_link(link).and_then(|id| program.take_link(id)).map(Held::Tc)
            }
        };
        let held = match outcome {
            Ok(held) => held,
            Err(error) if matches!(os_error(&error), Some(libc::ENOLINK | libc::ENODEV)) => return Ok(None),
            Err(error) => return Err(other(&error)),
        };
        if self.control.take_slot(name.index).is_none() {
            return Ok(None);
        }
        let attached = Attached {
            interface: sys::interface_name(name.index).unwrap_or_else(|_| format!("#{}", name.index)),
            index: name.index,
            point: name.point,
            mode: name.mode,
            fallback: None,
            pinned: true,
            adopted: true,
        };
        Ok(Some((attached, held)))
    }

    /// Attaches at XDP, which counts and filters received packets.
    ///
    /// # Errors
    /// [`AttachError`]. The interface is as it was.
    pub fn attach_xdp(&mut self, interface: &str, policy: AttachPolicy) -> Result<Attached, AttachError> {
        let (index, fresh) = self.admit(interface, Point::Xdp)?;
        let outcome = self
            .loaded
            .xdp("x0_link")
            .map_err(AttachError::from)
            .and_then(|program| attach_xdp(program, interface, index, policy));
        match outcome {
            Ok((link, mode, fallback)) => {
                self.finish(interface, index, Point::Xdp, Some(mode), fallback, Held::Xdp(link))
            }
            Err(error) => {
                self.withdraw(index, fresh);
                Err(error)
            }
        }
    }

    /// Attaches at TC: ingress counts and filters received packets, egress counts sent ones.
    ///
    /// [`Point::Xdp`] is not a point of TC and is treated as [`Point::Ingress`]. Before Linux 6.6 a TC
    /// attachment cannot be pinned: it ends with this process, and [`Attached::pinned`] is false.
    ///
    /// # Errors
    /// [`AttachError`]. The interface is as it was.
    pub fn attach_tc(&mut self, interface: &str, point: Point) -> Result<Attached, AttachError> {
        let point = if point == Point::Xdp { Point::Ingress } else { point };
        let (index, fresh) = self.admit(interface, point)?;
        let outcome = self
            .loaded
            .classifier(program_name(point))
            .map_err(AttachError::from)
            .and_then(|program| attach_tc(program, interface, point, false));
        match outcome {
            Ok(link) => self.finish(interface, index, point, None, None, Held::Tc(link)),
            Err(error) => {
                self.withdraw(index, fresh);
                Err(error)
            }
        }
    }

    /// Gives the interface a slot with fresh counters, before the first packet can meet the program.
    fn admit(&mut self, interface: &str, point: Point) -> Result<(u32, bool), AttachError> {
        let index = index_of(interface)?;
        if self.attachments.iter().any(|(held, _)| held.index == index && held.point == point) {
            return Err(AttachError::Already(interface.to_owned()));
        }
        let (slot, fresh) = self.control.take_slot(index).ok_or(AttachError::Slots { index })?;
        let fail =
            |source| AttachError::System { what: "clear the counters of the interface".to_owned(), source };
        if fresh {
            let zeros = vec![0; self.interfaces.value_len()];
            for point in Point::ALL {
                self.interfaces.update(&place(slot, point).to_ne_bytes(), &zeros).map_err(fail)?;
            }
            self.control.write().map_err(fail)?;
        }
        Ok((index, fresh))
    }

    fn withdraw(&mut self, index: u32, fresh: bool) {
        if fresh {
            self.control.free_slot(index);
            // If this fails, the slot stays reserved and unused; the error is not worth reporting.
            let _ = self.control.write();
        }
    }

    fn finish(
        &mut self,
        interface: &str,
        index: u32,
        point: Point,
        mode: Option<AttachMode>,
        fallback: Option<crate::attach::Fallback>,
        held: Held,
    ) -> Result<Attached, AttachError> {
        let (held, pinned) = match &self.options.pin {
            Some(folder) => held.pin(interface, &folder.join(PinName { point, mode, index }.to_string()))?,
            None => (held, false),
        };
        let attached = Attached {
            interface: interface.to_owned(),
            index,
            point,
            mode,
            fallback,
            pinned,
            adopted: false,
        };
        self.attachments.push((attached.clone(), held));
        Ok(attached)
    }

    /// Every live attachment, adopted ones first.
    pub fn attachments(&self) -> impl Iterator<Item = &Attached> {
        self.attachments.iter().map(|(attached, _)| attached)
    }

    /// Ends an attachment, pinned or not. Returns whether there was one. Its counters can no longer be read.
    ///
    /// # Errors
    /// [`AttachError::System`]: the pin could not be removed, and the attachment continues.
    pub fn detach(&mut self, interface: &str, point: Point) -> Result<bool, AttachError> {
        let Some(at) = self
            .attachments
            .iter()
            .position(|(attached, _)| attached.interface == interface && attached.point == point)
        else {
            return Ok(false);
        };
        let fail = |source| AttachError::System {
            what: "remove a pin; the attachment continues".to_owned(),
            source,
        };
        let (attached, _) = &self.attachments[at];
        let index = attached.index;
        if let (true, Some(folder)) = (attached.pinned, &self.options.pin) {
            let name = PinName { point, mode: attached.mode, index }.to_string();
            std::fs::remove_file(folder.join(name)).map_err(fail)?;
        }
        drop(self.attachments.remove(at));
        if !self.attachments.iter().any(|(other, _)| other.index == index) {
            self.control.free_slot(index);
            self.control.write().map_err(fail)?;
        }
        Ok(true)
    }

    /// Detaches everything and removes every pin, so that the kernel frees the program.
    ///
    /// # Errors
    /// [`AttachError::System`]: a pin could not be removed; the attachments after it continue.
    pub fn unload(mut self) -> Result<(), AttachError> {
        let all: Vec<_> =
            self.attachments().map(|attached| (attached.interface.clone(), attached.point)).collect();
        for (interface, point) in all {
            self.detach(&interface, point)?;
        }
        if let Some(folder) = &self.options.pin {
            let fail = |source| AttachError::System {
                what: "remove a pin; the attachment continues".to_owned(),
                source,
            };
            for name in PINNED {
                std::fs::remove_file(folder.join(name)).map_err(fail)?;
            }
            std::fs::remove_dir(folder).map_err(fail)?;
        }
        Ok(())
    }

    /// The counters of one attachment.
    ///
    /// # Errors
    /// [`CountersError`].
    pub fn interface(&self, interface: &str, point: Point) -> Result<InterfaceCounters, CountersError> {
        let attached = self
            .attachments()
            .find(|attached| attached.interface == interface && attached.point == point)
            .ok_or_else(|| CountersError::NotAttached(interface.to_owned()))?;
        let slot = self.control.slot_of(attached.index).unwrap_or(SLOTS);
        let value = self.interfaces.lookup(&place(slot, point).to_ne_bytes())?.unwrap_or_default();
        Ok(InterfaceCounters::sum(&value, self.interfaces.stride()))
    }

    /// Every peer in the table, summed over CPUs, read by batches.
    ///
    /// # Errors
    /// [`CountersError`].
    pub fn peers(&self) -> Result<BTreeMap<Peer, PeerTraffic>, CountersError> {
        if self.options.peer_by == PeerBy::Nothing {
            return Err(CountersError::Absent("peers (peer_by)"));
        }
        Ok(self.peers.snapshot()?)
    }

    /// Every flow in the table, summed over CPUs, read by batches.
    ///
    /// # Errors
    /// [`CountersError`].
    pub fn flows(&self) -> Result<BTreeMap<Flow, FlowCounters>, CountersError> {
        if self.options.flows_max == 0 {
            return Err(CountersError::Absent("a flow table (flows_max)"));
        }
        Ok(flows::snapshot(&self.flows)?)
    }

    /// The filter of the program.
    ///
    /// # Errors
    /// [`FilterError::Absent`] if the program was loaded without a filter.
    pub fn filter(&mut self) -> Result<Filter<'_>, FilterError> {
        let state = self.filter.as_mut().ok_or(FilterError::Absent)?;
        Ok(Filter { state, control: &mut self.control })
    }

    /// Limits every peer to a rate of its own; `None` removes the limit. Needs [`LinkOptions::peer_rate`].
    ///
    /// A seeded hash maps peers to twice `peers_max` buckets; peers with the same bucket share one rate. A
    /// peer that must have a rate of its own gets a rule with [`Action::Limit`](crate::Action::Limit).
    ///
    /// # Errors
    /// [`FilterError`]: the rate is unchanged.
    pub fn set_peer_rate(&mut self, rate: Option<Rate>) -> Result<(), FilterError> {
        if !self.options.peer_rate {
            return Err(FilterError::Absent);
        }
        self.control.set_peer_rate(rate.as_ref());
        Ok(self.control.write()?)
    }

    /// The options that the program was loaded with.
    #[must_use]
    pub fn options(&self) -> &LinkOptions {
        &self.options
    }

    #[cfg(feature = "testing")]
    pub(crate) fn loaded(&mut self) -> &mut Loaded {
        &mut self.loaded
    }

    #[cfg(feature = "testing")]
    pub(crate) fn parts(&mut self) -> (&mut Control, &sys::Map, &Peers) {
        (&mut self.control, &self.interfaces, &self.peers)
    }
}

fn program_name(point: Point) -> &'static str {
    match point {
        Point::Xdp => "x0_link",
        Point::Ingress => "x0_ingress",
        Point::Egress => "x0_egress",
    }
}

/// The index into `interfaces` of a slot at a point.
pub(crate) fn place(slot: u32, point: Point) -> u32 {
    slot * 4 + point.number()
}

fn random_seed() -> u64 {
    // The standard library seeds its hash maps from the system; zero means "no seed yet" in the settings.
    std::hash::RandomState::new().build_hasher().finish() | 1
}

/// Creates the folder. Returns the seed that an earlier process stored there, if any.
fn prepare_folder(folder: &Path) -> Result<Option<u64>, LoadError> {
    let fail = |source| LoadError::PinFolder { folder: folder.to_path_buf(), source };
    std::fs::create_dir_all(folder).map_err(fail)?;
    let control = match sys::object_get(&folder.join("control")) {
        Ok(fd) => sys::Map::new(fd).and_then(Control::open).map_err(fail)?,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    match control {
        Some(control) => Ok(Some(control.seed()).filter(|&seed| seed != 0)),
        None => Err(LoadError::PinMismatch {
            folder: folder.to_path_buf(),
            map: "control".to_owned(),
            cause: "another version of this crate made it".to_owned(),
        }),
    }
}

/// The sizes of the maps, computed from the options.
struct Sizes {
    peers: u32,
    cache: u32,
    peer_buckets: u32,
    flows: u32,
    rules: u32,
    macs: u32,
    hits: u32,
    limits: u32,
    front: u32,
}

impl Sizes {
    fn of(options: &LinkOptions) -> Result<Self, LoadError> {
        const MILLION: u32 = 1 << 20;
        let peers = bounded("peers_max", options.peers_max, 64, MILLION)?;
        let flows = bounded("flows_max", options.flows_max, 0, MILLION)?;
        let rules = bounded("rules_max", options.rules_max, 0, MILLION)?;
        let macs = bounded("macs_max", options.macs_max, 1, 65_536)?;
        let limits = bounded("limits_max", options.limits_max, 1, 65_536)?;
        let with_peers = options.peer_by != PeerBy::Nothing;
        let ways = u32::try_from(WAYS).unwrap_or(u32::MAX);
        Ok(Self {
            peers: if with_peers { peers } else { 1 },
            cache: if with_peers { (peers / ways).next_power_of_two().clamp(16, 1024) } else { 2 },
            peer_buckets: if options.peer_rate { (peers * 2).next_power_of_two() } else { 2 },
            flows: flows.max(1),
            rules: rules.max(1),
            macs,
            limits,
            hits: if rules == 0 { limits + 1 } else { limits + 2 * rules + macs },
            front: Front::words_of(rules),
        })
    }

    fn entries_max(&self) -> Vec<(&'static str, u32)> {
        vec![
            ("peers", self.peers),
            ("peer_cache", self.cache),
            ("peer_buckets", self.peer_buckets),
            ("flows", self.flows),
            ("rules_v4", self.rules),
            ("rules_v6", self.rules),
            ("rules_mac", self.macs),
            ("rule_hits", self.hits),
            ("buckets", self.limits),
            ("front_v4", self.front),
            ("front_v6", self.front),
        ]
    }
}

/// The file name of a pinned attachment: `link-<point>-<mode>-<interface index>`.
#[derive(Clone, Copy)]
struct PinName {
    point: Point,
    mode: Option<AttachMode>,
    index: u32,
}

impl std::fmt::Display for PinName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = match self.mode {
            Some(AttachMode::Native) => "native",
            Some(AttachMode::Generic) => "generic",
            None => "tc",
        };
        write!(f, "link-{}-{mode}-{}", self.point.name(), self.index)
    }
}

impl PinName {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("link-")?.split('-');
        let point = parts.next()?;
        let point = Point::ALL.into_iter().find(|candidate| candidate.name() == point)?;
        let mode = match parts.next()? {
            "native" => Some(AttachMode::Native),
            "generic" => Some(AttachMode::Generic),
            "tc" => None,
            _ => return None,
        };
        let index = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { point, mode, index })
    }
}
