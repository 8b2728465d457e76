//! `x0-node kv`: reading and writing in a running cluster.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tracing::Instrument as _;
use x0_kv::{CrdtStore, Expect, Keyspace, RangeQuery, Revision, Store, Swap};

use crate::cli::{ExpectArgs, KvArgs, KvCommand};
use crate::client::Connection;
use crate::config::ClientConfig;
use crate::observe::trace::Traces;
use crate::observe::trace::client::CommandTrace;

/// Carries out one command. `false` if the key has no value or another one than expected.
pub(crate) async fn kv(args: KvArgs) -> Result<bool> {
    let Some(config) = args.config else {
        bail!("--config is missing: name the client.toml that `x0-node init` wrote");
    };
    check_mode(args.crdt, &args.command)?;
    let config = ClientConfig::load(&config)?;
    if !args.trace && args.trace_parent.is_none() {
        let connection = Connection::open(&config).await?;
        let done = carry_out_on(&connection, args.crdt, args.command).await;
        connection.close().await;
        return done;
    }
    // The span begins before the connections, whose time is part of that of the command.
    let trace = CommandTrace::begin(config.traces.as_ref(), args.trace_parent)?;
    // The files of the identity are read first.
    let connecting = tracing::info_span!(parent: trace.span(), "kv.connect");
    complain(&format!("trace {}", trace.id()))?;
    let connection = match Connection::open_traced(&config, trace.tracing()).await {
        Ok(connection) => connection,
        Err(error) => {
            flush(trace.end());
            return Err(error);
        }
    };
    connection.reached(Duration::from_millis(config.timeout_ms)).instrument(connecting).await;
    let span = trace.span().clone();
    let done = carry_out_on(&connection, args.crdt, args.command).instrument(span).await;
    let ended = trace.end();
    connection.close().await;
    flush(ended);
    done
}

/// Sends the spans of a command.
fn flush(traces: Option<Traces>) {
    if let Some(traces) = traces {
        traces.flush();
    }
}

/// Carries out a command on an open connection.
async fn carry_out_on(connection: &Connection, is_crdt: bool, command: KvCommand) -> Result<bool> {
    let done = tokio::select! {
        done = dispatch(connection.store(), is_crdt, command) => done,
        error = connection.refused() => Err(error),
    };
    done.map_err(|error| connection.explain(error))
}

/// Refuses a command that the selected store does not have, before a connection is opened.
fn check_mode(is_crdt: bool, command: &KvCommand) -> Result<()> {
    match (is_crdt, command) {
        (true, KvCommand::Cas { .. }) => {
            bail!("a CRDT store has no compare-and-swap: leave out --crdt to use the linearizable store")
        }
        (false, KvCommand::Add { .. } | KvCommand::Siblings { .. }) => {
            bail!("only a CRDT store has counters and siblings: add --crdt")
        }
        _ => Ok(()),
    }
}

async fn dispatch(store: &Store, is_crdt: bool, command: KvCommand) -> Result<bool> {
    if is_crdt { carry_out_crdt(&store.crdt()?, command).await } else { carry_out(store, command).await }
}

async fn carry_out_crdt(store: &CrdtStore, command: KvCommand) -> Result<bool> {
    match command {
        KvCommand::Get { key, raw, .. } => print_value(store.get(key).await?.map(|got| got.value), raw),
        KvCommand::Put { key, value } => {
            let timestamp = store.put(key, read_value(value)?).await?;
            print(format!("timestamp {timestamp}\n").as_bytes())?;
            Ok(true)
        }
        KvCommand::Del { key } => {
            let existed = store.delete(key).await?;
            print(if existed { b"deleted\n" } else { b"the key had no value\n" })?;
            Ok(true)
        }
        KvCommand::Range { prefix, start, end, limit, reverse, keys_only } => {
            let mut left = limit.unwrap_or(u64::MAX);
            let mut next = Some(range_of(prefix, start, end, reverse));
            while let Some(range) = next.filter(|_| left > 0) {
                let most = range.limit.min(u32::try_from(left).unwrap_or(u32::MAX));
                let page = store.range(&range.clone().limit(most)).await?;
                left -= (page.entries.len() as u64).min(left);
                print_lines(page.entries.iter().map(|entry| (&entry.key, &entry.value)), keys_only)?;
                next = page.continuation.map(|continuation| range.resume(continuation));
            }
            Ok(true)
        }
        KvCommand::Add { key, amount } => {
            let sum = if amount == 0 { store.counter(key).await? } else { store.add(key, amount).await? };
            print(format!("{sum}\n").as_bytes())?;
            Ok(true)
        }
        KvCommand::Siblings { key } => {
            let siblings = store.siblings(key).await?;
            for sibling in &siblings {
                print(format!("{}\n", printable(&sibling.value)).as_bytes())?;
            }
            if siblings.is_empty() {
                complain("the key has no value")?;
            }
            Ok(!siblings.is_empty())
        }
        KvCommand::Cas { .. } => bail!("a CRDT store has no compare-and-swap: leave out --crdt"),
    }
}

