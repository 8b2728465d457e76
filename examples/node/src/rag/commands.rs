//! The commands of `x0-node rag`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use hyper::body::Bytes;

use super::cli::{Place, RagArgs, RagCommand};
use super::message::{CollectionStatus, DocumentRequest, Filter, QueryAnswer, QueryRequest, Status, Written};
use super::{demo, documents, fetch};
use crate::causes::causes;
use crate::http::client::{ask, encode, try_ask};

const JSON: &str = "application/json";
/// The time between looks at the files with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// The time between looks at the node while documents are sent.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// The characters of an excerpt.
const EXCERPT_LEN: usize = 240;

/// Carries out a command. `false`: the demo ran, and a check failed.
pub(crate) async fn rag(args: RagArgs) -> Result<bool> {
    match args.command {
        RagCommand::Model { dir } => {
            let folder = fetch::model(&dir)?;
            print(&format!(
                "The model is in {0} and is all-MiniLM-L6-v2. In node.toml:\n    [rag]\n    model = \"{0}\"\n",
                std::path::absolute(&folder)?.display()
            ))?;
        }
        RagCommand::Add { paths, source, tags, watch, place } => {
            let tags = tags.into_iter().collect();
            add(&paths, &Adding { source: &source, tags: &tags, place: &place }, watch).await?;
        }
        RagCommand::Query { text, k, mode, source, tag, min_revision, json, place } => {
            let filter = Filter { source, tag, ..Filter::default() };
            let collection = place.collection.clone();
            let request =
                QueryRequest { collection, query: text, k, filter, mode, min_revision, explain: json };
            let answer: QueryAnswer =
                ask(place.address, "POST", "/api/v1/rag/query", JSON, serde_json::to_vec(&request)?).await?;
            print(&if json { format!("{}\n", serde_json::to_string(&answer)?) } else { passages(&answer) })?;
        }
        RagCommand::Rm { documents, place } => {
            for document in &documents {
                let removed: Written =
                    ask(place.address, "DELETE", &path(&place, document), JSON, "").await?;
                print(&format!("{document}: removed at revision {}\n", removed.revision))?;
            }
        }
        RagCommand::Status { address, json } => {
            let status: Status = ask(address, "GET", "/api/v1/rag/status", JSON, "").await?;
            print(&if json { format!("{}\n", serde_json::to_string(&status)?) } else { table(&status) })?;
        }
        RagCommand::Demo(args) => return demo::run(args).await,
    }
    Ok(true)
}

fn path(place: &Place, document: &str) -> String {
    format!("/api/v1/rag/collections/{}/documents/{}", encode(&place.collection), encode(document))
}

/// Names of files as documents: their paths without the first `/`.
pub(crate) fn name(file: &Path) -> String {
    file.to_string_lossy().trim_start_matches("./").trim_start_matches('/').to_owned()
}

/// Files that were added, each with the time of its last change.
pub(super) type Seen = BTreeMap<PathBuf, Option<SystemTime>>;

/// Where files go to, and as what.
pub(super) struct Adding<'a> {
    pub(super) source: &'a str,
    pub(super) tags: &'a BTreeSet<String>,
    pub(super) place: &'a Place,
}

