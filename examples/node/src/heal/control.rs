//! What an operator asks of a running healer: messages, and the service that answers `x0-node heal`.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use x0_kv::admin::{PeerRole, PeerRoles};
use x0_mesh::Mux;

use crate::report;

pub(super) const SERVICE: &str = "x0-node/heal";
/// The longest request, in bytes.
const REQUEST_LEN_MAX: usize = 4096;
/// The longest reason of a pause, in bytes.
const REASON_LEN_MAX: usize = 512;
/// The requests that wait for the healer.
const WAITING_MAX: usize = 16;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ask {
    /// What the healer does.
    Status,
    /// Why it does nothing about this node.
    WhyNot { node: u64 },
    /// Begin no action for this long, or until a resume.
    Pause { seconds: Option<u64>, reason: String },
    /// End a pause.
    Resume,
    /// Approve the action of a question.
    Approve { id: u64 },
    /// A person has looked at an escalated node.
    Acknowledge { node: u64 },
}

impl Ask {
    /// Whether everybody with a trusted identity may ask for it.
    fn only_reads(&self) -> bool {
        matches!(self, Ask::Status | Ask::WhyNot { .. })
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Ask::Pause { reason, .. } if reason.len() > REASON_LEN_MAX => Err(format!(
                "the reason has {} bytes, and at most {REASON_LEN_MAX} are kept: write a shorter one",
                reason.len()
            )),
            Ask::WhyNot { node: 0 } | Ask::Acknowledge { node: 0 } => Err("0 is no node".into()),
            _ => Ok(()),
        }
    }
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Status(Box<Status>),
    WhyNot(WhyNot),
    Done,
    /// The healer is off.
    Off,
    /// Nothing was changed, for this reason.
    Refused(String),
}

/// What the healer of a node does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Status {
    /// As in the configuration: `observe`, `dry-run` or `active`.
    pub(super) mode: String,
    /// Only the healer of the leader acts.
    pub(super) is_leader: bool,
    pub(super) paused: Option<Pause>,
    /// Seconds until the healer may act after its start; 0 if it may.
    pub(super) grace_s: u64,
    /// Whether it holds because too many nodes are unhealthy at once.
    pub(super) is_storm: bool,
    /// Nodes that are unhealthy, with the readings that say so.
    pub(super) unhealthy: Vec<Unhealthy>,
    /// Nodes that were handed over to a person.
    pub(super) escalated: Vec<String>,
    /// Actions that wait for `heal approve`.
    pub(super) questions: Vec<ActionRow>,
    pub(super) in_flight: Vec<ActionRow>,
    /// Members that do not answer, by the judgement of a majority of their observers.
    #[serde(default)]
    pub(super) suspects: Vec<SuspectRow>,
    /// Members that accuse this node.
    #[serde(default)]
    pub(super) accusers: Vec<String>,
    /// Whether the own timers or messages are late, so that the node accuses nobody.
    #[serde(default)]
    pub(super) is_starved: bool,
}

/// A member that does not answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SuspectRow {
    pub(super) node: String,
    /// For how long the node has known it.
    pub(super) seconds: f64,
    pub(super) accusers: Vec<String>,
}

/// A pause that an operator ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pause {
    /// Seconds until it ends; `None`: with `heal resume`.
    pub(super) seconds: Option<u64>,
    pub(super) reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Unhealthy {
    pub(super) node: String,
    pub(super) readings: Vec<ReadingRow>,
}

/// A reading at its threshold or above.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ReadingRow {
    pub(super) signal: String,
    pub(super) value: f64,
    pub(super) threshold: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ActionRow {
    pub(super) id: u64,
    pub(super) kind: String,
    pub(super) node: String,
    pub(super) stage: String,
}

/// Why the healer does nothing about a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct WhyNot {
    pub(super) mode: String,
    pub(super) is_leader: bool,
    pub(super) is_unhealthy: bool,
    /// What the policy proposes, by kind of action, and the guard and reason that refuse it; both empty if it
    /// passes.
    pub(super) candidates: Vec<CandidateRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CandidateRow {
    pub(super) kind: String,
    pub(super) guard: String,
    pub(super) reason: String,
}

