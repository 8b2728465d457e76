//! One record of the log as one line, in one of three formats.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Map;
use x0_kv::trace::Context;

/// The maximum length of a line in bytes; longer ones are cut.
pub(crate) const LINE_LEN_MAX: usize = 8 << 10;

/// The format of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// `TIME node=ID event=NAME key=value ...`
    #[default]
    Text,
    /// One JSON object: time, level, node, event, component, `trace_id`, `span_id`, fields
    Json,
    /// As text, after the priority that journald reads, and without the time, which it adds
    Journald,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::Text => "text",
            Format::Json => "json",
            Format::Journald => "journald",
        })
    }
}

/// The level of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Warning,
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }

    /// The priority of syslog (RFC 5424 §6.2.1), as sd-daemon(3) has it at the start of a line.
    fn priority(self) -> u8 {
        match self {
            Level::Info => 6,
            Level::Warning => 4,
            Level::Error => 3,
        }
    }
}

/// The components of events.
pub(crate) const COMPONENTS: [&str; 11] =
    ["node", "consensus", "mesh", "identity", "disk", "scrub", "kv", "crdt", "rag", "observe", "heal"];

/// The level and the component of an event.
pub(crate) fn class(event: &str) -> (Level, &'static str) {
    known(event).unwrap_or((Level::Info, "node"))
}

/// As [`class`], of the events of this program.
fn known(event: &str) -> Option<(Level, &'static str)> {
    Some(match event {
        "panic" | "stop-forced" | "node-failed" | "node-hung" | "supervisor-failed" => (Level::Error, "node"),
        "started" | "stopped" | "node-started" | "node-ready" | "supervisor-stopped" => (Level::Info, "node"),
        "node-restart" | "node-asked" | "node-restart-refused" => (Level::Warning, "node"),
        "leader" | "election" | "membership" | "voting" => (Level::Info, "consensus"),
        "no-leader" | "waiting-for-founders" | "rejoining" | "waiting-to-be-added" => {
            (Level::Warning, "consensus")
        }
        "peer-up" | "listening" | "peer-resolved" | "peer-cleared" => (Level::Info, "mesh"),
        "peer-silent" | "peer-suspect" | "peer-down" | "peer-unreached" | "peer-unresolved"
        | "reset-key-missing" => (Level::Warning, "mesh"),
        "identity-rotated" | "identity-issued" | "issued" | "issuer-listening" | "bundle-changed"
        | "bundle-received" | "federated-bundle" | "federation-changed" | "federation-ended" => {
            (Level::Info, "identity")
        }
        "revoked" | "issuance-refused" | "issuer-unreached" | "waiting-for-identity" => {
            (Level::Warning, "identity")
        }
        "reload-failed"
        | "issuance-failed"
        | "federation-failed"
        | "revocations-damaged"
        | "revocations-unsaved" => (Level::Error, "identity"),
        "no-space" | "set-aside" => (Level::Error, "disk"),
        "space-available" => (Level::Info, "disk"),
        "scrub-completed" | "scrub-repaired" => (Level::Info, "scrub"),
        "scrub-damaged" | "scrub-diverged" | "scrub-failed" => (Level::Error, "scrub"),
        "operation-failed" | "operation-slow" => (Level::Warning, "kv"),
        "crdt-failed" | "crdt-key-mismatch" => (Level::Error, "crdt"),
        "crdt-renewed" => (Level::Warning, "crdt"),
        "rag-started" => (Level::Info, "rag"),
        "rag-rebuild" => (Level::Warning, "rag"),
        "rag-failed" => (Level::Error, "rag"),
        "health-restored" | "http-listening" => (Level::Info, "observe"),
        "health-impaired" | "log-lines-dropped" => (Level::Warning, "observe"),
        "heal" | "heal-approved" | "heal-acknowledged" | "heal-resumed" | "heal-records-resumed" => {
            (Level::Info, "heal")
        }
        "heal-paused" => (Level::Warning, "heal"),
        "heal-records-failed" | "heal-pause-unreadable" => (Level::Error, "heal"),
        _ => return None,
    })
}

/// The line of a record, with its end. Whatever the details hold, it is one line of at most
/// [`LINE_LEN_MAX`] bytes and the end. `span` is the span of the event.
pub(crate) fn line(format: Format, node: &str, event: &str, span: Option<Context>, details: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let ids = || {
        let ids = span.map(|span| format!("trace_id={} span_id={} ", trace_id(&span), span_id(&span)));
        ids.unwrap_or_default()
    };
    let mut line = match format {
        Format::Text => {
            text(format!("{} node={node} event={event} {}", super::timestamp(now), ids()), details)
        }
        Format::Journald => {
            let (level, component) = class(event);
            let priority = level.priority();
            text(format!("<{priority}>node={node} event={event} component={component} {}", ids()), details)
        }
        Format::Json => json(now, node, event, span, details),
    };
    line.push('\n');
    line
}