async fn carry_out(store: &Keyspace, command: KvCommand) -> Result<bool> {
    match command {
        KvCommand::Get { key, local, raw } => get(store, key, local, raw).await,
        KvCommand::Put { key, value } => {
            let revision = store.put(key, read_value(value)?).await?;
            print(format!("revision {revision}\n").as_bytes())?;
            Ok(true)
        }
        KvCommand::Del { key } => {
            let existed = store.delete(key).await?;
            print(if existed { b"deleted\n" } else { b"it had no value\n" })?;
            Ok(true)
        }
        KvCommand::Range { prefix, start, end, limit, reverse, keys_only } => {
            let range = range_of(prefix, start, end, reverse);
            print_range(store, range, limit.unwrap_or(u64::MAX), keys_only).await.map(|()| true)
        }
        KvCommand::Add { .. } | KvCommand::Siblings { .. } => {
            bail!("only a CRDT store has counters and siblings: add --crdt")
        }
        KvCommand::Cas { key, value, expect } => {
            let swap = store.compare_and_swap(key, expectation(expect), read_value(value)?).await?;
            match &swap {
                Swap::Swapped { revision } => print(format!("revision {revision}\n").as_bytes())?,
                Swap::Kept { current: None } => complain("not written: the key has no value")?,
                Swap::Kept { current: Some(current) } => complain(&format!(
                    "not written: the key has the value {} of revision {}",
                    printable(&current.value),
                    current.revision
                ))?,
            }
            Ok(matches!(swap, Swap::Swapped { .. }))
        }
    }
}

async fn get(store: &Keyspace, key: String, local: bool, raw: bool) -> Result<bool> {
    let got = if local { store.get_local(key) } else { store.get(key) }.await?;
    print_value(got.map(|got| got.value), raw)
}

fn print_value(value: Option<Bytes>, raw: bool) -> Result<bool> {
    let Some(value) = value else {
        complain("the key has no value")?;
        return Ok(false);
    };
    let mut text = value.to_vec();
    if !raw {
        text.push(b'\n');
    }
    print(&text)?;
    Ok(true)
}

fn range_of(prefix: Option<String>, start: Option<String>, end: Option<String>, reverse: bool) -> RangeQuery {
    let mut range = match prefix {
        Some(prefix) => RangeQuery::prefix(prefix),
        None => RangeQuery {
            start: start.unwrap_or_default().into(),
            end: end.map(Bytes::from),
            ..RangeQuery::all()
        },
    };
    range.reverse = reverse;
    range
}

/// Prints a line for each key: the key, a tab, the value.
async fn print_range(store: &Keyspace, range: RangeQuery, limit: u64, keys_only: bool) -> Result<()> {
    let mut left = limit;
    let mut next = Some(range);
    while let Some(range) = next.filter(|_| left > 0) {
        let most = range.limit.min(u32::try_from(left).unwrap_or(u32::MAX));
        let page = store.range(range.clone().limit(most)).await?;
        left -= (page.entries.len() as u64).min(left);
        print_lines(page.entries.iter().map(|entry| (&entry.key, &entry.value)), keys_only)?;
        next = page.continuation.map(|continuation| range.resume(continuation));
    }
    Ok(())
}

fn print_lines<'a>(entries: impl Iterator<Item = (&'a Bytes, &'a Bytes)>, keys_only: bool) -> Result<()> {
    let mut text = String::new();
    for (key, value) in entries {
        text.push_str(&printable(key));
        if !keys_only {
            text.push('\t');
            text.push_str(&printable(value));
        }
        text.push('\n');
    }
    print(text.as_bytes())
}

fn expectation(args: ExpectArgs) -> Expect {
    match (args.expect, args.revision) {
        (Some(value), _) => Expect::Value(value.into()),
        (None, Some(revision)) => Expect::Revision(Revision::new(revision)),
        (None, None) => Expect::Absent,
    }
}

fn read_value(value: String) -> Result<Bytes> {
    if value != "-" {
        return Ok(value.into());
    }
    let mut bytes = Vec::new();
    // One byte above the limit, so that a longer value is refused and not truncated.
    let most = x0_kv::limits::VALUE_LEN_MAX as u64 + 1;
    std::io::stdin().lock().take(most).read_to_end(&mut bytes).context("cannot read standard input")?;
    Ok(bytes.into())
}

/// Text without changes; control characters, backslashes and bytes that are not UTF-8 are escaped as in
/// Rust's byte strings.
fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(|character: char| character.is_control() || character == '\\') => {
            text.to_owned()
        }
        Ok(text) => text.chars().fold(String::new(), |mut line, character| {
            match character {
                '\\' => line.push_str("\\\\"),
                _ if character.is_control() => line.extend(character.escape_default()),
                _ => line.push(character),
            }
            line
        }),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

fn print(text: &[u8]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text).and_then(|()| output.flush()).context("cannot write to standard output")
}

fn complain(text: &str) -> Result<()> {
    std::io::stderr()
        .lock()
        .write_all(format!("{text}\n").as_bytes())
        .context("cannot write to standard error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_text_stays_on_its_line() {
        assert_eq!(printable("grün".as_bytes()), "grün");
        assert_eq!(printable(b"a\nb\tc\\"), "a\\nb\\tc\\\\");
        assert_eq!(printable(b"\xff\x00"), "\\xff\\x00");
    }
}
