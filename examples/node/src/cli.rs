//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use x0_identity::NodeId;
use x0_kv::trace::Context;

use crate::config::Engine;

/// The reference node of x0: a replicated key-value store whose nodes authenticate each other by SPIFFE
/// identity.
///
/// Exit code 0: success. 1: failure; standard error has the cause and the remedy. 2: invalid command line. 3:
/// `kv get` found no value, or `kv cas` found another one than expected. 78: `supervise` found a wrong
/// configuration.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the demo: five nodes on this machine, a real data set, a killed leader, a partition, and a table
    /// of results
    Demo(DemoArgs),
    /// Write an authority, and configurations and identities for nodes, a client and an operator
    Init(InitArgs),
    /// Issue new identities with the authority that `init` wrote
    Issue(IssueArgs),
    /// Issue and renew SVIDs over the network, with the authority that `init` wrote, until a signal stops it
    Issuer(crate::issuer::commands::IssuerArgs),
    /// Register the workloads to which the issuer issues, and print join tokens
    Entry(crate::issuer::commands::EntryArgs),
    /// Revoke a SPIFFE ID: every node refuses it and closes its connections
    Revoke(crate::identity::revoke::RevokeArgs),
    /// Show the authorities that the nodes trust, and replace the authority step by step
    Bundle(crate::identity::bundle::BundleArgs),
    /// Run one node until SIGTERM or Ctrl-C stops it; it reloads its identity and bundle when they change
    Run(RunArgs),
    /// Run one node and start it again when it crashes or hangs, until SIGTERM or Ctrl-C stops both
    ///
    /// Exit code 78: the configuration is wrong. Sends READY=1 and WATCHDOG=1 to a service manager that sets
    /// `NOTIFY_SOCKET`, as systemd does.
    Supervise(SuperviseArgs),
    /// Read and write in a running cluster
    Kv(KvArgs),
    /// Print the leader, the reachable nodes and the progress of each node
    Status(StatusArgs),
    /// Print the identities of this client and of each node: valid until, signed by, next renewal
    Identity(crate::identity::commands::IdentityArgs),
    /// Examine a running cluster: members, leader, lag, links, SVIDs and disks, each finding with its remedy
    Doctor(DoctorArgs),
    /// Start Prometheus and Alertmanager for a cluster on this machine
    Observe(ObserveArgs),
    /// Show the links and the paths of the mesh of nodes with `[[links]]`
    Mesh(crate::mesh::cli::MeshArgs),
    /// Verify all files of a stopped node: log, snapshot, data, CRDT journal and blobs
    Verify(VerifyArgs),
    /// Search documents that the nodes keep, and change them
    Rag(crate::rag::cli::RagArgs),
    /// List and change the members of a running cluster, with an operator's identity
    Member(MemberArgs),
    /// Show the leader of a running cluster, or hand the leadership over, with an operator's identity
    Leader(LeaderArgs),
    /// Work on the data folder of a node that does not run
    Data(DataArgs),
    /// Print what healers do, what they decided and why; pause them and approve their actions
    Heal(HealArgs),
}

