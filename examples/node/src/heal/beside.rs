//! The healers beside that of the group: of the connections to the other members, and of the identity.
//!
//! A connection that is up and carries nothing is made again (`x0_mapek::mesh`). An SVID whose renewal is
//! late is renewed by `renew_command` of `[heal]`, or by the issuer of the node, which is asked again at once
//! (`x0_mapek::identity`). A person is called while the old SVID is still valid if that does not help.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

use tokio::process::Command as Process;
use tokio::time::timeout;
use x0_identity::{Identity, NodeId};
use x0_kv::cluster::StatusHandle;
use x0_mapek::identity::{self, Svid};
use x0_mapek::mesh::{self, Observation, Peer};
use x0_mapek::{Command, Evidence, Input, Loop, Mode, Output, Record};
use x0_mesh::quic::PeerBook;

use super::Ended;
use crate::config::NodeConfig;
use crate::identity::load_svid;
use crate::identity::report::SharedRenewing;
use crate::run::Down;

/// The time in which the command of a renewal must end.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// The time between two looks at the identity.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the healers beside that of the group work with.
pub(crate) struct Parts {
    pub(crate) peers: PeerBook,
    pub(crate) identity: Identity,
    pub(crate) renewing: SharedRenewing,
    pub(crate) status: StatusHandle,
    /// The members that are down.
    pub(crate) down: Down,
    /// Whether a supervisor starts the process again.
    pub(crate) is_supervised: bool,
}

/// See the [module](self).
pub(super) struct Beside {
    connections: mesh::Healer,
    peers: PeerBook,
    renewal: Option<Renewal>,
}

/// The healer of the identity.
struct Renewal {
    healer: Loop<identity::View, identity::Act>,
    own: Svid,
    identity: Identity,
    /// The validity of the SVID in use, and the end by which it was found.
    validity: Option<(SystemTime, SystemTime)>,
    svid: PathBuf,
    source: Source,
    looked: Option<Duration>,
    ended: (Sender<Ended>, Receiver<Ended>),
}

/// Where a new SVID comes from.
enum Source {
    Command(Vec<String>),
    /// The thread that renews with the issuer.
    Issuer(SharedRenewing),
}

impl Beside {
    /// `mode` is that of the healer of the group.
    pub(super) fn new(config: &NodeConfig, mode: Mode, parts: Parts) -> Beside {
        // A quarantine is for meshes whose members an operator does not know: it is never due here.
        let options = mesh::HealerOptions::new().mode(mode).flaps_max(u32::MAX);
        let source = match (&config.heal.renew_command[..], &config.issuer) {
            ([], None) => None,
            ([], Some(_)) => Some(Source::Issuer(parts.renewing)),
            (command, _) => Some(Source::Command(command.to_vec())),
        };
        let options_of = identity::HealerOptions::new().mode(mode).seed(config.node.get());
        let renewal = source.map(|source| Renewal::new(&options_of, parts.identity, &config.svid, source));
        Beside { connections: mesh::Healer::new(&options), peers: parts.peers, renewal }
    }

    /// Passes an order of an operator on. What concerns another subject is refused, which means nothing.
    pub(super) fn command(&mut self, now: Duration, own: NodeId, command: &Command<NodeId>) {
        let of_peer = map(command, |node| Some(Peer(*node)));
        if let Some(command) = of_peer {
            let _ = self.connections.handle(now, mesh::Input::Command(command));
        }
        if let Some(renewal) = &mut self.renewal
            && let Some(command) = map(command, |node| (*node == own).then(|| renewal.own.clone()))
        {
            let _ = renewal.healer.handle(now, Input::Command(command));
        }
    }

    /// Takes samples, and does what the loops decide. `expected` are the members that owe messages. The
    /// records, which each loop numbers by itself.
    pub(super) fn work(&mut self, now: Duration, expected: &BTreeSet<NodeId>) -> Vec<Record> {
        let mut records = Vec::new();
        let observation = Observation::of(&self.peers.links(), expected);
        let _ = self.connections.handle(now, mesh::Input::Sample(&observation));
        while let Some(output) = self.connections.poll_output() {
            match output {
                mesh::Output::Reconnect { id, peer } => {
                    self.peers.reconnect(peer);
                    let _ = self.connections.handle(now, mesh::Input::Outcome { id, result: Ok(()) });
                }
                mesh::Output::Record(record) => records.push(*record),
                // Quarantines are never due.
                _ => {}
            }
        }
        if let Some(renewal) = &mut self.renewal {
            renewal.work(now, &mut records);
        }
        records
    }

