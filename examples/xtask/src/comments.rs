//! Comment lines that are longer than `max_width` of rustfmt.toml, which rustfmt itself only reports with
//! unstable options.
//!
//! Tables, headings, link definitions, fenced code and lines without a space cannot be wrapped and are let
//! through.

use anyhow::{Context, Result};

use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace, is_fix: bool, paths: &[String]) -> Result<Vec<String>> {
    let settings: toml::Table =
        workspace.read("rustfmt.toml")?.parse().context("cannot parse rustfmt.toml")?;
    let max = settings
        .get("max_width")
        .and_then(toml::Value::as_integer)
        .context("rustfmt.toml has no `max_width`")?;
    let max = usize::try_from(max)?;
    let mut findings = Vec::new();
    for name in workspace.files(&[".rs"])? {
        if !paths.is_empty() && !paths.iter().any(|path| name.starts_with(path.as_str())) {
            continue;
        }
        let before = workspace.read(&name)?;
        let after = wrap(&before, max);
        if is_fix && after != before {
            workspace.write(&name, &after)?;
        }
        for number in too_long(if is_fix { &after } else { &before }, max) {
            findings.push(format!(
                "{name}:{number}: the comment is longer than {max} columns; run `cargo xtask comments --fix`, or move it to a line \
                 of its own"
            ));
        }
    }
    Ok(findings)
}

/// A line that is nothing but a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Comment<'a> {
    indent: usize,
    marker: &'a str,
    text: &'a str,
}

impl<'a> Comment<'a> {
    fn parse(line: &'a str) -> Option<Comment<'a>> {
        let code = line.trim_start_matches(' ');
        let marker = ["//!", "///", "//"].into_iter().find(|marker| code.starts_with(marker))?;
        let text = &code[marker.len()..];
        // `////` is a ruler and `//~` an annotation, not prose.
        let is_prose = text.is_empty() || text.starts_with(' ');
        is_prose.then(|| Comment {
            indent: line.len() - code.len(),
            marker,
            text: text.strip_prefix(' ').unwrap_or(text),
        })
    }

    fn is_fixed(&self) -> bool {
        let text = self.text.trim_start();
        text.starts_with('|')
            || text.starts_with('#')
            || text.starts_with('[') && text.contains("]: ")
            || !text.contains(' ')
    }

    /// The width of a list marker with its space, 0 if the line starts no list item.
    fn item(&self) -> usize {
        let text = self.text.trim_start();
        let lead = self.text.len() - text.len();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        if text.starts_with("- ") || text.starts_with("* ") {
            lead + 2
        } else if digits > 0 && text[digits..].starts_with(". ") {
            lead + digits + 2
        } else {
            0
        }
    }
}

fn width(line: &str) -> usize {
    line.chars().count()
}

/// The numbers of the lines, counted from 1, whose comment is too long and could be wrapped.
fn too_long(source: &str, max: usize) -> Vec<usize> {
    let mut is_code = false;
    let mut numbers = Vec::new();
    for (number, line) in (1..).zip(source.lines()) {
        let Some(comment) = Comment::parse(line) else {
            is_code = false;
            // A comment after code: rustfmt leaves it where it is.
            if width(line) > max && line.rfind(" // ").is_some_and(|at| !line[at..].contains('"')) {
                numbers.push(number);
            }
            continue;
        };
        if comment.text.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if width(line) > max && !is_code && !comment.is_fixed() {
            numbers.push(number);
        }
    }
    numbers
}

fn wrap(source: &str, max: usize) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let mut out = String::new();
    let (mut at, mut is_code) = (0, false);
    while at < lines.len() {
        let Some(first) = Comment::parse(lines[at]) else {
            is_code = false;
            out.extend([lines[at], "\n"]);
            at += 1;
            continue;
        };
        let is_fence = first.text.trim_start().starts_with("```");
        is_code ^= is_fence;
        if is_code || is_fence || first.text.trim().is_empty() || first.is_fixed() {
            out.extend([lines[at], "\n"]);
            at += 1;
            continue;
        }
        let continues = |line: &&&str| {
            Comment::parse(line).is_some_and(|next| {
                next.indent == first.indent
                    && next.marker == first.marker
                    && next.item() == 0
                    && !next.text.trim().is_empty()
                    && !next.text.trim_start().starts_with("```")
                    && !next.text.trim_start().starts_with(['|', '#'])
            })
        };
        let end = at + 1 + lines[at + 1..].iter().take_while(continues).count();
        let paragraph = &lines[at..end];
        if paragraph.iter().any(|line| width(line) > max) {
            out.push_str(&rewrap(first, paragraph, max));
        } else {
            paragraph.iter().for_each(|line| out.extend([line, "\n"]));
        }
        at = end;
    }
    out
}

