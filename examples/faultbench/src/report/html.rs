//! The report as one HTML file without scripts and without anything from elsewhere.

use std::fmt::Write as _;
use std::time::Duration;

use super::summary::Summary;
use crate::trial::{Outcome, Sample, Sli, Stage, between};

/// The size of a drawing, in pixels, and the room for its scale.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 46.0;
const TOP: f64 = 14.0;
/// The part of a series that one bar or point stands for, in milliseconds.
const BUCKET_MS: u64 = 100;
/// The time before the injection that is drawn, in milliseconds.
const BEFORE_MS: u64 = 3000;
/// The scale of latencies, in milliseconds: logarithmic from the first to the last.
const SCALE: [f64; 2] = [0.5, 2000.0];

const STYLE: &str = "\
body{font:14px/1.4 sans-serif;margin:2em;max-width:70em;color:#222}table{border-collapse:collapse}\
td,th{padding:2px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid #ddd}td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}\
svg{display:block;background:#fafafa;margin:2px 0 14px}svg text{font:10px sans-serif;fill:#555}\
.line{fill:none;stroke:#1667a8;stroke-width:1.2}.bad{fill:#d33;opacity:.75}.sli{stroke:#999;stroke-dasharray:3 3}\
.fault{stroke:#d33;stroke-width:2}.detected{stroke:#d90}.action{stroke:#909}.proof{stroke:#393}.failure{stroke:#000}\
.wrong{stroke-width:4}.mark{stroke-width:2}";

/// The page.
pub(super) fn page(summary: &Summary, outcomes: &[Outcome]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>x0-faultbench</title>\n\
         <style>{STYLE}</style>\n<h1>x0-faultbench</h1>\n\
         <p>Blue: the longest latency of each {BUCKET_MS} ms (logarithmic). Red bars: the share of requests that were \
         not answered within {} ms. Vertical lines: <b style=\"color:#d33\">fault</b>, \
         <b style=\"color:#d90\">detected</b>, <b style=\"color:#909\">action</b>, \
         <b style=\"color:#393\">proof</b>, failure; a wrong action is thick. A line names its reason when the pointer \
         rests on it.</p>\n",
        Sli::default().deadline.as_millis()
    );
    html.push_str(&table(summary));
    for fault in summary.faults() {
        let _ = writeln!(html, "<h2>{}</h2>", escape(fault));
        for outcome in outcomes.iter().filter(|outcome| outcome.fault == fault) {
            html.push_str(&trial(outcome));
        }
    }
    html.push_str("</html>\n");
    html
}

fn table(summary: &Summary) -> String {
    let mut html = String::from(
        "<table><tr><th>fault<th>system<th>trials<th>MTTR, ms<th>error-seconds<th>gap, ms<th>actions<th>wrong\
         <th>lost writes<th>not back</tr>\n",
    );
    for ((fault, system), cell) in &summary.cells {
        let mttr = cell.mttr_ms.map_or_else(|| "–".to_owned(), |mttr| format!("{mttr:.0}"));
        let _ = writeln!(
            html,
            "<tr><td>{}<td>{}<td>{}<td>{mttr}<td>{:.2}<td>{:.0}<td>{}<td>{}<td>{} of {}<td>{}</tr>",
            escape(fault),
            escape(system),
            cell.trials,
            cell.error_seconds,
            cell.gap_ms,
            cell.actions,
            cell.wrong,
            cell.lost,
            cell.acknowledged,
            cell.gone
        );
    }
    html.push_str("</table>\n");
    html
}

/// A trial: a line of text and a drawing.
fn trial(outcome: &Outcome) -> String {
    let measures = outcome.measures();
    let mttr =
        measures.mttr_ms.map_or_else(|| "not back".to_owned(), |mttr| format!("back after {mttr:.0} ms"));
    let faulty: Vec<String> = outcome.faulty.iter().map(ToString::to_string).collect();
    let mut html = format!(
        "<div><b>{}</b> ({}), seed {}, leader {}, faulty {}: {mttr}, {:.2} error-seconds, {} actions, {} wrong</div>\n",
        escape(&outcome.system),
        escape(&outcome.program),
        outcome.seed,
        outcome.leader,
        if faulty.is_empty() { "none".to_owned() } else { faulty.join(", ") },
        measures.error_seconds,
        measures.actions,
        measures.wrong
    );
    html.push_str(&drawing(outcome));
    html
}

