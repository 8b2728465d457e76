//! A ring of five network namespaces, joined by veth pairs: the gaps in a stream of probes after cuts of the
//! link that carries it, for x0-mesh, babeld with two intervals, and OSPF with BFD of BIRD and FRR; and how
//! often the path changes without a cut, on cores that are oversubscribed and under loss. Needs root, `nft`
//! and `ip`.
//!
//! A probe is sent each millisecond, to absolute deadlines, from the first node to the third one. The gap is
//! the longest run of missing probes. Before each cut the traffic crosses the victim link, in both
//! directions.

mod kernel;
mod overlay;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use x0_ebpf::testing::{Gap, Namespace, Prober, VethPair};

use super::Options;
use crate::case::{Case, Metric};

const NODES: usize = 5;
/// The positions of the prober, of the node that is probed, and of the link that is cut: from node 1 to 2.
const FROM: usize = 0;
const TO: usize = 2;
const VICTIM: usize = 1;
/// Cuts of the peers, which take seconds each.
const PEER_CUTS_MAX: usize = 30;
/// Generous: only a system that fails waits for it.
const LIMIT: Duration = Duration::from_secs(60);
/// The worker threads that oversubscribe each core.
const OVERSUBSCRIPTION: usize = 4;

const GAP: Metric = Metric { name: "gap, median", unit: "ms" };
const GAP_P99: Metric = Metric { name: "gap, 99 %", unit: "ms" };
const START: Metric = Metric { name: "a path after", unit: "ms" };
const CONTROL: Metric = Metric { name: "control payload of a node", unit: "B/s" };
const FALSE: Metric = Metric { name: "changes of the path", unit: "" };
const SYSTEMS: [&str; 5] = [
    "x0-mesh",
    "babeld, Hellos each 100 ms",
    "BIRD, OSPF with BFD 50 ms x 3",
    "babeld, Hellos each 20 ms",
    "FRR, OSPF with BFD 50 ms x 3",
];

/// The carrier of the probes.
trait System {
    /// Whether traffic in both directions crosses the victim link.
    fn is_settled(&mut self, rig: &Rig) -> Result<bool>;

    /// The socket or connection that sends the probes.
    fn sender(&mut self, rig: &Rig) -> Result<Box<dyn FnMut(u64) + Send>>;

    /// The number of the next probe that arrives, `None` at that time.
    fn receive(&mut self, until: Instant) -> Result<Option<u64>>;

    /// Bytes of control traffic so far, payloads of UDP or IP, of all nodes.
    fn control(&mut self, rig: &Rig) -> Result<u64>;
}

/// The namespaces, and the pair at position n, which joins the nodes n and n + 1.
struct Rig {
    namespaces: Vec<Namespace>,
    pairs: Vec<VethPair>,
}

/// A kind of cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Silent,
    OneWay,
    Down,
    Loss(u32),
}

const CUTS: [(&str, Cut); 4] = [
    ("silent cut", Cut::Silent),
    ("one-way cut", Cut::OneWay),
    ("link set down", Cut::Down),
    ("30 % loss", Cut::Loss(30)),
];