#[derive(Debug, Args)]
pub(crate) struct HealArgs {
    /// For `log`, `why` and `check` the node's configuration, which names the data folder; for the others
    /// that of a client, or of an operator where they change something
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON, one object on a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: HealCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HealCommand {
    /// Print the records that are kept, the oldest first, each on a line
    Log,
    /// Repeat the arithmetic of all records that are kept, each from the record alone
    Check,
    /// Explain a record: readings, thresholds, guards and effect
    Why {
        /// The number of the record, as `heal log` prints it; numbers begin again when the node starts, and
        /// the latest record of the number is meant
        number: u64,
    },
    /// Print what the healer of each node does: mode, pause, unhealthy nodes, questions, actions in flight
    Status,
    /// Print why the healers do nothing about a node: what they propose, and the guard that refuses it
    WhyNot {
        /// The node: its number, or its id in 16 hexadecimal digits
        #[arg(value_parser = node_id)]
        node: NodeId,
    },
    /// Let the healers of all nodes begin no action, also over restarts of the nodes
    Pause {
        /// How long, such as 30m, 90s or 2h; until `heal resume` unless set
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        time: Option<Duration>,
        /// Why, for the log and `heal status`
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// End a pause
    Resume,
    /// Approve an action that waits for a person, as `approve` in `[heal]` asks; it holds for ten minutes
    Approve {
        /// The number of the question, as `heal status` prints it
        id: u64,
        /// The node whose healer asks
        #[arg(long, value_parser = node_id, value_name = "NODE")]
        node: NodeId,
    },
    /// Say that a person has looked at a node that was escalated: the healers may act on it again
    Acknowledge {
        /// The node
        #[arg(value_parser = node_id)]
        node: NodeId,
    },
}

/// A time such as `90s`, `30m` or `2h`, of at least a second and at most a year.
fn time(text: &str) -> Result<Duration, String> {
    const YEAR: u64 = 366 * 24 * 3600;
    let seconds = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600)]
        .into_iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(factor));
    match seconds {
        Some(seconds @ 1..=YEAR) => Ok(Duration::from_secs(seconds)),
        _ => Err("write a whole number and a unit, such as 90s, 30m, 2h or 1d, of at most a year".into()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Print only the result, as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Use at most this many records of the data set
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) records_max: Option<u32>,
    /// The number of nodes
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(5..=9))]
    pub(crate) nodes: u32,
    /// Join the nodes over the loopback, with fault injectors, even where this process may create network
    /// namespaces
    #[arg(long)]
    pub(crate) loopback: bool,
    /// Keep the temporary folder with identities, data and logs
    #[arg(long)]
    pub(crate) keep: bool,
    /// Use this folder, which must be empty or absent, instead of a temporary one, and keep it
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
    /// Take the records from this file in the format of dpkg's status file
    #[arg(long, value_name = "FILE")]
    pub(crate) records: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder to write to; must be empty or absent
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: PathBuf,
    /// The SPIFFE trust domain
    #[arg(long, value_name = "NAME")]
    pub(crate) trust_domain: String,
    /// The number of nodes
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) nodes: u32,
    /// The IP address on which the nodes listen
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    pub(crate) host: std::net::IpAddr,
    /// The UDP port of the first node; the others use the following ones
    #[arg(long, default_value_t = 7401, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) base_port: u16,
    /// The address of the issuer, at which the nodes renew their SVIDs: `x0-node issuer` listens there
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) issuer: Option<crate::config::address::Address>,
    /// The storage engine of the nodes
    #[arg(long, default_value = "redb")]
    pub(crate) engine: Engine,
    #[command(flatten)]
    pub(crate) validity: ValidityArgs,
}

#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// The folder that `init` wrote
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: PathBuf,
    /// Renew the identity of this node (1, 2, ...); without it, those of the client and the operator
    #[arg(long, value_name = "N")]
    pub(crate) node: Option<u32>,
    /// Write identity and configuration of a new node with this UDP address, which joins the cluster
    #[arg(long, value_name = "IP:PORT", requires = "node")]
    pub(crate) address: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) validity: ValidityArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ValidityArgs {
    /// The validity of identities, in hours
    #[arg(long, default_value_t = 24 * 90, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=24 * 3650))]
    pub(crate) validity_hours: u32,
}

