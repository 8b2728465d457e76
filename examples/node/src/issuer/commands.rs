//! `x0-node issuer` and `x0-node entry`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use x0_identity::{NodeId, SpiffeId};

use super::entries::{Entries, EntryRow, token_selector};
use super::serve;
use crate::cli::{ValidityArgs, node_id};
use crate::identity::commands::moment;
use crate::identity::tpm::{self, TpmKey};
use crate::init::{self, Layout};

#[derive(Debug, Args)]
pub(crate) struct IssuerArgs {
    /// The folder that `init` wrote
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: PathBuf,
    /// The TCP address to listen on
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: SocketAddr,
    /// Renew SVIDs that expired at most this many hours ago, of nodes that were off or suspended
    #[arg(long, default_value_t = 24 * 7, value_name = "HOURS")]
    pub(crate) grace_hours: u32,
    /// The format of the log on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log: crate::log::record::Format,
}

#[derive(Debug, Args)]
pub(crate) struct EntryArgs {
    /// The folder that `init` wrote
    #[arg(long, value_name = "FOLDER", global = true)]
    pub(crate) dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: EntryCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EntryCommand {
    /// Register a SPIFFE ID, or change its entry, and print a join token for its workload unless a TPM
    /// attests it
    Add {
        #[command(flatten)]
        workload: WorkloadArgs,
        #[command(flatten)]
        validity: ValidityArgs,
        /// A DNS name for TLS clients that verify host names; may be repeated
        #[arg(long, value_name = "NAME")]
        dns: Vec<String>,
        /// The digest of the endorsement key of the workload's TPM, as `entry tpm` prints it on its machine:
        /// the workload attests by the TPM, and gets no join token
        #[arg(long, value_name = "DIGEST")]
        tpm_ek: Option<String>,
        /// Admit the TPM only while its registers 0 to 7 have this digest, as `entry tpm` prints it
        #[arg(long, value_name = "DIGEST", requires = "tpm_ek")]
        tpm_pcrs: Option<String>,
        /// Issue to the workload for this many hours from now, and nothing after that. Without it, for as
        /// long as it is registered
        #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..))]
        admit_hours: Option<u32>,
        /// The validity of the join token, in minutes
        #[arg(long, default_value_t = 60, value_name = "MINUTES", conflicts_with = "tpm_ek", value_parser = clap::value_parser!(u32).range(1..=60 * 24 * 365))]
        token_minutes: u32,
    },
    /// Print the digests of this machine's TPM, for `entry add --tpm-ek` where the authority is
    Tpm {
        /// The device, or the socket of a simulator
        #[arg(long, default_value = "/dev/tpmrm0", value_name = "FILE")]
        device: PathBuf,
        /// The algorithm of the endorsement key, the same as in node.toml
        #[arg(long, value_name = "ALGORITHM", default_value = "p256")]
        key: TpmKey,
    },
    /// Print the registered SPIFFE IDs
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a SPIFFE ID: its SVIDs stay valid until they expire, and are not renewed
    Remove {
        #[command(flatten)]
        workload: WorkloadArgs,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WorkloadArgs {
    /// A node, by its number or its id in 16 hexadecimal digits
    #[arg(long, value_parser = node_id)]
    node: Option<NodeId>,
    /// Any other workload of the trust domain
    #[arg(long, value_name = "SPIFFE-ID")]
    id: Option<SpiffeId>,
}

impl WorkloadArgs {
    fn spiffe_id(&self, layout: &Layout) -> Result<SpiffeId> {
        let authority = init::authority(layout)?;
        let domain = authority.trust_domain();
        match (&self.id, self.node) {
            (Some(id), _) if id.trust_domain() != domain => {
                bail!("{id} is not of the trust domain {domain} of this authority: name one of its own")
            }
            (Some(id), _) => Ok(id.clone()),
            (None, Some(node)) => Ok(SpiffeId::for_node(domain, node)),
            (None, None) => bail!("name the workload with --node or --id"),
        }
    }
}

/// Runs the issuer.
pub(crate) async fn issuer(args: &IssuerArgs) -> Result<()> {
    serve::serve(args).await
}

/// Changes or prints the entries.
pub(crate) fn entry(args: &EntryArgs) -> Result<()> {
    if let EntryCommand::Tpm { device, key } = &args.command {
        let digests = tpm::digests(device, *key)?;
        return std::io::stdout()
            .lock()
            .write_all(digests.as_bytes())
            .context("cannot write to standard output");
    }
    let dir = args.dir.as_ref().context("the command needs --dir FOLDER, the folder that `init` wrote")?;
    let layout = Layout::new(dir);
    let text = match &args.command {
        EntryCommand::Tpm { .. } => String::new(),
        EntryCommand::Add { workload, validity, dns, tpm_ek: Some(ek), tpm_pcrs, admit_hours, .. } => {
            let id = workload.spiffe_id(&layout)?;
            let mut entries = Entries::open(&layout)?;
            let selectors = tpm::selectors(ek, tpm_pcrs.as_deref())?;
            entries.put_with(&id, validity.validity(), dns, selectors, admitted_until(*admit_hours))?;
            entries.save()?;
            format!("{id} is registered for its TPM.\n")
        }
        EntryCommand::Add { workload, validity, dns, token_minutes, admit_hours, .. } => {
            let id = workload.spiffe_id(&layout)?;
            let mut entries = Entries::open(&layout)?;
            let selectors = [token_selector(&id)?];
            entries.put_with(&id, validity.validity(), dns, selectors, admitted_until(*admit_hours))?;
            let expires = SystemTime::now() + Duration::from_secs(u64::from(*token_minutes) * 60);
            let token = entries.tokens.issue(id.path(), expires)?;
            entries.save()?;
            format!("{token}\n")
        }
        EntryCommand::Remove { workload } => {
            let id = workload.spiffe_id(&layout)?;
            let mut entries = Entries::open(&layout)?;
            if entries.registry.remove(&id).is_none() {
                bail!("{id} is not registered: `x0-node entry list` prints what is");
            }
            entries.save()?;
            format!("{id} is not registered any more.\n")
        }
        EntryCommand::List { json } => {
            init::authority(&layout)?;
            let entries = Entries::open(&layout)?;
            let rows: Vec<EntryRow> = entries.registry.iter().map(EntryRow::of).collect();
            if *json { format!("{}\n", serde_json::to_string(&rows)?) } else { table(&rows) }
        }
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

fn admitted_until(hours: Option<u32>) -> Option<SystemTime> {
    hours.map(|hours| SystemTime::now() + Duration::from_secs(u64::from(hours) * 3600))
}

fn table(rows: &[EntryRow]) -> String {
    let mut text = format!(
        "{:<50}  {:>10}  {:<20}  {:<40}  {}\n",
        "SPIFFE ID", "validity", "admitted until", "selectors", "DNS names"
    );
    for row in rows {
        let hours = format!("{} h", row.validity_seconds / 3600);
        let until = row.admitted_until.map_or_else(|| "-".to_owned(), moment);
        text.push_str(&format!(
            "{:<50}  {hours:>10}  {until:<20}  {:<40}  {}\n",
            row.spiffe_id,
            row.selectors.join(" "),
            row.dns_names.join(" ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_all_of_an_entry() {
        let row = EntryRow {
            spiffe_id: "spiffe://example.org/web".into(),
            selectors: vec!["tpm:ek:00".into(), "tpm:pcrs:11".into()],
            validity_seconds: 7200,
            dns_names: vec!["web.example.org".into()],
            admitted_until: Some(2_000_000_000),
        };
        let unlimited = EntryRow { admitted_until: None, selectors: Vec::new(), ..row.clone() };
        let text = table(&[row, unlimited]);
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let first = "spiffe://example.org/web 2 h 2033-05-18T03:33:20Z tpm:ek:00 tpm:pcrs:11 web.example.org";
        assert_eq!(words[1].join(" "), first);
        assert_eq!(words[2].join(" "), "spiffe://example.org/web 2 h - web.example.org");
        assert_eq!(admitted_until(None), None);
        let hour = SystemTime::now() + Duration::from_secs(3600);
        assert!(admitted_until(Some(1)).is_some_and(|until| until >= hour));
    }
}