fn rewrap(first: Comment<'_>, paragraph: &[&str], max: usize) -> String {
    let lead = " ".repeat(first.indent) + first.marker + " ";
    let hanging =
        if first.item() > 0 { first.item() } else { first.text.len() - first.text.trim_start().len() };
    let text: Vec<&str> =
        paragraph.iter().filter_map(|line| Comment::parse(line)).map(|line| line.text.trim()).collect();
    let mut out = String::new();
    let mut line = lead.clone() + &first.text[..first.text.len() - first.text.trim_start().len()];
    let mut is_empty = true;
    for word in words(&text.join(" ")) {
        if !is_empty && width(&line) + 1 + width(&word) > max {
            out.push_str(&line);
            out.push('\n');
            line = lead.clone() + &" ".repeat(hanging);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(&word);
        is_empty = false;
    }
    out + &line + "\n"
}

/// The words of a text. A code span is one word, and so are a word and what would start a list or a heading
/// after it.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_span = false;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        let is_mark = matches!(word, "-" | "+" | "*" | ">" | "=" | "|")
            || word.starts_with('#')
            || digits > 0 && word[digits..] == *".";
        match words.last_mut() {
            Some(last) if is_span || is_mark => {
                last.push(' ');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
        is_span ^= word.matches('`').count() % 2 == 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expect: &str) {
        assert_eq!(wrap(source, 20), expect);
        assert_eq!(wrap(expect, 20), expect, "wrapping is not stable");
        assert!(too_long(expect, 20).is_empty(), "{expect}");
    }

    #[test]
    fn paragraphs_are_wrapped_and_short_ones_left_alone() {
        check(
            "// one two three four five\n// six\nlet a = 1;\n",
            "// one two three\n// four five six\nlet a = 1;\n",
        );
        check("// one\n// two\n", "// one\n// two\n");
        check("    /// one two three four\n", "    /// one two\n    /// three four\n");
    }

    #[test]
    fn list_items_hang() {
        check(
            "//! - one two three four five\n//! - six\n",
            "//! - one two three\n//!   four five\n//! - six\n",
        );
        check("//! 1. one two three four\n", "//! 1. one two three\n//!    four\n");
    }

    #[test]
    fn code_tables_headings_and_long_words_stay() {
        for kept in [
            "/// ```\n/// let long = 1 + 2 + 3 + 4;\n/// ```\n",
            "/// | one | two | three | four |\n",
            "/// # A heading that is long\n",
            "/// https://example.org/a/b/c/d\n",
        ] {
            check(kept, kept);
        }
    }

    #[test]
    fn code_spans_are_not_torn_and_no_list_is_made() {
        check("// aaaa bbbb `cc dd ee` ffff\n", "// aaaa bbbb\n// `cc dd ee` ffff\n");
        check("// aaaa bbbb ccccc - dd e\n", "// aaaa bbbb ccccc -\n// dd e\n");
    }

    #[test]
    fn comments_after_code_are_found() {
        assert_eq!(too_long("let a = 1; // one two three\n", 20), [1]);
        assert_eq!(too_long("let a = \"http // x y z\";\n", 20), Vec::<usize>::new());
    }
}
