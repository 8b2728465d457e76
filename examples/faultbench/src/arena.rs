//! The network of a run: a namespace for each node and one for the clients, joined by a router.
//!
//! A packet is dropped where it arrives, by nftables, so that the sender notices nothing. Everything ends
//! with the process: the namespaces have no names.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use x0_ebpf::testing::{Namespace, VethPair};

/// Gives this process mounts of its own, which end with it and which no other process sees. To be called
/// before any thread starts.
pub(crate) fn private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot have mounts of its own: run as root")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("cannot make mounts private")
}

/// A participant: the nodes from 0 on, then the clients.
pub(crate) type Place = usize;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Arena {
    _router: Namespace,
    ends: Vec<End>,
    /// The directions, from sender to receiver, in which nothing passes.
    cuts: BTreeSet<(Place, Place)>,
    /// Of a thousand packets that arrive at a place, how many are lost.
    losses: Vec<u32>,
    /// The same for those to [`LINK_PORT`] alone.
    link_losses: Vec<u32>,
    /// A second network of the nodes, if there is one.
    second: Option<(Namespace, Vec<VethPair>)>,
}

/// The UDP ports of the links of nodes on the first network and on the second one.
pub(crate) const LINK_PORT: u16 = 7601;
pub(crate) const SECOND_LINK_PORT: u16 = 7602;

#[derive(Debug)]
struct End {
    namespace: Namespace,
    pair: VethPair,
}

impl Arena {
    /// A network with this many nodes, and a place for clients behind them.
    pub(crate) fn new(nodes: usize) -> Result<Arena> {
        let router = Namespace::new()?;
        let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        router.run(forward)?.context("cannot let a namespace forward packets")?;
        let end = |_| {
            let namespace = Namespace::new()?;
            let mut pair = VethPair::new(&router, &namespace)?;
            pair.assign_addresses()?;
            let via = pair.left().address().to_string();
            let mut route = Command::new("ip");
            route.args(["route", "add", "default", "via", &via]);
            run_in(&namespace, &mut route, "")?;
            Ok(End { namespace, pair })
        };
        let ends = (0..=nodes).map(end).collect::<Result<Vec<_>>>()?;
        let (losses, link_losses) = (vec![0; ends.len()], vec![0; ends.len()]);
        Ok(Arena { losses, link_losses, second: None, _router: router, ends, cuts: BTreeSet::new() })
    }

