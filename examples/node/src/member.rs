//! `x0-node member` and `x0-node leader`: the members of a running cluster and its leader.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use x0_identity::NodeId;
use x0_kv::admin::{
    AdminError, AdminReply, AdminRequest, MemberInfo, MemberList, MemberRole, PROMOTE_LAG_MAX,
};

use crate::cli::{AdminArgs, LeaderArgs, LeaderCommand, MemberArgs, MemberCommand, NewMemberArgs};
use crate::client::Connection;
use crate::config::ClientConfig;

/// The pause between two looks at a learner.
const POLL: Duration = Duration::from_millis(200);
/// How long a request is repeated whose result is not known or that found another change in progress.
const RETRY_LIMIT: Duration = Duration::from_secs(30);

/// Carries out one command about members.
pub(crate) async fn member(args: MemberArgs) -> Result<()> {
    let operator = Operator::open(&args.admin).await?;
    let done = tokio::select! {
        done = operator.member(args.command) => done,
        error = operator.connection.refused() => Err(error),
    };
    operator.end(done).await
}

/// Carries out one command about the leader.
pub(crate) async fn leader(args: LeaderArgs) -> Result<()> {
    let operator = Operator::open(&args.admin).await?;
    let done = tokio::select! {
        done = operator.leader(args.command) => done,
        error = operator.connection.refused() => Err(error),
    };
    operator.end(done).await
}

/// The members of the cluster in its replicated table. The identity of the configuration is an operator's.
pub(crate) async fn members(config: &ClientConfig) -> Result<Vec<MemberInfo>> {
    let operator = Operator { connection: Connection::open(config).await?, is_json: false };
    let list = tokio::select! {
        list = operator.list() => list,
        error = operator.connection.refused() => Err(error),
    };
    let (list, done) = match list {
        Ok(list) => (list.members, Ok(())),
        Err(error) => (Vec::new(), Err(error)),
    };
    operator.end(done).await?;
    Ok(list)
}

/// A connection with the identity of an operator.
struct Operator {
    connection: Connection,
    is_json: bool,
}

impl Operator {
    async fn open(args: &AdminArgs) -> Result<Operator> {
        let Some(config) = &args.config else {
            bail!("--config is missing: name the operator.toml that `x0-node init` wrote");
        };
        let connection = Connection::open(&ClientConfig::load(config)?).await?;
        Ok(Operator { connection, is_json: args.json })
    }

    /// Closes the connection, and adds its state to an error that it may explain.
    async fn end(self, done: Result<()>) -> Result<()> {
        let is_of_connection = |error: &anyhow::Error| match error.downcast_ref::<AdminError>() {
            Some(error) => matches!(error, AdminError::NoMember | AdminError::Unknown),
            None => false,
        };
        let done = done.map_err(|error| match is_of_connection(&error) {
            true => self.connection.explain(error),
            false => error,
        });
        self.connection.close().await;
        done
    }

    async fn member(&self, command: MemberCommand) -> Result<()> {
        match command {
            MemberCommand::List => {
                let list = self.list().await?;
                let text = if self.is_json { format!("{}\n", list_json(&list)) } else { list_table(&list) };
                print(&text)
            }
            MemberCommand::Add { node, new } => {
                self.request(AdminRequest::Add { node, addresses: texts(&new.addresses) }).await?;
                self.wait(node, new.wait_seconds).await?;
                self.done(&format!(
                    "node {node} is a learner and has caught up; promote it with `member promote`"
                ))
            }
            MemberCommand::Promote { node } => {
                self.request(AdminRequest::Promote { node }).await?;
                self.done(&format!("node {node} is a voter"))
            }
            MemberCommand::Demote { node } => {
                self.request(AdminRequest::Demote { node }).await?;
                self.done(&format!("node {node} is a learner: it follows and has no vote"))
            }
            MemberCommand::Remove { node } => {
                self.request(AdminRequest::Remove { node }).await?;
                self.done(&format!("node {node} is not a member any more; stop its process"))
            }
            MemberCommand::Replace { old, new_node, new } => self.replace(old, new_node, &new).await,
        }
    }

    /// Each step is skipped if an earlier run has made it.
    async fn replace(&self, old: NodeId, new_node: NodeId, new: &NewMemberArgs) -> Result<()> {
        let list = self.list().await?;
        if find(&list, old).is_some() {
            if find(&list, new_node).is_none() {
                let addresses = texts(&new.addresses);
                self.request(AdminRequest::Add { node: new_node, addresses }).await?;
            }
            self.wait(new_node, new.wait_seconds).await?;
        }
        self.request(AdminRequest::Replace { old, new: new_node }).await?;
        self.done(&format!(
            "node {new_node} is a voter in the place of node {old}; stop the process of node {old}"
        ))
    }

    async fn leader(&self, command: LeaderCommand) -> Result<()> {
        if let LeaderCommand::Transfer { to } = command {
            self.request(AdminRequest::Transfer { to }).await?;
        }
        let list = self.list().await?;
        print(&if self.is_json {
            format!("{}\n", json!({ "leader": list.leader.to_string(), "term": list.term }))
        } else {
            format!("node {} is the leader of term {}\n", list.leader, list.term)
        })
    }

    async fn list(&self) -> Result<MemberList> {
        match self.request(AdminRequest::Members).await? {
            AdminReply::Members(list) => Ok(list),
            _ => bail!("a member answered another request: run compatible releases"),
        }
    }

