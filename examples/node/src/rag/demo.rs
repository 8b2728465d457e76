//! `x0-node rag demo`: three nodes index the documentation of this machine under faults, and answer alike.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::body::Bytes;
use serde::Serialize;

use super::cli::RagDemoArgs;
use super::message::{DocumentRequest, Filter, Mode, QueryAnswer, QueryRequest, Status, Written};
use super::{commands, documents};
use crate::causes::causes;
use crate::control::Order;
use crate::demo::cluster::Cluster;
use crate::demo::screen::{Screen, print};
use crate::http::client::{ask, encode, try_ask};
use crate::signals::Stops;

const NODES: usize = 3;
const STEP_LIMIT: Duration = Duration::from_secs(120);
/// Texts above it are blobs, which the other nodes fetch.
const PIECES_KIB: usize = 32;
const POLL: Duration = Duration::from_millis(20);
/// A linearizable collection, and one in the CRDT store.
const MANUALS: &str = "manuals";
const NOTES: &str = "notes";
/// Documents that are added one by one to see when they are visible.
const ADDED: usize = 21;
const QUESTIONS: [&str; 4] = [
    "copyright license of the software",
    "report a bug",
    "configuration file",
    "changes since the last version",
];

/// The figures of a run.
#[derive(Debug, Default, Serialize)]
struct Report {
    held: bool,
    failures: Vec<String>,
    documents: usize,
    chunks: usize,
    /// From the start of the killed node to the end of its indexing.
    recovered_ms: u64,
    /// Chunks that the killed node embedded again after its start, of those that it had embedded before.
    embedded_before_kill: u64,
    /// From the healing to equal answers on both sides.
    merged_ms: u64,
    questions_alike: usize,
    /// From the acknowledgement of a document to an answer that may hold it, without the time of both
    /// embeddings: the median and the greatest.
    visible_us: u64,
    visible_us_max: u64,
    /// From the acknowledgement of a document that is a blob to answers from it on all nodes.
    blob_ms: u64,
    took_ms: u64,
}

/// Runs the demo and prints the result. `false` if a check failed.
pub(crate) async fn run(args: RagDemoArgs) -> Result<bool> {
    let screen = Screen::new(args.json);
    let mut report = Report::default();
    let mut stops = Stops::new()?;
    let ended = tokio::select! {
        ended = scenario(&args, &screen, &mut report) => ended,
        () = stops.next() => Err(anyhow::anyhow!("interrupted; the nodes were stopped")),
    };
    screen.finish();
    if let Err(error) = &ended {
        report.failures.push(causes(error));
    }
    report.held = report.failures.is_empty();
    if args.json {
        print(&serde_json::to_string(&report)?);
    } else if ended.is_ok() {
        print(&format!("\n{}", table(&report)));
    }
    ended.map(|()| report.held)
}

