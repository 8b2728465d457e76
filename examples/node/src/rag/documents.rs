//! Files as documents: plain text, Markdown and HTML.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Longest file that is read, in bytes.
pub(crate) const FILE_LEN_MAX: u64 = 16 << 20;

/// The files that `paths` name: a file itself, and of a folder all txt, md and html files below it, in the
/// order of their names.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let kind = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        if kind.is_dir() { below(path, &mut found)? } else { found.push(path.clone()) }
    }
    Ok(found)
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        // Links are not followed: they may lead out of the folder, or around in a circle.
        let kind = entry.file_type()?;
        let path = entry.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if kind.is_dir() {
            below(&path, found)?;
        } else if kind.is_file() && matches!(extension, Some("txt" | "md" | "html" | "htm")) {
            found.push(path);
        }
    }
    Ok(())
}

/// The text of a file. What is not UTF-8 is replaced.
pub(crate) fn text(path: &Path) -> Result<String> {
    let len = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    anyhow::ensure!(
        len <= FILE_LEN_MAX,
        "{} has {len} bytes; split it into files of at most {FILE_LEN_MAX}",
        path.display()
    );
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let extension = path.extension().and_then(|extension| extension.to_str());
    Ok(if matches!(extension, Some("html" | "htm")) { html(&text) } else { text })
}

/// The text of an HTML page: without tags, comments, scripts and styles; block elements end a paragraph.
fn html(page: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(page.len() / 2), page);
    while let Some(at) = rest.find('<') {
        push(&mut text, &rest[..at]);
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let Some(end) = rest.find('>') else { return text };
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase();
        match name.as_str() {
            "script" | "style" | "head" if !tag.starts_with('/') => {
                let close = format!("</{name}");
                let lower = rest.to_ascii_lowercase();
                rest = lower.find(&close).map_or("", |end| &rest[end..]);
            }
            "p" | "div" | "section" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "li" | "ul" | "ol"
            | "table" | "tr" | "pre" | "dt" | "dd" | "dl" | "blockquote" | "hr" => paragraph(&mut text),
            "br" => text.push('\n'),
            _ => {}
        }
    }
    push(&mut text, rest);
    text
}

fn paragraph(text: &mut String) {
    if !text.is_empty() && !text.ends_with("\n\n") {
        text.push_str("\n\n");
    }
}

/// Appends characters with their references replaced and runs of white space as one space.
fn push(text: &mut String, part: &str) {
    let mut rest = part;
    while let Some(at) = rest.find('&') {
        words(text, &rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(12).position(|byte| byte == b';');
        let replaced = end.and_then(|end| reference(&rest[1..end]).map(|c| (c, end)));
        match replaced {
            Some((c, end)) => {
                text.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                text.push('&');
                rest = &rest[1..];
            }
        }
    }
    words(text, rest);
}

fn words(text: &mut String, part: &str) {
    for c in part.chars() {
        if !c.is_whitespace() {
            text.push(c);
        } else if !text.is_empty() && !text.ends_with(char::is_whitespace) {
            text.push(' ');
        }
    }
}

fn reference(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_becomes_text() {
        let page = "<html><head><title>no</title><style>p {}</style></head><body><h1>A &amp; B</h1><!-- <p> --><p>one\n  two \
                    <b>bold</b>&#33;&#x3f; &bogus; R&D</p><script>if (a < b) {}</script><ul><li>item<li>next</ul>a<br>b";
        assert_eq!(html(page), "A & B\n\none two bold!? &bogus; R&D\n\nitem\n\nnext\n\na\nb");
        for cut in (0..page.len()).filter(|cut| page.is_char_boundary(*cut)) {
            html(&page[..cut]);
        }
        assert_eq!(html("a < b"), "a ");
        assert_eq!(html("<p>größe &ä; <!-- open"), "größe &ä; ");
    }

    #[test]
    fn folders_are_searched_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("sub")).unwrap();
        for name in ["b.txt", "a.md", "sub/c.html", "d.bin"] {
            std::fs::write(path(name), "<p>text").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path(), path("loop")).unwrap();
        let found = files(&[folder.path().to_owned(), path("d.bin")]).unwrap();
        assert_eq!(found, [path("a.md"), path("b.txt"), path("sub/c.html"), path("d.bin")]);
        assert_eq!(
            (text(&found[0]).unwrap().as_str(), text(&found[2]).unwrap().as_str()),
            ("<p>text", "text")
        );
        assert!(files(&[path("missing")]).is_err());
    }
}
