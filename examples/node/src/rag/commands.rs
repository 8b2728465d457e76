//! The commands of `x0-node rag`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

use super::cli::{Place, RagArgs, RagCommand};
use super::message::{DocumentRequest, Filter, QueryAnswer, QueryRequest, Status, Written};
use super::{demo, documents, fetch};
use crate::causes::causes;
use crate::http::client::{ask, encode};

const JSON: &str = "application/json";
/// The time between looks at the files with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
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
            add(&paths, &source, &tags.into_iter().collect(), watch, &place).await?;
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

/// Adds files, and with `watch` goes on until it is interrupted.
async fn add(
    paths: &[PathBuf],
    source: &str,
    tags: &BTreeSet<String>,
    watch: bool,
    place: &Place,
) -> Result<()> {
    let mut seen: BTreeMap<PathBuf, Option<SystemTime>> = BTreeMap::new();
    loop {
        let now: BTreeMap<PathBuf, Option<SystemTime>> = documents::files(paths)?
            .into_iter()
            .map(|file| {
                let changed = std::fs::metadata(&file).and_then(|data| data.modified()).ok();
                (file, changed)
            })
            .collect();
        let changed: Vec<&PathBuf> =
            now.iter().filter(|(file, time)| seen.get(*file) != Some(time)).map(|(file, _)| file).collect();
        if !changed.is_empty() {
            add_files(&changed, source, tags, place, watch).await?;
        }
        for file in seen.keys().filter(|file| !now.contains_key(*file)) {
            let removed: Result<Written> =
                ask(place.address, "DELETE", &path(place, &name(file)), JSON, "").await;
            match removed {
                Ok(removed) => print(&format!("{}: removed at revision {}\n", name(file), removed.revision))?,
                Err(error) => print(&format!("{}: not removed: {}\n", name(file), causes(&error)))?,
            }
        }
        if !watch {
            return Ok(());
        }
        seen = now;
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

async fn add_files(
    files: &[&PathBuf],
    source: &str,
    tags: &BTreeSet<String>,
    place: &Place,
    watch: bool,
) -> Result<()> {
    let before = chunks(place).await?;
    let begun = Instant::now();
    let bar = indicatif::ProgressBar::new(files.len() as u64);
    // An invalid template falls back to the default.
    if let Ok(style) =
        indicatif::ProgressStyle::with_template("[{bar:40}] {pos}/{len} documents, {msg}, {eta} left")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    let (mut last, mut skipped) = (0, Vec::new());
    for file in files {
        let text = match documents::text(file) {
            Ok(text) => text,
            Err(error) => {
                skipped.push(causes(&error));
                continue;
            }
        };
        let request = DocumentRequest { text, source: source.to_owned(), tags: tags.clone() };
        let body = serde_json::to_vec(&request)?;
        let written: Written = ask(place.address, "PUT", &path(place, &name(file)), JSON, body).await?;
        last = written.revision;
        bar.set_message(format!("{:.0} documents/s", bar.position() as f64 / begun.elapsed().as_secs_f64()));
        bar.inc(1);
    }
    bar.finish_and_clear();
    for why in &skipped {
        print(&format!("skipped: {why}\n"))?;
    }
    if skipped.len() == files.len() && !watch {
        bail!("no file was added");
    }
    // The node indexes them meanwhile.
    loop {
        let status = collection(place).await?;
        let done = status.chunks.saturating_sub(before);
        if status.applied >= last && status.pending == 0 {
            let seconds = begun.elapsed().as_secs_f64();
            return print(&format!(
                "{} documents added up to revision {last}: {} chunks more, {seconds:.1} s, {:.0} chunks/s\n",
                files.len() - skipped.len(),
                done,
                done as f64 / seconds
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn chunks(place: &Place) -> Result<usize> {
    Ok(collection(place).await?.chunks)
}

async fn collection(place: &Place) -> Result<super::message::CollectionStatus> {
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
    let rank = |rank: Option<usize>| rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string());
    let mut text = String::new();
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
        let passage = hit.text.as_deref().unwrap_or("(the document changed since it was indexed)");
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
            text.push_str(&format!("  {} documents were left out after failures\n", row.documents_left_out));
        }
    }
    text
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}