/// Adds files, and with `watch` goes on until it is interrupted: what fails then is tried again.
async fn add(paths: &[PathBuf], adding: &Adding<'_>, watch: bool) -> Result<()> {
    let (mut seen, mut last) = (Seen::new(), String::new());
    loop {
        let followed = follow(paths, adding, &mut seen).await;
        if !watch {
            return followed.and_then(|skipped| {
                anyhow::ensure!(skipped == 0 || skipped < seen.len(), "no file was added");
                Ok(())
            });
        }
        let why = followed.err().map(|error| causes(&error)).unwrap_or_default();
        // A node that is away is reported once.
        if !why.is_empty() && why != last {
            print(&format!("{why}; trying again\n"))?;
        }
        last = why;
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// Adds files that are new or changed, and removes the documents of those that are gone. Returns the number
/// of files that cannot be read. After an error, `seen` says what was done.
pub(super) async fn follow(paths: &[PathBuf], adding: &Adding<'_>, seen: &mut Seen) -> Result<usize> {
    let now: Seen = documents::files(paths)?
        .into_iter()
        .map(|file| {
            let changed = std::fs::metadata(&file).and_then(|data| data.modified()).ok();
            (file, changed)
        })
        .collect();
    let mut skipped = 0;
    let changed: Vec<_> = now.iter().filter(|(file, time)| seen.get(*file) != Some(time)).collect();
    if !changed.is_empty() {
        skipped = add_files(&changed, adding, seen).await?;
    }
    let gone: Vec<PathBuf> = seen.keys().filter(|file| !now.contains_key(*file)).cloned().collect();
    for file in gone {
        let document = path(adding.place, &name(&file));
        let removed =
            try_ask::<Written>(adding.place.address, "DELETE", &document, JSON, Bytes::new()).await?;
        match removed {
            Ok(removed) => print(&format!("{}: removed at revision {}\n", name(&file), removed.revision))?,
            // Another client removed it, or the answer to this one was lost.
            Err(problem) if problem.status == 404 => {}
            Err(problem) => bail!("{}: not removed: {}", name(&file), problem.detail),
        }
        seen.remove(&file);
    }
    Ok(skipped)
}

/// Adds files and waits until they are indexed. Returns the number of those that cannot be read.
async fn add_files(
    files: &[(&PathBuf, &Option<SystemTime>)],
    adding: &Adding<'_>,
    seen: &mut Seen,
) -> Result<usize> {
    let Adding { source, tags, place } = adding;
    let before = chunks(place).await?;
    let begun = Instant::now();
    // Also an error takes the bar off the terminal.
    let bar =
        indicatif::ProgressBar::new(files.len() as u64).with_finish(indicatif::ProgressFinish::AndClear);
    // An invalid template falls back to the default.
    if let Ok(style) =
        indicatif::ProgressStyle::with_template("[{bar:40}] {pos}/{len} documents indexed, {msg}, {eta} left")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    // The node indexes while the next documents are sent.
    let progress = |status: &CollectionStatus, sent: usize| {
        let done = status.chunks.saturating_sub(before) as f64;
        bar.set_message(format!("{:.0} chunks/s", done / begun.elapsed().as_secs_f64()));
        bar.set_position(sent.saturating_sub(status.pending) as u64);
    };
    let (mut last, mut skipped, mut asked) = (0, Vec::new(), begun);
    for (sent, (file, changed)) in files.iter().enumerate() {
        match documents::text(file) {
            Ok(text) => {
                let request = DocumentRequest { text, source: (*source).to_owned(), tags: (*tags).clone() };
                let body = serde_json::to_vec(&request)?;
                let document = path(place, &name(file));
                let written: Written = ask(place.address, "PUT", &document, JSON, body)
                    .await
                    .with_context(|| format!("{} was not added", file.display()))?;
                last = written.revision;
            }
            Err(error) => skipped.push(causes(&error)),
        }
        seen.insert((*file).clone(), **changed);
        if asked.elapsed() >= PROGRESS_INTERVAL {
            asked = Instant::now();
            progress(&collection(place).await?, sent + 1);
        }
    }
    loop {
        let status = collection(place).await?;
        if status.applied >= last && status.pending == 0 {
            bar.finish_and_clear();
            for why in &skipped {
                print(&format!("skipped: {why}\n"))?;
            }
            let (done, seconds) = (status.chunks.saturating_sub(before), begun.elapsed().as_secs_f64());
            print(&format!(
                "{} documents added up to revision {last}: {done} chunks more, {seconds:.1} s, {:.0} chunks/s\n",
                files.len() - skipped.len(),
                done as f64 / seconds
            ))?;
            return Ok(skipped.len());
        }
        progress(&status, files.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn chunks(place: &Place) -> Result<usize> {
    Ok(collection(place).await?.chunks)
}

async fn collection(place: &Place) -> Result<CollectionStatus> {
    let status: Status = ask(place.address, "GET", "/api/v1/rag/status", JSON, "").await?;
    let found = status.collections.into_iter().find(|collection| collection.name == place.collection);
    let found = found.with_context(|| {
        format!("the node has no collection {}; name another one with --collection", place.collection)
    })?;
    match &found.unavailable {
        Some(why) => bail!("the collection {} cannot be used: {why}", place.collection),
        None => Ok(found),
    }
}

/// The passages with excerpt and ranks.
fn passages(answer: &QueryAnswer) -> String {
    if answer.hits.is_empty() {
        return "no passage found\n".to_owned();
    }
    let mut text = String::new();
    if answer.truncated {
        text.push_str("The query is longer than the model takes; its end counts for the words only.\n");
    }
    let rank = |rank: Option<usize>| rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string());
    for (place, hit) in (1..).zip(&answer.hits) {
        text.push_str(&format!(
            "{place:>2}. {} [{}..{}]  score {:.4}, by meaning {}, by words {}\n",
            hit.document,
            hit.span[0],
            hit.span[1],
            hit.score,
            rank(hit.rank_dense),
            rank(hit.rank_lexical)
        ));
        let passage = hit.text.as_deref().unwrap_or("(no text: the document changed, or is too long)");
        let words: Vec<&str> = passage.split_whitespace().collect();
        let mut excerpt: String = words.join(" ").chars().take(EXCERPT_LEN).collect();
        if excerpt.len() < passage.len() {
            excerpt.push('…');
        }
        text.push_str(&format!("    {excerpt}\n"));
        if !hit.alike.is_empty() {
            text.push_str(&format!("    nearly the same in {}\n", hit.alike.join(", ")));
        }
    }
    text
}

fn table(status: &Status) -> String {
    let mut text = format!("model {}\n", status.model);
    text.push_str(&format!(
        "{:<20}  {:<12}  {:>9}  {:>8}  {:>8}  {:>20}\n",
        "collection", "store", "documents", "chunks", "pending", "applied"
    ));
    for row in &status.collections {
        text.push_str(&format!(
            "{:<20}  {:<12}  {:>9}  {:>8}  {:>8}  {:>20}\n",
            row.name, row.store, row.documents, row.chunks, row.pending, row.applied
        ));
        if let Some(why) = &row.unavailable {
            text.push_str(&format!("  cannot be used: {why}\n"));
        }
        if row.documents_left_out > 0 {
            let count = row.documents_left_out;
            text.push_str(&format!(
                "  left out: {count} (not complete on this node, or failed too often; tried again within minutes)\n"
            ));
        }
    }
    text
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}