    /// Joins the nodes, and not the clients, by a second network with a router of its own.
    pub(crate) fn add_network(&mut self) -> Result<()> {
        let router = Namespace::new()?;
        let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        router.run(forward)?.context("cannot let a namespace forward packets")?;
        let pair = |end: &End| {
            let mut pair = VethPair::new(&router, &end.namespace)?;
            pair.assign_addresses()?;
            Ok(pair)
        };
        let nodes = self.clients();
        let pairs = self.ends[..nodes].iter().map(pair).collect::<Result<Vec<_>>>()?;
        for (place, pair) in pairs.iter().enumerate() {
            let via = pair.left().address().to_string();
            for other in pairs.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, other)| other)
            {
                let to = other.right().address().to_string();
                let mut route = Command::new("ip");
                route.args(["route", "add", &to, "via", &via]);
                run_in(&self.ends[place].namespace, &mut route, "")?;
            }
        }
        self.second = Some((router, pairs));
        Ok(())
    }

    /// The address of a node in the second network.
    pub(crate) fn second_address(&self, place: Place) -> Option<Ipv4Addr> {
        let (_, pairs) = self.second.as_ref()?;
        pairs.get(place).map(|pair| pair.right().address())
    }

    /// Loses so many of a thousand packets that arrive at a place over its link on the first network.
    pub(crate) fn lose_on_link(&mut self, place: Place, of_thousand: u32) -> Result<()> {
        self.link_losses[place] = of_thousand;
        self.install(place)
    }

    pub(crate) fn address(&self, place: Place) -> Ipv4Addr {
        self.ends[place].pair.right().address()
    }

    /// Where the clients are.
    pub(crate) fn clients(&self) -> Place {
        self.ends.len() - 1
    }

    /// Starts a program in the namespace of a place.
    pub(crate) fn spawn(&self, place: Place, command: &mut Command) -> Result<std::process::Child> {
        let program = command.get_program().to_owned();
        let child = self.ends[place].namespace.run(|| command.spawn())?;
        child.with_context(|| format!("cannot start {}", program.display()))
    }

    /// Runs a task inside the namespace of a place.
    pub(crate) fn run<T: Send>(&self, place: Place, task: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(self.ends[place].namespace.run(task)?)
    }

    /// Drops what `from` sends to `to`.
    pub(crate) fn cut(&mut self, from: Place, to: Place) -> Result<()> {
        self.cuts.insert((from, to));
        self.install(to)
    }

    /// Drops what crosses from one side to the other.
    pub(crate) fn partition(&mut self, is_left: &[bool]) -> Result<()> {
        for from in 0..self.ends.len() {
            for to in (0..self.ends.len()).filter(|to| is_left[*to] != is_left[from]) {
                self.cuts.insert((from, to));
            }
        }
        (0..self.ends.len()).try_for_each(|place| self.install(place))
    }

    /// Loses so many of a thousand packets that arrive at each place.
    pub(crate) fn lose(&mut self, of_thousand: u32) -> Result<()> {
        self.losses.fill(of_thousand);
        (0..self.ends.len()).try_for_each(|place| self.install(place))
    }

    /// Ends all cuts and losses.
    pub(crate) fn heal(&mut self) -> Result<()> {
        self.cuts.clear();
        self.link_losses.fill(0);
        self.lose(0)
    }

    /// The rules of a place, which replace those before in one step.
    fn install(&self, place: Place) -> Result<()> {
        let rules = rules(
            self.cuts.iter().filter(|(_, to)| *to == place).map(|(from, _)| self.address(*from)),
            self.losses[place],
            self.link_losses[place],
        );
        run_in(&self.ends[place].namespace, Command::new("nft").args(["-f", "-"]), &rules)
    }
}

/// A script for `nft -f`.
fn rules(cut: impl Iterator<Item = Ipv4Addr>, lost: u32, lost_on_link: u32) -> String {
    let mut script = String::from("add table inet faults\ndelete table inet faults\ntable inet faults {\n");
    script.push_str("  chain input {\n    type filter hook input priority 0; policy accept;\n");
    for address in cut {
        // Writing to a string cannot fail.
        let _ = writeln!(script, "    ip saddr {address} drop");
    }
    if lost > 0 {
        let _ = writeln!(script, "    meta l4proto udp numgen random mod 1000 < {lost} drop");
    }
    if lost_on_link > 0 {
        let _ = writeln!(script, "    udp dport {LINK_PORT} numgen random mod 1000 < {lost_on_link} drop");
    }
    script.push_str("  }\n}\n");
    script
}

fn run_in(namespace: &Namespace, command: &mut Command, input: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let program = command.get_program().to_owned();
    let cannot = || format!("cannot run {}: is it installed?", program.display());
    let mut child = namespace.run(|| command.spawn())?.with_context(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(cannot)?;
    }
    let output = child.wait_with_output().with_context(cannot)?;
    if !output.status.success() {
        bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_drop_what_is_cut_and_a_share_of_the_rest() {
        let script = rules([Ipv4Addr::new(10, 0, 0, 2)].into_iter(), 150, 600);
        assert!(script.contains("ip saddr 10.0.0.2 drop\n") && script.contains("mod 1000 < 150 drop"));
        assert!(script.contains("udp dport 7601 numgen random mod 1000 < 600 drop\n"));
        assert!(!rules(std::iter::empty(), 0, 0).contains("drop"));
    }
}