impl ValidityArgs {
    pub(crate) fn validity(&self) -> Duration {
        Duration::from_secs(u64::from(self.validity_hours) * 3600)
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The format of the log on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log: crate::log::record::Format,
    /// Take orders from standard input, and stop when it ends
    #[arg(long, hide = true)]
    pub(crate) control: bool,
    /// The parent process starts the node again when it ends
    #[arg(long, hide = true, requires = "control")]
    pub(crate) supervised: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SuperviseArgs {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The format of the logs of the supervisor and the node on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log: crate::log::record::Format,
    /// A node that does not answer for this long hangs, and is killed
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub(crate) hang_after: Duration,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    pub(crate) while_input: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Accept a data folder that was copied or moved to another file system on purpose
    Adopt(AdoptArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Let the node vote at once: for a copy that was made after the node ran for the last time. If that is
    /// not so, acknowledged writes may be lost
    #[arg(long)]
    pub(crate) assume_latest: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The client's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The client's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// An HTTP listener of a node with the route "metrics", without TLS; may be repeated
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) http: Vec<SocketAddr>,
    /// As --http, of a listener with `tls = "mutual"`: the client's SVID is shown; may be repeated
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) https: Vec<SocketAddr>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ObserveArgs {
    #[command(subcommand)]
    pub(crate) command: ObserveCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ObserveCommand {
    /// Fetch Debian's packages, write the configuration files, and run both until Ctrl-C
    Up(ObserveUpArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ObserveUpArgs {
    /// The folder for programs, configuration and data, which is created if it is absent
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: PathBuf,
    /// An HTTP listener of a node with the route "metrics", without TLS; may be repeated
    #[arg(long, value_name = "IP:PORT", required = true)]
    pub(crate) http: Vec<SocketAddr>,
    /// The TCP port of Prometheus on the loopback
    #[arg(long, default_value_t = 9090)]
    pub(crate) prometheus_port: u16,
    /// The TCP port of Alertmanager on the loopback
    #[arg(long, default_value_t = 9093)]
    pub(crate) alertmanager_port: u16,
    /// The URL to which Alertmanager sends alerts, such as a local receiver; without it they are only shown
    #[arg(long, value_name = "URL")]
    pub(crate) webhook: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// The operator's configuration
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MemberArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(subcommand)]
    pub(crate) command: MemberCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// Print the members, their roles, addresses and progress
    List,
    /// Add a node as a learner and wait until it has caught up
    Add {
        /// The number of the new node (1, 2, ...), or its id in 16 hexadecimal digits
        #[arg(value_parser = node_id)]
        node: NodeId,
        #[command(flatten)]
        new: NewMemberArgs,
    },
    /// Make a learner that has caught up a voter
    Promote {
        /// The learner
        #[arg(value_parser = node_id)]
        node: NodeId,
    },
    /// Take the vote of a voter, which stays a learner; refused if that would lose the quorum
    Demote {
        /// The voter
        #[arg(value_parser = node_id)]
        node: NodeId,
    },
    /// Remove a member; refused if that would lose the quorum
    Remove {
        /// The member
        #[arg(value_parser = node_id)]
        node: NodeId,
    },
    /// Replace a member: add the new node, wait until it has caught up, then exchange them in one change
    Replace {
        /// The member that leaves
        #[arg(value_parser = node_id)]
        old: NodeId,
        /// The node that takes its place
        #[arg(value_parser = node_id)]
        new_node: NodeId,
        #[command(flatten)]
        new: NewMemberArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewMemberArgs {
    /// A UDP address of the new node; may be repeated, the preferred one first
    #[arg(long = "address", value_name = "IP:PORT", required = true)]
    pub(crate) addresses: Vec<SocketAddr>,
    /// The time to wait until the new node has caught up, in seconds
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    pub(crate) wait_seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct LeaderArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(subcommand)]
    pub(crate) command: LeaderCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeaderCommand {
    /// Print the leader
    Show,
    /// Hand the leadership over
    Transfer {
        /// The next leader; without it, the voter with the longest log
        #[arg(value_parser = node_id)]
        to: Option<NodeId>,
    },
}

/// A node by its number, or by its id in 16 hexadecimal digits.
pub(crate) fn node_id(text: &str) -> Result<NodeId, String> {
    let node = match text.parse::<u64>() {
        Ok(number) if text.len() < NodeId::DISPLAY_LEN => NodeId::new(number),
        _ => text.parse().ok(),
    };
    node.ok_or_else(|| {
        format!("`{text}` is not a node: write its number, or its id in 16 hexadecimal digits")
    })
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The data folder
    #[arg(long, value_name = "FOLDER", required_unless_present = "config", conflicts_with = "config")]
    pub(crate) data: Option<PathBuf>,
    /// The node's configuration, which names the data folder
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KvArgs {
    /// The client's configuration
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Use the CRDT keyspace: one member answers from its own replica, without the others
    #[arg(long, global = true)]
    pub(crate) crdt: bool,
    /// Trace the command on all nodes that take part in it, and print the id of the trace to standard error
    #[arg(long, global = true)]
    pub(crate) trace: bool,
    /// The span that the trace continues, as in the header `traceparent` of W3C Trace Context; implies
    /// --trace
    #[arg(long, value_name = "TRACEPARENT", global = true)]
    pub(crate) trace_parent: Option<Context>,
    #[command(subcommand)]
    pub(crate) command: KvCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Print the value of a key
    Get {
        /// The key
        key: String,
        /// Read from one replica, which is faster and may lag behind the leader
        #[arg(long)]
        local: bool,
        /// Print exactly the value, without a line end
        #[arg(long)]
        raw: bool,
    },
    /// Set a key
    Put {
        /// The key
        key: String,
        /// Its value; `-` takes it from standard input
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Remove a key
    Del {
        /// The key
        key: String,
    },
    /// Print keys and values in the order of the keys
    Range {
        /// Only keys with this prefix
        #[arg(conflicts_with_all = ["start", "end"])]
        prefix: Option<String>,
        /// The first key
        #[arg(long)]
        start: Option<String>,
        /// The end of the range, exclusive
        #[arg(long)]
        end: Option<String>,
        /// At most this many keys
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// In descending order
        #[arg(long)]
        reverse: bool,
        /// Print no values
        #[arg(long)]
        keys_only: bool,
    },
    /// Add to a counter, with --crdt, and print its value
    Add {
        /// The counter's key
        key: String,
        /// The amount to add; 0 only prints the value
        #[arg(allow_negative_numbers = true)]
        amount: i64,
    },
    /// Print all concurrently written values of a key, with --crdt, the latest first
    Siblings {
        /// The key
        key: String,
    },
    /// Set a key if its value or revision is the expected one
    Cas {
        /// The key
        key: String,
        /// Its new value; `-` takes it from standard input
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        expect: ExpectArgs,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ExpectArgs {
    /// The value it must have
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) expect: Option<String>,
    /// The revision it must have
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u64>,
    /// The key must have no value
    #[arg(long)]
    pub(crate) absent: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The arguments of a line of a shell: words, and texts in double quotes.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut is_quoted) = (vec![String::new()], false);
        for part in line.split('"') {
            let mut pieces = if is_quoted { vec![part] } else { part.split(' ').collect() };
            words.last_mut().unwrap().push_str(pieces.remove(0));
            words.extend(pieces.into_iter().map(str::to_owned));
            is_quoted = !is_quoted;
        }
        words.retain(|word| !word.is_empty());
        words
    }

    /// Each line of the readmes and runbooks that begins with `x0-node` is a command that this program takes.
    #[test]
    fn the_commands_of_the_documentation_are_accepted() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let runbooks = std::fs::read_dir(root.join("deploy/runbooks")).unwrap();
        let mut files: Vec<PathBuf> = runbooks.map(|file| file.unwrap().path()).collect();
        files.extend([root.join("README.md"), root.join("../../README.md")]);
        let mut count = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap().replace("\\\n", " ");
            for line in text.lines().filter(|line| line.trim_start().starts_with("x0-node ")) {
                let command = line.split(['#', '>', '|']).next().unwrap().replace("NUMBER", "3");
                let parsed = Cli::try_parse_from(words(&command));
                assert!(parsed.is_ok(), "{}: `{line}`: {}", file.display(), parsed.unwrap_err());
                count += 1;
            }
        }
        assert!(count > 60, "{count}");
    }

    #[test]
    fn a_node_is_named_by_its_number_or_its_id() {
        let id = |number| NodeId::new(number).unwrap();
        for (text, expect) in
            [("4", Some(id(4))), ("0000000000000010", Some(id(16))), ("0", None), ("ff", None), ("", None)]
        {
            assert_eq!(node_id(text).ok(), expect, "{text}");
        }
    }

    #[test]
    fn the_configuration_may_stand_at_the_end() {
        let cli = Cli::try_parse_from(["x0-node", "kv", "get", "a", "--config", "c.toml"]).unwrap();
        let Command::Kv(kv) = cli.command else { panic!() };
        assert_eq!(kv.config, Some(PathBuf::from("c.toml")));
    }
}