async fn scenario(args: &RagDemoArgs, screen: &Screen, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let texts = texts(&args.documents, args.documents_max)?;
    report.documents = texts.len();
    let bytes: usize = texts.values().map(String::len).sum();
    screen.say(format!("{} documents below {}, {} KiB", texts.len(), args.documents.display(), bytes / 1024));

    let folder = tempfile::Builder::new().prefix("x0-node-rag-demo-").tempdir()?;
    let fronts = free_addresses(NODES)?;
    let extra = |number: usize| section(fronts[number - 1], &args.model);
    let mut cluster = Cluster::start_with(folder.path(), NODES, &extra).await?;
    screen.say(format!("{NODES} nodes run as processes {:?}", cluster.pids()));
    let all = cluster.running(&[]);
    let (leader, _) = cluster.leader(&all, STEP_LIMIT).await?;
    for front in &fronts {
        available(*front).await?;
    }

    // The first half; the last node is killed while it indexes.
    let killed = *all.iter().rev().find(|number| **number != leader).context("no follower runs")?;
    let half = texts.len() / 2;
    let place = fronts[leader - 1];
    for (name, text) in texts.iter().take(half) {
        put(place, MANUALS, name, text).await?;
    }
    let at = status(fronts[killed - 1], MANUALS).await?;
    report.embedded_before_kill = at.chunks_embedded;
    cluster.kill(killed)?;
    screen.say(format!(
        "{half} documents are written; kill -9 of node {killed}, which has indexed {} of them and has {} waiting",
        at.documents, at.pending
    ));
    let mut last = 0;
    for (name, text) in texts.iter().skip(half) {
        last = put(place, MANUALS, name, text).await?;
    }
    let restarted = Instant::now();
    cluster.restart(killed).await?;
    available(fronts[killed - 1]).await?;
    for front in &fronts {
        indexed(*front, MANUALS, last).await?;
    }
    report.recovered_ms = ms(restarted.elapsed());
    let states = states(&fronts, MANUALS).await?;
    report.chunks = states[0].1;
    if states.iter().any(|state| *state != (texts.len(), report.chunks)) {
        report
            .failures
            .push(format!("the indexes hold different numbers of documents and chunks: {states:?}"));
    }
    screen.say(format!(
        "node {killed} is back and has indexed everything {} ms after its start: {} documents, {} chunks on every node",
        report.recovered_ms, states[0].0, states[0].1
    ));
    for question in QUESTIONS {
        if alike(&fronts, MANUALS, question, last, report).await? {
            report.questions_alike += 1;
        }
    }
    screen.say(format!("{} questions are answered alike on all nodes", report.questions_alike));
    let mut delays = Vec::new();
    for number in 0..ADDED {
        delays.push(visible(place, fronts[number % NODES], number).await?);
    }
    delays.sort_unstable();
    report.visible_us = us(delays[delays.len() / 2]);
    report.visible_us_max = us(delays[delays.len() - 1]);
    screen.say(format!(
        "{ADDED} more documents, asked on each node in turn: visible after {:.1} ms (median; at most {:.1} ms) and their embedding",
        report.visible_us as f64 / 1000.0,
        report.visible_us_max as f64 / 1000.0
    ));

    let blob_at = long(&fronts, place).await?;
    report.blob_ms = ms(blob_at);
    screen.say(format!(
        "a document that is a blob on one node is fetched, indexed and found on all of them after {} ms",
        report.blob_ms
    ));

    // Both sides of a cut write to the CRDT collection.
    let cut = *cluster.running(&[leader]).first().context("no follower runs")?;
    cluster.order(cut, &Order::Isolate).await?;
    let (own, other) = (fronts[cut - 1], fronts[leader - 1]);
    put(own, NOTES, "cut-off", "The isolated node notes that the harbour lighthouse is dark.").await?;
    put(other, NOTES, "majority", "The majority notes that the railway bridge is closed.").await?;
    put(own, NOTES, "both", "Both sides write this; here the isolated node speaks of herons.").await?;
    put(other, NOTES, "both", "Both sides write this; here the majority speaks of cranes.").await?;
    let refused = try_put(own, MANUALS, "refused", "A write that needs a majority.").await?;
    if refused.is_ok() {
        report.failures.push("the isolated node acknowledged a write that needs a majority".to_owned());
    }
    screen.say(format!(
        "node {cut} is isolated; both sides write to the CRDT collection, and the other one is refused there"
    ));
    let healed = Instant::now();
    cluster.order(cut, &Order::Heal).await?;
    loop {
        let states = self::states(&fronts, NOTES).await?;
        let mut answers = Vec::new();
        for front in &fronts {
            answers.push(hits(*front, NOTES, "lighthouse bridge herons cranes", 0).await?);
        }
        let is_same = answers.windows(2).all(|pair| pair[0] == pair[1]);
        if is_same && states.iter().all(|(documents, _)| *documents == 3) {
            break;
        }
        if healed.elapsed() > STEP_LIMIT {
            bail!("the sides of the cut still answer differently after {STEP_LIMIT:?}: {answers:?}");
        }
        tokio::time::sleep(POLL).await;
    }
    report.merged_ms = ms(healed.elapsed());
    screen.say(format!("healed; all nodes answer alike after {} ms, from 3 notes", report.merged_ms));

    // A document is withdrawn and is gone everywhere.
    let (withdrawn, text) = texts.iter().next().context("there is no document")?;
    let question: String = text.split_whitespace().take(12).collect::<Vec<_>>().join(" ");
    let found = hits(place, MANUALS, &question, last).await?;
    let was_found = found.iter().any(|(document, ..)| document == withdrawn);
    let path = format!("/api/v1/rag/collections/{MANUALS}/documents/{}", encode(withdrawn));
    let removed: Written = ask(place, "DELETE", &path, "application/json", "").await?;
    for front in &fronts {
        let found = hits(*front, MANUALS, &question, removed.revision).await?;
        if found.iter().any(|(document, ..)| document == withdrawn) {
            report.failures.push(format!("{withdrawn} is still found after its removal"));
        }
    }
    let was = if was_found { "was found before and" } else { "" };
    screen.say(format!(
        "{withdrawn} is withdrawn; it {was} is found on no node at revision {}",
        removed.revision
    ));
    cluster.stop().await?;
    report.took_ms = ms(begun.elapsed());
    Ok(())
}