    /// The subjects that were handed over to a person.
    pub(super) fn escalated(&self, now: Duration) -> Vec<String> {
        let connections = self.connections.engine().status(now).escalated.into_iter();
        let names = connections.map(|Peer(node)| format!("connection to {node}"));
        let renewal = self.renewal.as_ref().map(|renewal| renewal.healer.status(now).escalated);
        names.chain(renewal.into_iter().flatten().map(|svid| svid.as_str().to_owned())).collect()
    }

    /// What is unhealthy, with the readings that say so.
    pub(super) fn unhealthy(&self, now: Duration) -> Vec<(String, Vec<Evidence>)> {
        let view = self.connections.engine().knowledge();
        let connections = self.connections.engine().status(now).unhealthy.into_iter();
        let rows = connections.map(|Peer(node)| {
            (format!("connection to {node}"), view.evidence(now, node).into_iter().collect())
        });
        let renewal = self.renewal.iter().flat_map(|renewal| {
            let late = renewal.healer.status(now).unhealthy.into_iter();
            late.map(|svid| {
                let evidence = renewal.healer.knowledge().evidence(now, &svid);
                (svid.as_str().to_owned(), evidence.into_iter().collect())
            })
        });
        rows.chain(renewal).collect()
    }
}

/// A command about another kind of subject; `None` if it is about a subject that there is not. Questions and
/// actions have numbers of their own in each loop: a command about one is of the healer of the group.
pub(super) fn map<S>(
    command: &Command<NodeId>,
    subject: impl Fn(&NodeId) -> Option<S>,
) -> Option<Command<S>> {
    match command {
        Command::Pause { until } => Some(Command::Pause { until: *until }),
        Command::Resume => Some(Command::Resume),
        Command::Acknowledge { subject: node } => Some(Command::Acknowledge { subject: subject(node)? }),
        _ => None,
    }
}

impl Renewal {
    fn new(options: &identity::HealerOptions, identity: Identity, svid: &Path, source: Source) -> Renewal {
        let own = Svid::new(&identity.spiffe_id().to_string());
        Renewal {
            healer: options.healer([own.clone()]),
            own,
            identity,
            validity: None,
            svid: svid.to_owned(),
            source,
            looked: None,
            ended: channel(),
        }
    }

    fn work(&mut self, now: Duration, records: &mut Vec<Record>) {
        while let Ok((id, result)) = self.ended.1.try_recv() {
            // The loop may have given up on it.
            let _ = self.healer.handle(now, Input::Outcome { id, result });
        }
        if self.looked.is_none_or(|looked| now.saturating_sub(looked) >= LOOK_EVERY) {
            self.looked = Some(now);
            if let Some(reading) = self.reading() {
                let _ = self.healer.handle(now, Input::Reading(reading));
            }
            let _ = self.healer.handle(now, Input::Timeout);
        }
        while let Some(output) = self.healer.poll_output() {
            match output {
                Output::Execute { id, .. } => self.renew(id),
                Output::Record(record) => records.push(*record),
                // A renewal is not claimed, approved or taken back, and the record has the escalation.
                _ => {}
            }
        }
    }

    fn reading(&mut self) -> Option<x0_mapek::Reading<Svid>> {
        let expires = self.identity.svid_expires();
        if self.validity.is_none_or(|(_, end)| end != expires) {
            // The begin is in the file, which was read when the SVID came into use.
            let svid = load_svid(self.identity.spiffe_id().trust_domain(), &self.svid).ok()?;
            // A file that is newer comes into use in a moment.
            (svid.not_after() == expires).then_some(())?;
            self.validity = Some((svid.not_before(), expires));
        }
        let (begin, end) = self.validity?;
        identity::reading(&self.own, begin, end, SystemTime::now())
    }

    fn renew(&self, id: u64) {
        let ended = self.ended.0.clone();
        match &self.source {
            Source::Issuer(renewing) => {
                renewing.lock().unwrap_or_else(PoisonError::into_inner).is_asked = true;
                // The verdict is that of the next reading.
                let _ = ended.send((id, Ok(())));
            }
            Source::Command(command) => {
                let command = command.clone();
                tokio::spawn(async move {
                    let result = run(&command).await;
                    // The healer may have ended.
                    let _ = ended.send((id, result));
                });
            }
        }
    }
}

/// Runs the command of a renewal, which must succeed in time.
async fn run(command: &[String]) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Err("there is no command".into()) };
    let mut process = Process::new(program);
    process.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    process.kill_on_drop(true);
    match timeout(COMMAND_LIMIT, process.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("`{program}` ended with {status}")),
        Ok(Err(error)) => Err(format!("cannot run `{program}`: {error}")),
        Err(_) => Err(format!("`{program}` did not end within {COMMAND_LIMIT:?}")),
    }
}

