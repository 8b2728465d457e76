//! `x0-node heal`: what healers do, what they decided, and why.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use x0_identity::NodeId;
use x0_mapek::Record;
use x0_mapek::record::GuardVerdict;

use super::control::{ActionRow, Answer, Ask, SERVICE, Status, SuspectRow, WhyNot};
use super::{line, records};
use crate::causes::causes;
use crate::cli::{HealArgs, HealCommand, node_id};
use crate::client::Services;
use crate::config::{ClientConfig, NodeConfig};

/// The time in which a node must answer, including the connection.
const LIMIT: Duration = Duration::from_secs(3);

pub(crate) async fn heal(args: &HealArgs) -> Result<()> {
    let path = args
        .config
        .as_ref()
        .context("--config FILE is missing: name the configuration of the node, or of an operator")?;
    let text = match &args.command {
        HealCommand::Log | HealCommand::Why { .. } | HealCommand::Check => local(args, path)?,
        command => remote(args, path, ask(command)).await?,
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// The request of a command to running nodes.
fn ask(command: &HealCommand) -> Ask {
    match command {
        HealCommand::WhyNot { node } => Ask::WhyNot { node: node.get() },
        HealCommand::Pause { time, reason } => {
            Ask::Pause { seconds: time.map(|time| time.as_secs()), reason: reason.clone() }
        }
        HealCommand::Resume => Ask::Resume,
        HealCommand::Approve { id, .. } => Ask::Approve { id: *id },
        HealCommand::Acknowledge { node } => Ask::Acknowledge { node: node.get() },
        HealCommand::Log | HealCommand::Why { .. } | HealCommand::Check | HealCommand::Status => Ask::Status,
    }
}

/// The answer of a node.
#[derive(Debug, Serialize)]
struct Row {
    node: String,
    /// `None` of a node that did not answer.
    answer: Option<Answer>,
    /// Why a node could not be asked, or its answer not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Row {
    fn new(node: NodeId, answer: Option<Result<Answer>>) -> Row {
        let (answer, error) = match answer {
            Some(Ok(answer)) => (Some(answer), None),
            Some(Err(error)) => (None, Some(causes(&error))),
            None => (None, None),
        };
        Row { node: node.to_string(), answer, error }
    }
}

/// Asks the healers of all nodes, or of one. An error if one of them does not do what an operator asks for.
async fn remote(args: &HealArgs, path: &Path, ask: Ask) -> Result<String> {
    let config = ClientConfig::load(path)?;
    let mut nodes: Vec<NodeId> = config.members.iter().map(|member| member.node).collect();
    if let HealCommand::Approve { node, .. } = &args.command {
        nodes.retain(|member| member == node);
        if nodes.is_empty() {
            bail!("node {node} is none of the `members` of {}: name one of them", path.display());
        }
    }
    let services = Services::open(&config)?;
    let mut asker = services.asker(SERVICE)?;
    let request = serde_json::to_vec(&ask)?;
    let mut answers = asker.ask_all(nodes.iter().copied(), &request, LIMIT).await?;
    // The answers of the others are shown beside that of a node whose own cannot be read.
    let rows: Vec<Row> = nodes.iter().map(|node| Row::new(*node, answers.remove(node))).collect();
    let text = if args.json {
        rows.iter().map(|row| Ok(serde_json::to_string(row)? + "\n")).collect::<Result<String>>()?
    } else {
        rows.iter().map(described).collect()
    };
    let failure = match rows.iter().all(|row| row.answer.is_none() && row.error.is_none()) {
        true => Some(services.unanswered(LIMIT)),
        false => failure(&rows, matches!(ask, Ask::Status | Ask::WhyNot { .. })).map(anyhow::Error::msg),
    };
    let Some(failure) = failure else { return Ok(text) };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Err(failure)
}

/// Why a command failed although some node has answered, or given an error. One that only reads fails without
/// a single answer.
fn failure(rows: &[Row], only_reads: bool) -> Option<String> {
    let seconds = LIMIT.as_secs();
    let is_silent = |row: &&Row| row.answer.is_none() && row.error.is_none();
    let silent: Vec<&str> = rows.iter().filter(is_silent).map(|row| row.node.as_str()).collect();
    if only_reads && rows.iter().any(|row| row.answer.is_some()) {
        return None;
    }
    let refused = rows.iter().find_map(|row| match &row.answer {
        Some(Answer::Refused(why)) => Some(format!("node {} refused: {why}", row.node)),
        _ => None,
    });
    let unread = || {
        let (node, error) = rows.iter().find_map(|row| Some((&row.node, row.error.as_ref()?)))?;
        let rest = if only_reads { "" } else { ", and whether it has done what was asked" };
        Some(format!("node {node} gives no usable answer: {error}; check its version of x0-node{rest}"))
    };
    let incomplete = || {
        let nodes = silent.join(", ");
        format!("node {nodes} did not answer within {seconds} s: repeat the command when it runs again")
    };
    refused.or_else(unread).or_else(|| (!silent.is_empty()).then(incomplete))
}

fn described(row: &Row) -> String {
    let text = match &row.answer {
        None => match &row.error {
            Some(error) => format!("no usable answer: {error}\n"),
            None => "does not answer\n".to_owned(),
        },
        Some(Answer::Off) => "the healer is off: `mode` in [heal]\n".into(),
        Some(Answer::Done) => "done\n".into(),
        Some(Answer::Refused(why)) => format!("refused: {why}\n"),
        Some(Answer::Status(status)) => of_status(&row.node, status),
        Some(Answer::WhyNot(why)) => of_why_not(why),
    };
    format!("node {}: {text}", row.node)
}

/// The status of the healer of `by`.
fn of_status(by: &str, status: &Status) -> String {
    let place = if status.is_leader { "leader" } else { "not the leader: it only watches" };
    let mut text = format!("{}, {place}\n", status.mode);
    if let Some(pause) = &status.paused {
        let end = match pause.seconds {
            Some(seconds) => format!("for {seconds} s more"),
            None => "until `x0-node heal resume`".into(),
        };
        let _ = writeln!(text, "  paused {end}: {}", pause.reason.escape_debug());
    }
    if status.grace_s > 0 {
        let _ = writeln!(text, "  has just started, and may act in {} s", status.grace_s);
    }
    if status.is_storm {
        text.push_str("  holds: so many nodes are unhealthy that a common cause is likely\n");
    }
    if status.is_starved {
        text.push_str("  its own timers or messages are late: it accuses nobody\n");
    }
    for SuspectRow { node, seconds, accusers } in &status.suspects {
        let accusers = accusers.join(", ");
        let _ =
            writeln!(text, "  node {node} has not answered for {seconds:.1} s, as nodes {accusers} report");
    }
    if !status.accusers.is_empty() {
        let _ = writeln!(text, "  nodes {} report that it does not answer", status.accusers.join(", "));
    }
    for unhealthy in &status.unhealthy {
        let _ = write!(text, "  {} is unhealthy:", named(&unhealthy.node));
        for reading in &unhealthy.readings {
            let _ =
                write!(text, " {} {:.3} (threshold {})", reading.signal, reading.value, reading.threshold);
        }
        text.push('\n');
    }
    for subject in &status.escalated {
        let node = acknowledged(subject, by);
        let _ = writeln!(
            text,
            "  {} was left to a person: `x0-node heal acknowledge {node}` hands it back",
            named(subject)
        );
    }
    for ActionRow { id, kind, node, .. } in &status.questions {
        let approve = format!("x0-node heal approve {id} --node {by}");
        let _ = writeln!(text, "  question {id}: {kind} of node {node}? `{approve}`");
    }
    for ActionRow { id, kind, node, stage } in &status.in_flight {
        let _ = writeln!(text, "  action {id}: {kind} of node {node}, {stage}");
    }
    text
}

/// A subject of a healer as a text names it: a node has its id alone.
fn named(subject: &str) -> String {
    if node_id(subject).is_ok() { format!("node {subject}") } else { subject.to_owned() }
}

/// The node by which `heal acknowledge` names a subject: the node itself, the other end of a connection, or
/// the node whose queue, process or identity it is.
fn acknowledged<'a>(subject: &'a str, by: &'a str) -> &'a str {
    subject.rsplit(' ').next().filter(|last| node_id(last).is_ok()).unwrap_or(by)
}

fn of_why_not(why: &WhyNot) -> String {
    match why {
        WhyNot { is_unhealthy: false, candidates, .. } if candidates.is_empty() => {
            "sees nothing wrong with it\n".into()
        }
        WhyNot { is_leader: false, .. } => "is not the leader, and only the leader's healer acts\n".into(),
        WhyNot { mode, .. } if mode == "observe" => "only observes: `mode` in [heal]\n".into(),
        WhyNot { candidates, .. } if candidates.is_empty() => {
            "sees that it is unhealthy, and knows no action that helps: there is no other voter, or no spare, \
             that is reached and has caught up\n"
                .into()
        }
        WhyNot { mode, candidates, .. } => {
            let mut text = String::new();
            for one in candidates {
                let _ = match one.guard.as_str() {
                    "" if mode == "dry-run" => {
                        writeln!(text, "{} passes all guards, and `mode` is dry-run", one.kind)
                    }
                    "" => writeln!(text, "{} passes all guards", one.kind),
                    guard => writeln!(text, "{} is held by the guard `{guard}`: {}", one.kind, one.reason),
                };
            }
            text
        }
    }
}

/// The records in the data folder of a node on this machine.
fn local(args: &HealArgs, path: &Path) -> Result<String> {
    let folder = NodeConfig::load(path)?.data_dir.join("heal");
    let records = records::read(&folder)
        .with_context(|| format!("cannot read the records of the healer in {}", folder.display()))?;
    Ok(match args.command {
        HealCommand::Why { number } => {
            let Some(record) = records.iter().rev().find(|record| record.number == number) else {
                bail!(
                    "{} has no record {number}: `x0-node heal log --config {}` lists the records that are kept",
                    folder.display(),
                    path.display()
                );
            };
            if args.json { record.to_json() + "\n" } else { why(record) }
        }
        HealCommand::Check => check(&records, args.json)?,
        _ if args.json => records.iter().map(|record| record.to_json() + "\n").collect(),
        _ => records.iter().map(|record| line(record) + "\n").collect(),
    })
}

/// The result of [`check`], as JSON.
#[derive(Debug, Serialize)]
struct Checked {
    records: usize,
    /// A line for each record with a number that does not follow.
    wrong: Vec<String>,
}

/// Repeats the arithmetic of all records. An error if a number of one does not follow from the record alone.
pub(super) fn check(records: &[Record], json: bool) -> Result<String> {
    let wrong = records.iter().filter_map(|record| record.recompute().err());
    let checked = Checked { records: records.len(), wrong: wrong.map(|wrong| wrong.to_string()).collect() };
    if !checked.wrong.is_empty() && !json {
        bail!("{} of {} records:\n{}", checked.wrong.len(), checked.records, checked.wrong.join("\n"));
    }
    Ok(match json {
        true => serde_json::to_string(&checked)? + "\n",
        false => format!("{} records: all numbers follow from the record\n", checked.records),
    })
}

/// All that a record says, with the guards, and whether its numbers follow from each other.
pub(super) fn why(record: &Record) -> String {
    let mut text = record.explain() + "\n";
    let guards = record.guards();
    if !guards.is_empty() {
        let names = |verdict| {
            let names: Vec<_> =
                guards.iter().filter(|(_, of)| *of == verdict).map(|(name, _)| *name).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let _ = writeln!(
            text,
            "  guards passed: {}; refused: {}; not asked: {}",
            names(GuardVerdict::Passed),
            names(GuardVerdict::Refused),
            names(GuardVerdict::NotAsked)
        );
    }
    match record.recompute() {
        Ok(()) => text.push_str("  all numbers follow from the record\n"),
        Err(mismatch) => {
            let _ = writeln!(text, "  {mismatch}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::control::{CandidateRow, Pause, ReadingRow, SuspectRow, Unhealthy};
    use super::*;

    fn row(answer: Option<Answer>) -> Row {
        Row::new(NodeId::new(2).unwrap(), answer.map(Ok))
    }

    /// A node whose answer this version cannot read.
    fn unread() -> Row {
        let error = serde_json::from_slice::<Answer>(b"7").unwrap_err();
        Row::new(
            NodeId::new(3).unwrap(),
            Some(Err(anyhow::Error::new(error).context("cannot parse the answer"))),
        )
    }

    fn text(answer: Answer) -> String {
        described(&row(Some(answer)))
    }

    #[test]
    fn a_status_is_readable_and_says_what_to_do() {
        let action = |id, stage: &str| ActionRow {
            id,
            kind: "replace-voter".into(),
            node: "7".into(),
            stage: stage.into(),
        };
        let status = Status {
            mode: "active".into(),
            is_leader: true,
            paused: Some(Pause { seconds: None, reason: "upgrade\n\u{1b}[2J".into() }),
            grace_s: 4,
            is_storm: true,
            unhealthy: ["7", "own queue"]
                .map(|node| Unhealthy {
                    node: node.into(),
                    readings: vec![ReadingRow {
                        signal: "silent_seconds".into(),
                        value: 12.5,
                        threshold: 10.0,
                    }],
                })
                .into(),
            escalated: ["8", "own process", "connection to 7", "spiffe://example.org/node/1"]
                .map(String::from)
                .into(),
            questions: vec![action(3, "asking")],
            in_flight: vec![action(4, "verifying")],
            suspects: vec![SuspectRow {
                node: "9".into(),
                seconds: 1.25,
                accusers: vec!["1".into(), "2".into()],
            }],
            accusers: vec!["5".into()],
            is_starved: true,
        };
        let shown = text(Answer::Status(Box::new(status)));
        for part in [
            "active, leader",
            "paused until `x0-node heal resume`: upgrade\\n\\u{1b}[2J",
            "may act in 4 s",
            "common cause",
            "silent_seconds 12.500 (threshold 10)",
            "  node 8 was left to a person: `x0-node heal acknowledge 8`",
            "  own process was left to a person: `x0-node heal acknowledge 0000000000000002`",
            "  connection to 7 was left to a person: `x0-node heal acknowledge 7`",
            "  spiffe://example.org/node/1 was left to a person: `x0-node heal acknowledge 0000000000000002`",
            "  own queue is unhealthy",
            "`x0-node heal approve 3 --node 0000000000000002`",
            "action 4: replace-voter of node 7, verifying",
            "node 9 has not answered for 1.2 s, as nodes 1, 2 report",
            "nodes 5 report that it does not answer",
            "accuses nobody",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        // Each command that it names can be typed.
        let commands: Vec<&str> = shown.split('`').filter(|text| text.starts_with("x0-node ")).collect();
        assert_eq!(commands.len(), 6, "{shown}");
        for command in commands {
            let parsed = crate::cli::Cli::try_parse_from(command.split(' '));
            assert!(parsed.is_ok(), "{command}: {parsed:?}");
        }
        let watching =
            Status { paused: Some(Pause { seconds: Some(5), reason: String::new() }), ..Status::default() };
        let shown = text(Answer::Status(Box::new(watching)));
        assert!(shown.contains("only watches") && shown.contains("for 5 s more"), "{shown}");
    }

    #[test]
    fn why_not_names_the_first_reason_that_matters() {
        let why = |is_leader, mode: &str, is_unhealthy, guard: Option<&str>| {
            let candidate = |guard: &str| CandidateRow {
                kind: "replace-voter".into(),
                guard: guard.into(),
                reason: "a reason".into(),
            };
            let candidates = guard.map(candidate).into_iter().collect();
            text(Answer::WhyNot(WhyNot { mode: mode.into(), is_leader, is_unhealthy, candidates }))
        };
        assert!(why(true, "active", false, None).contains("nothing wrong"));
        assert!(why(false, "active", true, None).contains("only the leader's healer acts"));
        assert!(why(true, "observe", true, None).contains("only observes"));
        assert!(why(true, "active", true, None).contains("no spare"));
        assert!(why(true, "active", true, Some("storm")).contains("guard `storm`: a reason"));
        assert!(why(true, "dry-run", true, Some("")).contains("`mode` is dry-run"));
        assert!(why(true, "active", true, Some("")).ends_with("passes all guards\n"));
    }

    #[test]
    fn a_change_fails_unless_every_node_makes_it() {
        let refused = Answer::Refused("no".into());
        assert_eq!(failure(&[row(Some(Answer::Done)), row(Some(Answer::Off))], false), None);
        assert!(
            failure(&[row(Some(Answer::Done)), row(None)], false).unwrap().contains("repeat the command")
        );
        assert!(failure(&[row(None), row(Some(refused.clone()))], false).unwrap().contains("refused: no"));
        assert_eq!(failure(&[row(None), row(Some(refused))], true), None);
        assert!(text(Answer::Off).contains("[heal]") && text(Answer::Done).contains("done"));
        assert!(described(&row(None)).contains("does not answer"));
        assert!(text(Answer::Refused("no".into())).contains("refused: no"));
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_none() {
        for rows in [&[unread(), unread()][..], &[row(None), unread()]] {
            let failed = failure(rows, true).expect("no node has answered");
            assert!(
                failed.contains("node 0000000000000003 gives no usable answer: cannot parse"),
                "{failed}"
            );
        }
        let rows = [row(Some(Answer::Done)), unread()];
        assert_eq!(failure(&rows, true), None);
        // No node has refused, and one may have done it.
        let failed = failure(&rows, false).unwrap();
        assert!(
            failed.contains("0003 gives no usable answer") && failed.contains("has done what was asked"),
            "{failed}"
        );
        let shown = described(&unread());
        assert!(shown.contains("no usable answer: cannot parse") && !shown.contains("refused"), "{shown}");
        let json = serde_json::to_string(&rows).unwrap();
        assert!(
            json.contains("\"answer\":\"done\"}") && json.contains("\"answer\":null,\"error\":\"cannot"),
            "{json}"
        );
    }
}