/// The lines that a node's configuration needs for the demo.
fn section(front: SocketAddr, model: &Path) -> String {
    let model = if model == Path::new(super::config::WORDS) {
        model.to_owned()
    } else {
        std::path::absolute(model).unwrap_or_else(|_| model.to_owned())
    };
    format!(
        "[[http]]\naddress = \"{front}\"\nroutes = [\"rag\"]\ntls = \"off\"\n[rag]\nmodel = \"{}\"\n\
         pieces_kib = {PIECES_KIB}\n\
         collections = [{{ name = \"{MANUALS}\" }}, {{ name = \"{NOTES}\", store = \"crdt\" }}]\n",
        model.display()
    )
}

fn texts(folder: &Path, max: u32) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for file in documents::files(&[folder.to_owned()])? {
        if texts.len() >= usize::try_from(max)? {
            break;
        }
        // Longer ones only take longer.
        if let Ok(text) = documents::text(&file)
            && (200..200_000).contains(&text.len())
        {
            texts.insert(commands::name(&file), text);
        }
    }
    if texts.len() < 12 {
        bail!(
            "{} holds only {} usable documents: name another folder with --documents",
            folder.display(),
            texts.len()
        );
    }
    Ok(texts)
}

fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let held =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<Vec<_>, _>>()?;
    held.iter().map(|socket| Ok(socket.local_addr()?)).collect()
}