/// A request on its way to the healer.
pub(super) struct Request {
    pub(super) ask: Ask,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// Answers requests until the mux ends. The healer takes them from the receiver.
pub(super) fn serve(mux: &Mux, roles: PeerRoles) -> Result<mpsc::Receiver<Request>> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    report::answering(mux, SERVICE, move |from, request| {
        let (role, sender) = (roles.of(from), sender.clone());
        async move { serde_json::to_vec(&answer(role, &request, &sender).await).ok() }
    })?;
    Ok(receiver)
}

async fn answer(role: PeerRole, request: &[u8], healer: &mpsc::Sender<Request>) -> Answer {
    let ask = match admit(role, request) {
        Ok(ask) => ask,
        Err(why) => return Answer::Refused(why),
    };
    let (answer, result) = oneshot::channel();
    // A healer that is off has dropped the receiver.
    match healer.send(Request { ask, answer }).await {
        Ok(()) => result.await.unwrap_or(Answer::Off),
        Err(_) => Answer::Off,
    }
}

/// The request, if it can be read and its sender may ask for it.
fn admit(role: PeerRole, request: &[u8]) -> Result<Ask, String> {
    if request.len() > REQUEST_LEN_MAX {
        return Err(format!("the request has {} bytes, and {REQUEST_LEN_MAX} are allowed", request.len()));
    }
    let ask: Ask = serde_json::from_slice(request)
        .map_err(|error| format!("the request cannot be read ({error}): use the x0-node of the cluster"))?;
    if !ask.only_reads() && role != PeerRole::Operator {
        return Err(
            "only an operator may change what the healer does: use the operator's configuration, or \
                    name the caller's SPIFFE ID in `operators` of each node's configuration"
                .into(),
        );
    }
    ask.check().map(|()| ask)
}

/// The seconds from `now` to `until`, rounded up.
pub(super) fn seconds_to(now: Duration, until: Duration) -> u64 {
    let rest = until.saturating_sub(now);
    rest.as_secs() + u64::from(rest.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(ask: &Ask) -> Vec<u8> {
        serde_json::to_vec(ask).unwrap()
    }

    #[test]
    fn only_operators_change_what_the_healer_does() {
        let pause = Ask::Pause { seconds: Some(60), reason: "upgrade".into() };
        for ask in [pause, Ask::Resume, Ask::Approve { id: 1 }, Ask::Acknowledge { node: 2 }] {
            assert_eq!(admit(PeerRole::Operator, &bytes(&ask)), Ok(ask.clone()));
            for role in [PeerRole::Client, PeerRole::Member] {
                assert!(admit(role, &bytes(&ask)).unwrap_err().contains("`operators`"), "{ask:?}");
            }
        }
        for ask in [Ask::Status, Ask::WhyNot { node: 3 }] {
            assert_eq!(admit(PeerRole::Client, &bytes(&ask)), Ok(ask.clone()));
        }
    }

    #[test]
    fn bad_requests_are_refused_with_a_remedy() {
        let refused = |request: &[u8]| admit(PeerRole::Operator, request).unwrap_err();
        assert!(refused(b"\xff").contains("cannot be read"));
        assert!(refused(b"{\"approve\":{\"id\":-1}}").contains("cannot be read"));
        assert!(refused(&[b' '; 5000]).contains("5000 bytes"));
        let long = Ask::Pause { seconds: None, reason: "x".repeat(600) };
        assert!(refused(&bytes(&long)).contains("write a shorter one"));
        assert!(refused(&bytes(&Ask::WhyNot { node: 0 })).contains("no node"));
    }

    #[test]
    fn a_rest_of_time_is_rounded_up() {
        let at = |milliseconds| Duration::from_millis(milliseconds);
        assert_eq!(
            (seconds_to(at(0), at(1)), seconds_to(at(0), at(2000)), seconds_to(at(5), at(1))),
            (1, 2, 0)
        );
    }
}
