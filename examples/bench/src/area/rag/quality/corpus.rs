//! Pages of Debian manuals, and headings as queries.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::Chunks;
use crate::peer::debian;

const PACKAGES: [&str; 3] = ["postgresql-doc-15", "debian-handbook", "debian-policy"];
/// Characters below a heading that an answer is judged by, and the share of them that a chunk must hold.
const JUDGED: usize = 400;
const SHARE: f64 = 0.6;
/// Sections with less text are no answers.
const SECTION_MIN: usize = 200;

/// A page without its headings.
pub(crate) struct Page {
    pub(crate) text: String,
}

/// A heading and the place of what it announces.
pub(crate) struct Question {
    pub(crate) text: String,
    page: usize,
    /// The bytes of the first characters below it.
    span: Range<usize>,
}

impl Question {
    /// The numbers of the relevant chunks.
    pub(crate) fn relevant(&self, chunks: &Chunks) -> Vec<usize> {
        let least = SHARE * self.span.len() as f64;
        let holds = |span: &Range<usize>| {
            let common = span.end.min(self.span.end).saturating_sub(span.start.max(self.span.start));
            common as f64 >= least
        };
        let all = chunks.chunks.iter().enumerate();
        all.filter(|(_, (page, chunk))| *page == self.page && holds(&chunk.span)).map(|(id, _)| id).collect()
    }
}

pub(crate) struct Corpus {
    pub(crate) pages: Vec<Page>,
    pub(crate) queries: Vec<Question>,
}

impl Corpus {
    /// Fetches the packages and reads every `every`-th page.
    pub(crate) fn make(every: usize) -> Result<Self> {
        let root = debian::fetch("rag-manuals", &PACKAGES)?.join("usr/share/doc");
        let mut files = Vec::new();
        for folder in ["postgresql-doc-15/html", "debian-handbook/html/en-US", "debian-policy"] {
            below(&root.join(folder), &mut files)?;
        }
        ensure!(
            !files.is_empty(),
            "{} holds no pages: remove the folder, it is fetched again",
            root.display()
        );
        let (mut pages, mut found) = (Vec::new(), Vec::new());
        for file in files.iter().step_by(every.max(1)) {
            let html = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
            let (text, headings) = split(&html);
            if text.len() < SECTION_MIN {
                continue;
            }
            for (place, (heading, start)) in headings.iter().enumerate() {
                let end = headings.get(place + 1).map_or(text.len(), |(_, start)| *start);
                let section = &text[*start..end];
                let judged = section.char_indices().nth(JUDGED).map_or(section.len(), |(at, _)| at);
                if section.trim().len() >= SECTION_MIN {
                    found.push(Question {
                        text: heading.clone(),
                        page: pages.len(),
                        span: *start..*start + judged,
                    });
                }
            }
            pages.push(Page { text });
        }
        let mut counts: HashMap<String, usize> = HashMap::new();
        for question in &found {
            *counts.entry(question.text.to_lowercase()).or_default() += 1;
        }
        found.retain(|question| {
            counts[&question.text.to_lowercase()] == 1 && question.text.split_whitespace().count() >= 2
        });
        Ok(Self { pages, queries: found })
    }
}

fn below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            below(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "html") {
            files.push(path);
        }
    }
    Ok(())
}

/// The text of a page without headings, and the headings with the places where their text begins.
fn split(html: &str) -> (String, Vec<(String, usize)>) {
    let (mut text, mut headings, mut rest) = (String::new(), Vec::new(), html);
    let mut heading: Option<String> = None;
    loop {
        let at = rest.find('<').unwrap_or(rest.len());
        push(heading.as_mut().unwrap_or(&mut text), &rest[..at]);
        rest = &rest[at..];
        let Some(end) = rest.find('>') else { return (text, headings) };
        let tag = rest[1..end].to_ascii_lowercase();
        rest = &rest[end + 1..];
        let name: String =
            tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
        let is_heading =
            name.len() == 2 && name.starts_with('h') && name.ends_with(|c: char| ('1'..='6').contains(&c));
        match (tag.starts_with('/'), name.as_str()) {
            (false, "script" | "style" | "head") => {
                let close = format!("</{name}");
                rest = rest.find(&close).map_or("", |end| &rest[end..]);
            }
            (false, _) if is_heading => heading = Some(String::new()),
            (true, _) if is_heading => {
                let words = heading.take().unwrap_or_default();
                let words = words.trim().trim_start_matches(|c: char| c.is_numeric() || ". ".contains(c));
                let words = words.trim_end_matches(['¶', '#', '\u{f0c1}', ' ']).to_owned();
                end_paragraph(&mut text);
                if !words.is_empty() {
                    headings.push((words, text.len()));
                }
            }
            (_, "p" | "div" | "li" | "tr" | "pre" | "dt" | "dd" | "table" | "ul") if heading.is_none() => {
                end_paragraph(&mut text);
            }
            _ => {}
        }
    }
}

fn end_paragraph(text: &mut String) {
    if !text.is_empty() && !text.ends_with("\n\n") {
        text.push_str("\n\n");
    }
}

fn push(to: &mut String, part: &str) {
    let part = part.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&nbsp;", " ");
    let part = part.replace("&#160;", " ").replace("&#8217;", "'").replace("&amp;", "&");
    for c in part.chars() {
        if !c.is_whitespace() {
            to.push(c);
        } else if !to.is_empty() && !to.ends_with(char::is_whitespace) {
            to.push(' ');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn headings_are_taken_out_of_the_text() {
        let (text, headings) = split(
            "<head><title>t</title></head><p>intro</p><h2>2.1. First <b>one</b>¶</h2><p>a &amp; b</p><h3>Next</h3>c",
        );
        assert_eq!(text, "intro\n\na & b\n\nc");
        assert_eq!(headings, [("First one".to_owned(), 7), ("Next".to_owned(), 14)]);
    }
}