#[cfg(test)]
mod tests {
    use x0_identity::{Authority, AuthorityOptions, SpiffeId, TrustDomain};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// An SVID of which nine tenths have passed, in a folder with a new one. The folder, and its healer.
    fn late(command: &[&str]) -> (tempfile::TempDir, Renewal) {
        let trust_domain: TrustDomain = "example.org".parse().unwrap();
        let spiffe_id = SpiffeId::for_node(&trust_domain, NodeId::new(1).unwrap());
        let options = AuthorityOptions::default().backdate(10_000 * SECOND);
        let authority = Authority::new(trust_domain, &options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("svid.pem"), folder.path().join("new.pem"));
        // The SVID began 10,000 s ago, and ends in 1,000 s.
        let svid = authority.issue(&spiffe_id, 1_000 * SECOND).unwrap();
        std::fs::write(&old, svid.to_pem()).unwrap();
        let next = authority.issue(&spiffe_id, 100_000 * SECOND).unwrap();
        std::fs::write(&new, next.to_pem()).unwrap();
        let identity = Identity::new(svid, authority.bundle()).unwrap();
        let words = [old.to_str().unwrap(), new.to_str().unwrap()];
        let place = |word: &&str| word.replace("OLD", words[0]).replace("NEW", words[1]);
        let source = Source::Command(command.iter().map(place).collect());
        let options = identity::HealerOptions::new().mode(Mode::Active).back_off(SECOND);
        (folder, Renewal::new(&options, identity, &old, source))
    }

    /// Plays some seconds; waits for each command that was begun. The events of the records.
    async fn play(renewal: &mut Renewal, seconds: std::ops::Range<u32>) -> Vec<String> {
        let mut records = Vec::new();
        for second in seconds {
            renewal.work(SECOND * second, &mut records);
            let is_running = |renewal: &Renewal| {
                renewal.healer.status(SECOND * second).in_flight.iter().any(|one| one.stage == "executing")
            };
            let until = std::time::Instant::now() + 30 * SECOND;
            while is_running(renewal) && std::time::Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(2)).await;
                renewal.work(SECOND * second, &mut records);
            }
        }
        records.iter().map(|record| record.event.name().to_owned()).collect()
    }

    #[tokio::test]
    async fn a_late_svid_is_renewed_by_the_command() {
        let (folder, mut renewal) = late(&["cp", "NEW", "OLD"]);
        assert_eq!(play(&mut renewal, 0..9).await, ["refused"], "the grace");
        assert!(renewal.reading().unwrap().value > 0.9);
        let events = play(&mut renewal, 9..20).await;
        // One renewal is enough until its verdict.
        assert_eq!(events, ["executing", "executed", "refused"]);
        // As the node does when the file changes.
        let svid = load_svid(renewal.identity.spiffe_id().trust_domain(), &folder.path().join("svid.pem"));
        renewal.identity.rotate(svid.unwrap()).unwrap();
        assert!(renewal.reading().unwrap().value < 0.1);
        assert_eq!(play(&mut renewal, 20..90).await, ["improved"]);
    }

    #[tokio::test]
    async fn a_command_that_fails_ends_with_a_person() {
        let (_folder, mut renewal) = late(&["false"]);
        let events = play(&mut renewal, 0..200).await;
        let count = |name: &str| events.iter().filter(|event| *event == name).count();
        assert_eq!((count("failed"), count("escalated")), (3, 1), "{events:?}");
    }

    #[tokio::test]
    async fn a_command_fails_with_its_reason() {
        let ends = async |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            run(&words).await
        };
        assert_eq!(ends(&["true"]).await, Ok(()));
        assert!(ends(&["false"]).await.unwrap_err().contains("`false` ended with"));
        assert!(ends(&["/no/such/program"]).await.unwrap_err().contains("cannot run"));
        assert!(ends(&[]).await.is_err());
    }

    #[test]
    fn commands_are_about_subjects_that_there_are() {
        let node = |number| NodeId::new(number).unwrap();
        let of_own = |of: &NodeId| (*of == node(1)).then_some(7);
        assert_eq!(map(&Command::Resume, of_own), Some(Command::Resume));
        assert_eq!(map(&Command::Pause { until: None }, of_own), Some(Command::Pause { until: None }));
        let acknowledge = |subject| Command::Acknowledge { subject };
        assert_eq!(map(&acknowledge(node(1)), of_own), Some(Command::Acknowledge { subject: 7 }));
        assert_eq!(map(&acknowledge(node(2)), of_own), None);
        assert_eq!(map(&Command::Approve { id: 1 }, of_own), None);
    }
}
