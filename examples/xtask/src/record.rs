//! The output of a command as an animated terminal (SVG): each line appears when the command wrote it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::diagram::escape;
use crate::workspace::Workspace;

const COLUMNS: usize = 100;
const LINE_HEIGHT: usize = 18;
const CHARACTER_WIDTH: f64 = 7.83;
const MARGIN: usize = 16;
/// How long the last picture stays before the recording starts again.
const REST: Duration = Duration::from_secs(8);

pub(crate) fn run(workspace: &Workspace, out: &str, title: &str, command: &[String]) -> Result<Vec<String>> {
    let (program, arguments) = command.split_first().context("name a command after `--`")?;
    let begun = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let output = child.stdout.take().context("the command has no output")?;
    let mut lines = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.context("the command wrote a line that is not UTF-8")?;
        let at = begun.elapsed();
        lines.extend(wrap(&line).into_iter().map(|line| (at, line)));
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{program} failed ({status}): nothing is recorded");
    }
    workspace.write(out, &draw(title, &lines))?;
    Ok(Vec::new())
}

/// A line of the terminal for each `COLUMNS` characters, broken at spaces; continuations are indented like
/// the text of the demo.
fn wrap(line: &str) -> Vec<String> {
    let indent = " ".repeat(10);
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let is_full = |line: &String| line.chars().count() + word.trim_end().chars().count() > COLUMNS;
        if lines.last().is_some_and(|line| is_full(line) && !line.trim().is_empty()) {
            lines.push(indent.clone());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(word);
        }
    }
    lines
}

fn draw(title: &str, lines: &[(Duration, String)]) -> String {
    let end = lines.last().map_or(Duration::ZERO, |(at, _)| *at) + REST;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundred pixels")]
    let width = (COLUMNS as f64 * CHARACTER_WIDTH) as usize + 2 * MARGIN;
    let height = (lines.len() + 2) * LINE_HEIGHT + 2 * MARGIN;
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"A recorded terminal: {0}\">\n\
         <!-- Written by `cargo xtask record` from one run. -->\n\
         <style>\n\
         text {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 13px; fill: #e6edf3; \
         white-space: pre }}\n\
         .prompt {{ fill: #7ee787 }}\n\
         @media (prefers-reduced-motion: reduce) {{ text {{ animation: none !important }} }}\n",
        escape(title)
    );
    let mut styles: Vec<Duration> = lines.iter().map(|(at, _)| *at).collect();
    styles.dedup();
    for (number, at) in styles.iter().enumerate() {
        let share = 100.0 * at.as_secs_f64() / end.as_secs_f64();
        let _ = writeln!(
            svg,
            "@keyframes k{number} {{ 0%, {share:.2}% {{ opacity: 0 }} {:.2}%, 100% {{ opacity: 1 }} }}\n\
             .l{number} {{ animation: k{number} {:.2}s linear infinite }}",
            (share + 0.01).min(100.0),
            end.as_secs_f64(),
        );
    }
    let _ = write!(
        svg,
        "</style>\n<rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#0d1117\"/>\n\
         <text class=\"prompt\" x=\"{MARGIN}\" y=\"{}\">$ {}</text>\n",
        MARGIN + LINE_HEIGHT,
        escape(title)
    );
    for (row, (at, line)) in lines.iter().enumerate() {
        let number = styles.iter().position(|style| style == at).unwrap_or(0);
        let y = MARGIN + (row + 2) * LINE_HEIGHT;
        let _ = writeln!(
            svg,
            "<text class=\"l{number}\" x=\"{MARGIN}\" y=\"{y}\" xml:space=\"preserve\">{}</text>",
            escape(line.trim_end())
        );
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_appear_when_they_were_written() {
        let lines = [(Duration::from_secs(0), "a < b".to_owned()), (Duration::from_secs(8), "c".to_owned())];
        let svg = draw("demo", &lines);
        assert!(svg.contains("a &lt; b") && svg.contains("0%, 50.00% { opacity: 0 }"), "{svg}");
    }

    #[test]
    fn long_lines_are_broken_at_spaces() {
        let lines = wrap(&"word ".repeat(30));
        assert!(lines.len() == 2 && lines.iter().all(|line| line.trim_end().len() <= COLUMNS), "{lines:?}");
    }

    #[test]
    fn a_failed_command_is_not_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("a.svg");
        let command = ["false".to_owned()];
        let error = run(&Workspace::find().unwrap(), out.to_str().unwrap(), "false", &command).unwrap_err();
        assert!(error.to_string().contains("nothing is recorded") && !out.exists(), "{error}");
    }
}