/// Whether a character may change how a terminal or a reader of lines shows what follows.
fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            // Marks of direction, and the line and paragraph separators of Unicode.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

fn text(mut line: String, details: &str) -> String {
    for character in details.chars() {
        match character {
            // A line break in the details would look like a line of its own.
            '\n' => line.push_str(" | "),
            hostile if is_hostile(hostile) => line.extend(hostile.escape_unicode()),
            other => line.push(other),
        }
        if line.len() > LINE_LEN_MAX {
            line.truncate(boundary(&line, LINE_LEN_MAX));
            break;
        }
    }
    line.truncate(line.trim_end().len());
    line
}

/// The hexadecimal digits of OTLP's and W3C's texts.
fn trace_id(span: &Context) -> String {
    format!("{:032x}", u128::from_be_bytes(span.trace_id()))
}

fn span_id(span: &Context) -> String {
    format!("{:016x}", u64::from_be_bytes(span.span_id()))
}

fn json(now: u128, node: &str, event: &str, span: Option<Context>, details: &str) -> String {
    let (level, component) = class(event);
    let mut len_max = LINE_LEN_MAX;
    loop {
        let mut fields = Map::new();
        for (key, value) in fields_of(details) {
            // The strings of several log readers, such as rsyslog's, end with the first NUL: its picture does
            // not.
            fields.insert(key.into(), value[..boundary(value, len_max)].replace('\0', "\u{2400}").into());
        }
        let record = serde_json::json!({
            "time": super::timestamp(now),
            "level": level.name(),
            "node": node,
            "event": event,
            "component": component,
            // Null outside of a trace.
            "trace_id": span.as_ref().map(trace_id),
            "span_id": span.as_ref().map(span_id),
            "fields": fields,
        });
        let line = escaped(&record.to_string());
        if line.len() <= LINE_LEN_MAX || len_max == 0 {
            return line;
        }
        // Cut values, never the object.
        len_max /= 2;
    }
}

/// JSON whose hostile characters, which are inside of strings alone, are escaped (RFC 8259 §7).
fn escaped(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for character in json.chars() {
        match is_hostile(character) {
            // All of them are in the basic plane.
            true => line.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => line.push(character),
        }
    }
    line
}

/// The fields of details, `key=value key=value`. A value in quotes ends with its quote, that of `why` and
/// `effect` with the details, any other one before the next key. Details that do not begin with a key are the
/// field `text`.
fn fields_of(details: &str) -> Vec<(&str, &str)> {
    let mut fields = Vec::new();
    let mut rest = details.trim();
    while !rest.is_empty() {
        let Some(end_of_key) = key_len(rest) else {
            fields.push(("text", rest));
            break;
        };
        let (key, value) = (&rest[..end_of_key], &rest[end_of_key + 1..]);
        let end = match () {
            () if matches!(key, "why" | "effect") => value.len(),
            () if value.starts_with('"') => quoted_len(value),
            () => value
                .match_indices(' ')
                .map(|(at, _)| at)
                .find(|at| key_len(&value[at + 1..]).is_some())
                .unwrap_or(value.len()),
        };
        fields.push((key, value[..end].trim_end()));
        rest = value[end..].trim_start();
    }
    fields
}

/// The length of the key at the start of `text`.
fn key_len(text: &str) -> Option<usize> {
    let len = text.find('=')?;
    let is_key = len > 0 && text[..len].bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_key.then_some(len)
}

/// The length of a value with its quotes.
fn quoted_len(value: &str) -> usize {
    let mut is_escaped = true;
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' if !is_escaped => return at + 1,
            b'\\' if !is_escaped => is_escaped = true,
            _ => is_escaped = false,
        }
    }
    value.len()
}