/// Waits until both collections of a node can be used.
async fn available(front: SocketAddr) -> Result<()> {
    let begun = Instant::now();
    loop {
        let status: Result<Status> = ask(front, "GET", "/api/v1/rag/status", "", "").await;
        match status {
            Ok(status) if status.collections.iter().all(|state| state.unavailable.is_none()) => return Ok(()),
            other if begun.elapsed() > STEP_LIMIT => {
                bail!("the collections of {front} do not open: {other:?}")
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

async fn status(front: SocketAddr, collection: &str) -> Result<super::message::CollectionStatus> {
    let status: Status = ask(front, "GET", "/api/v1/rag/status", "", "").await?;
    let found = status.collections.into_iter().find(|state| state.name == collection);
    found.with_context(|| format!("{front} has no collection {collection}"))
}

/// Documents and chunks on every node.
async fn states(fronts: &[SocketAddr], collection: &str) -> Result<Vec<(usize, usize)>> {
    let mut states = Vec::new();
    for front in fronts {
        let state = status(*front, collection).await?;
        states.push((state.documents, state.chunks));
    }
    Ok(states)
}

/// Waits until a node has indexed everything up to `revision`.
async fn indexed(front: SocketAddr, collection: &str, revision: u64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let state = status(front, collection).await?;
        if state.applied >= revision && state.pending == 0 {
            return Ok(());
        }
        if begun.elapsed() > STEP_LIMIT {
            bail!("{front} has indexed up to {} of {revision} after {STEP_LIMIT:?}", state.applied);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn put(front: SocketAddr, collection: &str, name: &str, text: &str) -> Result<u64> {
    match try_put(front, collection, name, text).await? {
        Ok(written) => Ok(written.revision),
        Err(problem) => bail!("{name} is not written: {}", problem.detail),
    }
}

async fn try_put(
    front: SocketAddr,
    collection: &str,
    name: &str,
    text: &str,
) -> Result<Result<Written, crate::http::problem::Problem>> {
    let request =
        DocumentRequest { text: text.to_owned(), source: "demo".to_owned(), tags: Default::default() };
    let path = format!("/api/v1/rag/collections/{collection}/documents/{}", encode(name));
    try_ask(front, "PUT", &path, "application/json", serde_json::to_vec(&request)?.into()).await
}

/// Documents, revisions and places of the answer.
async fn hits(
    front: SocketAddr,
    collection: &str,
    question: &str,
    min_revision: u64,
) -> Result<Vec<(String, u64, [usize; 2])>> {
    let answer = query(front, &request(collection, question, min_revision)).await?;
    Ok(answer.hits.into_iter().map(|hit| (hit.document, hit.revision, hit.span)).collect())
}

/// Adds a document and asks a node for it: the time until it is visible there, without that of both
/// embeddings. The query has the document's text, so that its embedding takes as long.
async fn visible(place: SocketAddr, front: SocketAddr, number: usize) -> Result<Duration> {
    let line = |n: usize| format!("Line {n} of note {number} is about subject {}. ", n * 7 + number);
    let text: String = (0..40).map(line).collect();
    let revision = put(place, MANUALS, &format!("added{number:02}"), &text).await?;
    let begun = Instant::now();
    let request = QueryRequest { explain: true, ..request(MANUALS, &text, revision) };
    let answer = query(front, &request).await?;
    if answer.applied < revision {
        bail!("{front} answered at revision {}, and {revision} was asked", answer.applied);
    }
    let explain = answer.explain.context("the answer explains nothing")?;
    Ok(begun.elapsed().saturating_sub(2 * Duration::from_micros(explain.embed_us)))
}

/// Adds a document that is a blob, and asks each node for it: the time until all have found it.
async fn long(fronts: &[SocketAddr], place: SocketAddr) -> Result<Duration> {
    // Chunks of equal text are embedded once, so that the length costs little.
    let line = "This line of the long document stands in it many times and says nothing.\n\n";
    let text = line.repeat(PIECES_KIB * 1024 / line.len() + 1) + "Its last line names the bittern.";
    let revision = put(place, MANUALS, "long", &text).await?;
    let begun = Instant::now();
    for front in fronts {
        // By words alone: the vector of a chunk is that of the line that fills it.
        let question = request(MANUALS, "Which line names the bittern?", revision);
        let answer = query(*front, &QueryRequest { mode: Mode::Lexical, ..question }).await?;
        if !answer.hits.iter().any(|hit| hit.document == "long" && hit.revision == revision) {
            let found: Vec<_> = answer.hits.iter().map(|hit| (&hit.document, hit.revision)).collect();
            bail!("{front} does not find the document that is a blob: {found:?}");
        }
    }
    Ok(begun.elapsed())
}

/// Asks a node. While its index lags by more than the node itself waits, as on a starved machine, the query
/// is repeated.
async fn query(front: SocketAddr, request: &QueryRequest) -> Result<QueryAnswer> {
    query_within(front, request, STEP_LIMIT).await
}

async fn query_within(front: SocketAddr, request: &QueryRequest, limit: Duration) -> Result<QueryAnswer> {
    let begun = Instant::now();
    let body = Bytes::from(serde_json::to_vec(request)?);
    loop {
        match try_ask(front, "POST", "/api/v1/rag/query", "application/json", body.clone()).await? {
            Ok(answer) => return Ok(answer),
            Err(problem) if problem.status == 503 && begun.elapsed() < limit => {
                tokio::time::sleep(POLL).await;
            }
            Err(problem) => {
                let after = begun.elapsed();
                bail!("{front} does not answer a query after {after:?}: {}", problem.detail)
            }
        }
    }
}

fn request(collection: &str, question: &str, min_revision: u64) -> QueryRequest {
    QueryRequest {
        collection: collection.to_owned(),
        query: question.to_owned(),
        k: 5,
        filter: Filter::default(),
        mode: Mode::Hybrid,
        min_revision,
        explain: false,
    }
}

async fn alike(
    fronts: &[SocketAddr],
    collection: &str,
    question: &str,
    revision: u64,
    report: &mut Report,
) -> Result<bool> {
    let first = hits(fronts[0], collection, question, revision).await?;
    for front in &fronts[1..] {
        let other = hits(*front, collection, question, revision).await?;
        if first.is_empty() || other != first {
            report.failures.push(format!("`{question}` is answered differently: {first:?} and {other:?}"));
            return Ok(false);
        }
    }
    Ok(true)
}

fn table(report: &Report) -> String {
    let rows = [
        ("documents", report.documents.to_string(), "on every node".to_owned()),
        ("chunks", report.chunks.to_string(), "on every node".to_owned()),
        (
            "killed node indexed",
            format!("{} ms", report.recovered_ms),
            format!("from its start; it had embedded {} chunks before kill -9", report.embedded_before_kill),
        ),
        (
            "answered alike",
            report.questions_alike.to_string(),
            format!("of {} questions, on all nodes", QUESTIONS.len()),
        ),
        (
            "visible after",
            format!("{:.1} ms", report.visible_us as f64 / 1000.0),
            format!(
                "from the acknowledgement of a document, without embeddings; at most {:.1} ms",
                report.visible_us_max as f64 / 1000.0
            ),
        ),
        (
            "blob found",
            format!("{} ms", report.blob_ms),
            "on all nodes, from the acknowledgement of a document that is a blob on one".to_owned(),
        ),
        (
            "both sides merged",
            format!("{} ms", report.merged_ms),
            "from the healing to equal answers".to_owned(),
        ),
    ];
    let mut text = String::new();
    for (name, value, note) in rows {
        text.push_str(&format!("  {name:<20}  {value:>9}  {note}\n"));
    }
    let took = format!("{:.1} s", report.took_ms as f64 / 1000.0);
    if report.held {
        text.push_str(&format!("\n  Every check passed, in {took}.\n"));
    } else {
        text.push_str(&format!("\n  FAILED ({took}): {}.\n", report.failures.join("; ")));
    }
    text
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::http::problem::Problem;

    /// Answers each request with the next status, on a connection of its own.
    async fn answers(statuses: &'static [u16]) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async move {
            for status in statuses {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                // The last member of the body.
                while !request.ends_with(b"\"explain\":false}") {
                    assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "a request without an end");
                }
                let body = match status {
                    200 => r#"{"applied": 7, "hits": []}"#.to_owned(),
                    status => serde_json::to_string(&Problem::new(*status, "it lags")).unwrap(),
                };
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        };
        (address, tokio::spawn(serve))
    }

    #[tokio::test]
    async fn a_query_waits_for_a_node_whose_index_lags() {
        let request = request(MANUALS, "a question", 7);
        let (front, served) = answers(&[503, 503, 200]).await;
        assert_eq!(query(front, &request).await.unwrap().applied, 7);
        served.await.unwrap();
        // Not for ever, and not for what another attempt does not change.
        let (front, served) = answers(&[503]).await;
        let error = query_within(front, &request, Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.contains("it lags") && error.contains(&front.to_string()), "{error}");
        served.await.unwrap();
        let (front, served) = answers(&[400]).await;
        assert!(query(front, &request).await.is_err());
        served.await.unwrap();
    }
}