fn drawing(outcome: &Outcome) -> String {
    let injected = u64::try_from(outcome.injected().as_millis()).unwrap_or(0);
    // The same part of each trial: a system with a grace has a longer series before the injection.
    let first = injected.saturating_sub(BEFORE_MS);
    let end = outcome.ended_ms.max(first + 1);
    let x = |ms: f64| LEFT + (ms - as_f64(first)) / as_f64(end - first) * (WIDTH - LEFT - 6.0);
    let y = |ms: f64| {
        let [low, high] = SCALE;
        let part = (ms.clamp(low, high) / low).ln() / (high / low).ln();
        TOP + (1.0 - part) * (HEIGHT - 2.0 * TOP)
    };
    let mut svg = format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\">\n");
    for (ms, name) in [(1.0, "1 ms"), (10.0, "10 ms"), (100.0, "100 ms"), (1000.0, "1 s")] {
        let _ = write!(svg, "<text x=\"4\" y=\"{:.1}\">{name}</text>", y(ms) + 3.0);
    }
    let deadline = y(Sli::default().deadline.as_secs_f64() * 1000.0);
    let _ = write!(
        svg,
        "\n<line class=\"sli\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{deadline:.1}\" y2=\"{deadline:.1}\"/>\n"
    );
    for second in (0..=(end - injected.min(end)) / 1000).step_by(5) {
        let at = x(as_f64(injected + second * 1000));
        let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{:.1}\">{second} s</text>", HEIGHT - 2.0);
    }
    svg.push('\n');
    let mut points = String::new();
    for begin in (first..end).step_by(usize::try_from(BUCKET_MS).unwrap_or(100)) {
        let (from, to) = (Duration::from_millis(begin), Duration::from_millis(begin + BUCKET_MS));
        let part = between(&outcome.samples, from, to);
        let (longest, bad) = bucket(part);
        if let Some(longest) = longest {
            let _ = write!(points, "{:.1},{:.1} ", x(as_f64(begin)), y(longest));
        }
        if bad > 0.0 {
            let (width, height) =
                (x(as_f64(begin + BUCKET_MS)) - x(as_f64(begin)), bad * (HEIGHT - 2.0 * TOP));
            let _ = writeln!(
                svg,
                "<rect class=\"bad\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>",
                x(as_f64(begin)),
                HEIGHT - TOP - height
            );
        }
    }
    let _ = writeln!(svg, "<polyline class=\"line\" points=\"{}\"/>", points.trim_end());
    for at in &outcome.injected_ms {
        svg.push_str(&mark("fault", x(as_f64(*at)), &format!("fault: {}", outcome.fault)));
    }
    let truth = outcome.truth();
    for event in outcome.events.iter().filter(|event| event.at_ms >= as_f64(first)) {
        let stage = match event.stage {
            Stage::Detected => "detected",
            Stage::Action if truth.is_wrong(event) => "action wrong",
            Stage::Action => "action",
            Stage::Proof => "proof",
            Stage::Failure => "failure",
        };
        let after = event.at_ms - outcome.injected().as_secs_f64() * 1000.0;
        let title = format!(
            "{stage} {after:+.0} ms after the injection, by node {}: {} of node {}\n{}",
            event.by, event.kind, event.subject, event.text
        );
        svg.push_str(&mark(&format!("mark {stage}"), x(event.at_ms), &title));
    }
    svg.push_str("</svg>\n");
    svg
}

/// The longest latency of the answered requests, in milliseconds, and the share of those that were not good.
fn bucket(part: &[Sample]) -> (Option<f64>, f64) {
    let longest = part.iter().filter_map(|sample| sample.latency_us).max().map(|us| as_f64(us) / 1000.0);
    let bad = part.iter().filter(|sample| !Sli::default().is_good(sample)).count();
    let share = as_f64(bad as u64) / as_f64(part.len().max(1) as u64);
    (longest, share)
}

/// A vertical line with a text for the pointer.
fn mark(class: &str, x: f64, title: &str) -> String {
    format!(
        "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"2\" y2=\"{:.1}\"><title>{}</title></line>\n",
        HEIGHT - TOP,
        escape(title)
    )
}

/// A text as HTML has it.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Milliseconds and counts of a trial are far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "milliseconds and counts of a trial are far below 2^52")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::{Event, example};

    #[test]
    fn the_page_marks_fault_detection_action_and_proof_and_loads_nothing() {
        let outcome = example("cut <b>", "x0", 1, 1500);
        let wrong = Event { subject: 3, ..outcome.events[1].clone() };
        let outcomes = [Outcome { events: [outcome.events.clone(), vec![wrong]].concat(), ..outcome }];
        let html = page(&Summary::new(&outcomes), &outcomes);
        for part in [
            "class=\"fault\"",
            "class=\"mark detected\"",
            "class=\"mark action\"",
            "class=\"mark action wrong\"",
            "class=\"mark proof\"",
            "<title>detected +500 ms after the injection, by node 1: restart of node 1\nwhy: a &lt; b &amp; &quot;c&quot;",
            "class=\"bad\"",
            "cut &lt;b&gt;",
            "back after 1500 ms",
        ] {
            assert!(html.contains(part), "{part}\n{}", &html[..3000]);
        }
        for foreign in ["<script", "http", "src=", "href=", "<b>\""] {
            assert!(!html.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_bucket_has_its_longest_latency_and_its_share_of_errors() {
        let sample = |latency_us| Sample { at_us: 0, latency_us };
        let (longest, bad) =
            bucket(&[sample(Some(1000)), sample(Some(400_000)), sample(None), sample(Some(2))]);
        assert_eq!((longest, bad), (Some(400.0), 0.5));
        assert_eq!(bucket(&[]), (None, 0.0));
    }
}