/// The last boundary of a character at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    const HOSTILE: &str = "a\nb\r\0\u{1b}[2J\u{202e}\u{2028}\u{85}\"\\ c=d";

    fn lines(text: &str) -> usize {
        // Every break that Unicode or a terminal knows.
        text.trim_end_matches('\n')
            .matches(['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'])
            .count()
            + 1
    }

    #[test]
    fn a_record_is_one_line_in_every_format() {
        for format in [Format::Text, Format::Json, Format::Journald] {
            for details in [HOSTILE, &HOSTILE.repeat(2000), &"ü".repeat(20_000), "", "why="] {
                let line = line(format, "n", "e", None, details);
                assert!(line.ends_with('\n') && line.len() <= LINE_LEN_MAX + 1, "{format:?}: {}", line.len());
                assert_eq!(lines(&line), 1, "{format:?}: {line:?}");
                assert!(!line.contains(['\u{1b}', '\u{202e}', '\0']), "{format:?}: {line:?}");
            }
        }
    }

    #[test]
    fn json_lines_give_back_what_was_logged() {
        let details = format!("keyspace=k key={:?} from=2 why={HOSTILE}", "x=\"1\" y=2");
        let line = line(Format::Json, "0001", "scrub-damaged", None, &details);
        let record: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&record["level"], &record["component"]), (&"error".into(), &"scrub".into()));
        assert_eq!((&record["node"], &record["event"]), (&"0001".into(), &"scrub-damaged".into()));
        assert_eq!(record["fields"]["why"], HOSTILE.replace('\0', "\u{2400}"));
        assert_eq!(record["fields"]["key"], r#""x=\"1\" y=2""#);
        assert_eq!((&record["fields"]["keyspace"], &record["fields"]["from"]), (&"k".into(), &"2".into()));
        assert!(record["trace_id"].is_null() && record["time"].as_str().unwrap().ends_with('Z'));
        // Values of several words, and details without a key.
        let spaced = fields_of("address=a b c identity=spiffe://x/y");
        assert_eq!(spaced, [("address", "a b c"), ("identity", "spiffe://x/y")]);
        assert_eq!(fields_of("thread `x` panicked"), [("text", "thread `x` panicked")]);
        // A line that is cut is whole JSON.
        let long = super::line(Format::Json, "n", "e", None, &format!("why={}", "\n".repeat(9000)));
        assert!(serde_json::from_str::<Value>(&long).is_ok());
    }

    /// With `X0_LOG_LINES` the lines go to that file: .ci/run has a real rsyslog parse 100,000 of them.
    #[test]
    fn many_hostile_lines_are_json_each() {
        let file = std::env::var_os("X0_LOG_LINES");
        let count = if file.is_some() { 100_000u32 } else { 2000 };
        let mut text = String::new();
        for number in 0..count {
            // Bytes of a key as a scrub logs them, of every value and at every place.
            let mixed = number.wrapping_mul(2_654_435_761);
            let key: Vec<u8> = (0..24).map(|at| (mixed >> at).to_le_bytes()[0]).collect();
            let key = String::from_utf8_lossy(&key);
            let why = format!("{key}\n\0\u{1b}[31m\u{202e}{HOSTILE}");
            let details = format!("keyspace=k number={number} key={key:?} why={why}");
            let line = line(Format::Json, "0000000000000001", "scrub-damaged", None, &details);
            let record: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(record["fields"]["number"], number.to_string());
            assert_eq!(record["fields"]["why"], why.replace('\0', "\u{2400}"));
            text.push_str(&line);
        }
        assert_eq!(text.lines().count(), count as usize);
        if let Some(file) = file {
            std::fs::write(file, text).unwrap();
        }
    }

    #[test]
    fn journald_lines_begin_with_their_priority() {
        assert!(
            line(Format::Journald, "n", "panic", None, "x")
                .starts_with("<3>node=n event=panic component=node x")
        );
        assert!(line(Format::Journald, "n", "peer-down", None, "").starts_with("<4>"));
        assert!(line(Format::Journald, "n", "started", None, "").starts_with("<6>"));
    }

    #[test]
    fn lines_of_a_span_have_its_ids() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-00ad6b7169203331-01";
        let span: Context = header.parse().unwrap();
        let line = |format| line(format, "n", "operation-slow", Some(span), "ms=7");
        let record: Value = serde_json::from_str(&line(Format::Json)).unwrap();
        let ids = ["trace_id", "span_id"].map(|key| record[key].as_str().unwrap().to_owned());
        assert_eq!(ids, ["0af7651916cd43dd8448eb211c80319c", "00ad6b7169203331"]);
        assert_eq!(record["fields"]["ms"], "7");
        for format in [Format::Text, Format::Journald] {
            let line = line(format);
            let ids = " trace_id=0af7651916cd43dd8448eb211c80319c span_id=00ad6b7169203331 ms=7\n";
            assert!(line.ends_with(ids), "{line}");
        }
    }

    /// The events that the sources of this program name, tests left out.
    fn events_of_sources(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                events_of_sources(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let program = text.split("#[cfg(test)]").next().unwrap_or_default();
            if path.ends_with("tests.rs") {
                continue;
            }
            // What follows `.event(`, if that is a literal.
            let names =
                program.split(".event(").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
            found.extend(names.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }

    #[test]
    fn every_event_of_the_program_has_a_class() {
        let mut events = BTreeSet::new();
        events_of_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut events);
        assert!(events.len() > 40 && events.contains("federation-failed"), "{events:?}");
        // Named by variables.
        let chosen = ["no-space", "space-available", "peer-down", "peer-unreached", "health-impaired"];
        for event in events.iter().map(String::as_str).chain(chosen) {
            let (_, component) = known(event).unwrap_or_else(|| panic!("{event} has no class"));
            assert!(COMPONENTS.contains(&component), "{event}");
        }
        assert_eq!(class("unheard-of"), (Level::Info, "node"));
    }
}