/// Runs a program in a namespace; its output.
fn run(namespace: &Namespace, arguments: &[&str]) -> Result<String> {
    let output = Command::new("nsenter")
        .arg(format!("--net={}", namespace.path().display()))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start nsenter (util-linux)")?;
    ensure!(output.status.success(), "`{}` failed", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Rig {
    fn new() -> Result<Rig> {
        let namespaces = (0..NODES)
            .map(|_| Namespace::new().context("the ring needs root"))
            .collect::<Result<Vec<Namespace>>>()?;
        let mut pairs = Vec::new();
        for at in 0..NODES {
            let mut pair = VethPair::new(&namespaces[at], &namespaces[(at + 1) % NODES])?;
            pair.assign_addresses()?;
            pairs.push(pair);
        }
        Ok(Rig { namespaces, pairs })
    }

    /// The devices of a node: to the next one, and to the one before.
    fn devices(&self, at: usize) -> [&str; 2] {
        [self.pairs[at].left().name(), self.pairs[(at + NODES - 1) % NODES].right().name()]
    }

    /// Begins or ends a cut.
    fn cut(&mut self, cut: Cut, is_on: bool) -> Result<()> {
        let pair = &mut self.pairs[VICTIM];
        match (cut, is_on) {
            (Cut::Down, true) => pair.cut()?,
            (Cut::Down, false) => pair.mend()?,
            (Cut::Silent, true) => pair.set_loss(100, 100)?,
            // Probes arrive at the right end.
            (Cut::OneWay, true) => pair.set_loss(0, 100)?,
            (Cut::Loss(percent), true) => pair.set_loss(percent, percent)?,
            (_, false) => pair.set_loss(0, 0)?,
        }
        Ok(())
    }
}

/// The longest run of missing probes from `first` on.
fn gap(system: &mut dyn System, prober: &Prober, first: u64, time: Duration) -> Result<u64> {
    let until = Instant::now() + time;
    let mut gap = Gap::after(first);
    while let Some(number) = system.receive(until)? {
        gap.arrived(number);
    }
    Ok(gap.longest(prober.sent()))
}

/// Takes the probes of some time.
fn pass(system: &mut dyn System, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while system.receive(until)?.is_some() {}
    Ok(())
}

fn settle(system: &mut dyn System, rig: &Rig) -> Result<()> {
    let begin = Instant::now();
    while !system.is_settled(rig)? {
        ensure!(begin.elapsed() < LIMIT, "the traffic does not cross the victim link after {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn start(system: usize, rig: &Rig) -> Result<Box<dyn System>> {
    match system {
        0 => overlay::start(rig),
        1 => kernel::babeld(rig, "0.1"),
        2 => kernel::bird(rig),
        3 => kernel::babeld(rig, "0.02"),
        _ => kernel::frr(rig),
    }
}

/// A system on a ring of its own, and how long it took until the first probe arrived.
fn ready(system: usize) -> Result<(Rig, Box<dyn System>, Prober, Duration)> {
    let rig = Rig::new()?;
    let begin = Instant::now();
    let mut system = start(system, &rig)?;
    let prober = Prober::start(system.sender(&rig)?);
    if system.receive(begin + LIMIT)?.is_none() {
        bail!("no probe arrives within {LIMIT:?}");
    }
    let took = begin.elapsed();
    Ok((rig, system, prober, took))
}

/// The cases whose name contains the text of the options.
pub(super) fn cases(options: &Options) -> Result<Vec<Case>> {
    let cuts = if options.quick { options.cuts.min(5) } else { options.cuts };
    let how = format!(
        "Five namespaces in a veth ring, a probe each ms over two hops, {cuts} cuts of the second link for x0-mesh, at \
         most {PEER_CUTS_MAX} for the others. \
         Control payload: beside the probes for x0-mesh, without probes for the others."
    );
    let systems = || SYSTEMS.map(str::to_owned).to_vec();
    let name = |what: &str| format!("ring: {what}");
    let mut cases: Vec<Case> =
        CUTS.iter().map(|(what, _)| Case::new("mesh", name(what), how.clone(), systems())).collect();
    let mut idle = Case::new("mesh", name("start and control traffic"), how, systems());
    let is_wanted = |what: &str| name(what).contains(&options.case);
    if CUTS.iter().any(|(what, _)| is_wanted(what)) || is_wanted("start and control traffic") {
        for (system, label) in SYSTEMS.iter().enumerate() {
            if let Err(error) = measure(system, cuts, &mut cases, &mut idle, &is_wanted) {
                let why = format!("{error:#}");
                eprintln!("{label}: {why}");
                cases.iter_mut().chain([&mut idle]).for_each(|case| case.miss(system, why.clone()));
            }
        }
        let worst = [Some(80.0), None, None, None];
        for (case, most) in cases.iter_mut().zip(worst) {
            if let Some(most) = most {
                let found = case.median(GAP, 0);
                case.aim(GAP.name, found, most, GAP.unit);
            }
            let found = case.median(GAP_P99, 0);
            case.aim(GAP_P99.name, found, 100.0, GAP_P99.unit);
        }
        let found = idle.median(START, 0);
        idle.aim(START.name, found, 550.0, START.unit);
        let found = idle.median(CONTROL, 0);
        idle.aim(CONTROL.name, found, 2350.0, CONTROL.unit);
    }
    let mut wanted: Vec<Case> =
        cases.into_iter().zip(CUTS).filter(|(_, (what, _))| is_wanted(what)).map(|(case, _)| case).collect();
    if is_wanted("start and control traffic") {
        wanted.push(idle);
    }
    for stress in STRESSES {
        if stress.name().contains(&options.case) {
            wanted.push(stressed(stress, options)?);
        }
    }
    Ok(wanted)
}

fn measure(
    number: usize,
    cuts: usize,
    cases: &mut [Case],
    idle: &mut Case,
    is_wanted: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let (mut rig, mut system, prober, took) = ready(number)?;
    idle.add(START, number, took.as_secs_f64() * 1e3);
    settle(&mut *system, &rig)?;
    // The effects of the start have passed.
    pass(&mut *system, Duration::from_secs(3))?;
    let is_overlay = number == 0;
    let prober = if is_overlay {
        Some(prober)
    } else {
        drop(prober);
        None
    };
    let (begin, before) = (Instant::now(), system.control(&rig)?);
    pass(&mut *system, Duration::from_secs(5))?;
    let bytes = system.control(&rig)? - before;
    idle.add(CONTROL, number, bytes as f64 / begin.elapsed().as_secs_f64() / NODES as f64);
    let prober = match prober {
        Some(prober) => prober,
        None => Prober::start(system.sender(&rig)?),
    };
    for ((what, cut), case) in CUTS.iter().zip(cases).filter(|((what, _), _)| is_wanted(what)) {
        let mut gaps = Vec::new();
        for turn in 0..if is_overlay { cuts } else { cuts.min(PEER_CUTS_MAX) } {
            settle(&mut *system, &rig)?;
            // Not in step with the clocks of the detection.
            pass(&mut *system, Duration::from_millis(300 + 7 * turn as u64))?;
            let control = gap(&mut *system, &prober, prober.sent() + 20, Duration::from_millis(100))?;
            ensure!(control < 50, "{control} probes are missing without a cut");
            let first = prober.sent();
            rig.cut(*cut, true)?;
            let time = if is_overlay { Duration::from_millis(700) } else { Duration::from_secs(5) };
            gaps.push(gap(&mut *system, &prober, first, time)?);
            rig.cut(*cut, false)?;
        }
        gaps.iter().for_each(|gap| case.add(GAP, number, *gap as f64));
        gaps.sort_unstable();
        let p99 = gaps[(gaps.len() * 99).div_ceil(100).max(1) - 1];
        case.add(GAP_P99, number, p99 as f64);
        eprintln!("{}, {what}: {gaps:?} ms", SYSTEMS[number]);
    }
    Ok(())
}

/// A load or a fault that must not change the path.
#[derive(Debug, Clone, Copy)]
enum Stress {
    /// Four times as much work on each core as it can do.
    Oversubscribed,
    /// Loss of so many percent on each link, in both directions.
    Loss(u32),
}

const STRESSES: [Stress; 2] = [Stress::Oversubscribed, Stress::Loss(10)];

impl Stress {
    fn name(self) -> String {
        match self {
            Stress::Oversubscribed => "oversubscribed ring".to_owned(),
            Stress::Loss(percent) => format!("ring with {percent} % loss"),
        }
    }
}

/// How often the path changes while no link is cut.
fn stressed(stress: Stress, options: &Options) -> Result<Case> {
    let time = Duration::from_secs(if options.quick { 20 } else { options.oversubscribed_s });
    let cores = std::thread::available_parallelism()?.get();
    let threads = match stress {
        Stress::Oversubscribed => cores * OVERSUBSCRIPTION,
        Stress::Loss(_) => 0,
    };
    let what = match stress {
        Stress::Oversubscribed => format!("{threads} busy threads on {cores} cores"),
        Stress::Loss(percent) => format!("{percent} % loss in both directions of each link"),
    };
    let how = format!("{what} for {} s; no link is cut. The path is looked at each 50 ms.", time.as_secs());
    let mut case = Case::new("mesh", stress.name(), how, SYSTEMS.map(str::to_owned).to_vec());
    for system in 0..SYSTEMS.len() {
        match changes(system, stress, threads, time) {
            Ok(count) => case.add(FALSE, system, count as f64),
            Err(error) => case.miss(system, format!("{error:#}")),
        }
    }
    let found = case.median(FALSE, 0);
    case.aim(FALSE.name, found, 0.0, FALSE.unit);
    Ok(case)
}

fn changes(system: usize, stress: Stress, threads: usize, time: Duration) -> Result<usize> {
    let (mut rig, mut system, _prober, _) = ready(system)?;
    settle(&mut *system, &rig)?;
    pass(&mut *system, Duration::from_secs(3))?;
    if let Stress::Loss(percent) = stress {
        rig.pairs.iter_mut().try_for_each(|pair| pair.set_loss(percent, percent))?;
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let (until, mut was_settled, mut count) = (Instant::now() + time, true, 0);
        let counted = (|| {
            while Instant::now() < until {
                pass(&mut *system, Duration::from_millis(50))?;
                let is_settled = system.is_settled(&rig)?;
                count += usize::from(was_settled && !is_settled);
                was_settled = is_settled;
            }
            Ok(count)
        })();
        is_over.store(true, Ordering::Relaxed);
        counted
    })
}