    /// Sends a request, again after an error that a repetition may help.
    async fn request(&self, request: AdminRequest) -> Result<AdminReply> {
        let begun = Instant::now();
        let mut may_be_done = false;
        loop {
            let error = match self.connection.client().admin(request.clone()).await {
                Ok(reply) => return Ok(reply),
                // The request whose result was not known has removed it.
                Err(AdminError::NotAMember { .. })
                    if may_be_done
                        && matches!(request, AdminRequest::Remove { .. } | AdminRequest::Replace { .. }) =>
                {
                    return Ok(AdminReply::Done);
                }
                Err(error) => error,
            };
            may_be_done |= error == AdminError::Unknown;
            let is_passing = matches!(
                error,
                AdminError::Unknown | AdminError::InProgress | AdminError::Overloaded | AdminError::NoLeader
            );
            if !is_passing || begun.elapsed() > RETRY_LIMIT {
                return Err(error.into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a learner has caught up, and shows its progress.
    async fn wait(&self, node: NodeId, limit_seconds: u64) -> Result<()> {
        let begun = Instant::now();
        let bar = progress_bar(self.is_json)?;
        loop {
            let list = self.list().await?;
            let Some(member) = find(&list, node) else {
                bail!("node {node} was removed while it caught up");
            };
            let lag = list.committed.saturating_sub(member.matched);
            bar.set_length(list.committed);
            bar.set_position(member.matched.min(list.committed));
            bar.set_message(match (member.is_reached, member.is_receiving_snapshot) {
                (false, _) => "not reached: start it, or check its address",
                (true, true) => "receiving a snapshot",
                (true, false) => "receiving the log",
            });
            if member.role != MemberRole::Learner || (member.is_reached && lag <= PROMOTE_LAG_MAX) {
                bar.finish_and_clear();
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(limit_seconds) {
                bar.finish_and_clear();
                bail!(
                    "node {node} has not caught up within {limit_seconds} s ({}); it stays a learner: run the command again, or \
                     remove it",
                    if member.is_reached {
                        format!("it lags {lag} log entries behind")
                    } else {
                        "the leader does not reach it".to_owned()
                    }
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn done(&self, text: &str) -> Result<()> {
        print(&if self.is_json { format!("{}\n", json!({ "done": text })) } else { format!("{text}\n") })
    }
}

fn find(list: &MemberList, node: NodeId) -> Option<&MemberInfo> {
    list.members.iter().find(|member| member.node == node)
}

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(SocketAddr::to_string).collect()
}

/// A bar on standard error, or nothing without a terminal.
fn progress_bar(is_silent: bool) -> Result<ProgressBar> {
    if is_silent || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()));
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} log entries  {msg}")
        .context("cannot show the progress")?;
    Ok(ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style))
}

fn state(list: &MemberList, member: &MemberInfo) -> &'static str {
    match (member.node == list.leader, member.is_reached, member.is_receiving_snapshot) {
        (true, ..) => "leader",
        (false, false, _) => "not reached",
        (false, true, true) => "receives a snapshot",
        (false, true, false) => "follows",
    }
}

fn list_json(list: &MemberList) -> serde_json::Value {
    let member = |member: &MemberInfo| {
        json!({
            "node": member.node.to_string(),
            "role": member.role.name(),
            "addresses": member.addresses,
            "incarnation": format!("{:016x}", member.incarnation),
            "matched": member.matched,
            "lag": list.committed.saturating_sub(member.matched),
            "is_leader": member.node == list.leader,
            "is_reached": member.is_reached,
            "is_receiving_snapshot": member.is_receiving_snapshot,
        })
    };
    json!({
        "leader": list.leader.to_string(),
        "term": list.term,
        "committed": list.committed,
        "members": list.members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn list_table(list: &MemberList) -> String {
    let mut text = format!("{:<16}  {:<13}  {:<19}  {:>10}  addresses\n", "node", "role", "state", "lag");
    for member in &list.members {
        let lag = list.committed.saturating_sub(member.matched);
        let (role, state) = (member.role.name(), state(list, member));
        let addresses = member.addresses.join(" ");
        text.push_str(&format!(
            "{:<16}  {role:<13}  {state:<19}  {lag:>10}  {addresses}\n",
            member.node.to_string()
        ));
    }
    text
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> MemberList {
        let member = |number: u64, role, is_reached| MemberInfo {
            node: NodeId::new(number).unwrap(),
            role,
            addresses: vec![format!("10.0.0.{number}:7401")],
            incarnation: 0,
            matched: 90 + number,
            is_receiving_snapshot: number == 3,
            is_reached,
        };
        MemberList {
            leader: NodeId::new(1).unwrap(),
            term: 4,
            committed: 100,
            members: vec![
                member(1, MemberRole::Voter, true),
                member(2, MemberRole::Voter, false),
                member(3, MemberRole::Learner, true),
            ],
        }
    }

    #[test]
    fn the_table_and_the_json_say_the_same() {
        let expected = "\
node              role           state                       lag  addresses
0000000000000001  voter          leader                        9  10.0.0.1:7401
0000000000000002  voter          not reached                   8  10.0.0.2:7401
0000000000000003  learner        receives a snapshot           7  10.0.0.3:7401
";
        assert_eq!(list_table(&list()), expected);
        let json = list_json(&list());
        assert_eq!(json["leader"], "0000000000000001");
        assert_eq!(json["members"][2]["role"], "learner");
        assert_eq!(json["members"][1]["lag"], 8);
    }
}
