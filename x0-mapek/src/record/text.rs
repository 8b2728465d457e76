//! Records as text and as JSON.

use std::fmt::Write as _;

use super::{AlternativeRecord, Event, EvidenceRecord, Record, effective};
use crate::action::Disruption;

/// A text as a JSON string (RFC 8259 section 7), on one line.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // Control characters, and those that change the direction of text or end a line.
            character
                if (character as u32) < 0x20
                    || matches!(character, '\u{7f}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                let _ = write!(out, "\\u{:04x}", character as u32);
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

/// A number; JSON has neither infinities nor NaN (RFC 8259 section 6).
fn number(out: &mut String, value: f64) {
    if value.is_finite() {
        let _ = write!(out, "{value}");
    } else {
        out.push_str("null");
    }
}

fn disruption(disruption: Disruption) -> &'static str {
    match disruption {
        Disruption::None => "none",
        Disruption::Brief => "brief",
        Disruption::Irreversible => "irreversible",
    }
}

/// A badness, which may not be known.
struct Badness(f64);

impl std::fmt::Display for Badness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_nan() { f.write_str("unknown") } else { write!(f, "{}", self.0) }
    }
}

/// The names of all events, as in [`Event::name`].
pub(crate) const EVENTS: [&str; 13] = [
    "refused",
    "shadow",
    "would-execute",
    "claim-lost",
    "executing",
    "executed",
    "failed",
    "improved",
    "no-effect",
    "worse",
    "undoing",
    "undone",
    "escalated",
];

impl Event {
    /// The name of the event, as in JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Event::Refused { .. } => "refused",
            Event::Shadow => "shadow",
            Event::WouldExecute => "would-execute",
            Event::ClaimLost => "claim-lost",
            Event::Executing { .. } => "executing",
            Event::Executed => "executed",
            Event::Failed { .. } => "failed",
            Event::Improved { .. } => "improved",
            Event::NoEffect { .. } => "no-effect",
            Event::Worse { .. } => "worse",
            Event::Undoing { .. } => "undoing",
            Event::Undone => "undone",
            Event::Escalated { .. } => "escalated",
        }
    }
}

impl Record {
    /// The record as one line of JSON. Times are seconds.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(512);
        let _ = write!(out, "{{\"number\":{},\"at\":", self.number);
        number(&mut out, self.at.as_secs_f64());
        let _ = write!(out, ",\"round\":{},\"action\":{}", self.round, self.action);
        for (name, text) in [
            ("policy", &self.policy),
            ("kind", &self.kind),
            ("subject", &self.subject),
            ("cause", &self.cause),
        ] {
            let _ = write!(out, ",\"{name}\":");
            quote(&mut out, text);
        }
        let _ = write!(out, ",\"disruption\":\"{}\",\"confidence\":", disruption(self.disruption));
        number(&mut out, self.confidence);
        if let Some((cause, confidence)) = &self.runner_up {
            out.push_str(",\"runner_up\":{\"cause\":");
            quote(&mut out, cause);
            out.push_str(",\"confidence\":");
            number(&mut out, *confidence);
            out.push('}');
        }
        for (name, value) in [
            ("utility", self.utility),
            ("penalty", self.penalty),
            ("improvement", self.improvement),
            ("within", self.within.as_secs_f64()),
        ] {
            let _ = write!(out, ",\"{name}\":");
            number(&mut out, value);
        }
        out.push_str(",\"evidence\":[");
        for (place, EvidenceRecord { signal, value, threshold, age }) in self.evidence.iter().enumerate() {
            out.push_str(if place == 0 { "{\"signal\":" } else { ",{\"signal\":" });
            quote(&mut out, signal);
            for (name, value) in [("value", *value), ("threshold", *threshold), ("age", age.as_secs_f64())] {
                let _ = write!(out, ",\"{name}\":");
                number(&mut out, value);
            }
            out.push('}');
        }
        out.push_str("],\"alternatives\":[");
        for (place, AlternativeRecord { kind, utility }) in self.alternatives.iter().enumerate() {
            out.push_str(if place == 0 { "{\"kind\":" } else { ",{\"kind\":" });
            quote(&mut out, kind);
            out.push_str(",\"utility\":");
            number(&mut out, *utility);
            out.push('}');
        }
        let _ = write!(out, "],\"event\":\"{}\"", self.event.name());
        self.event_json(&mut out);
        out.push('}');
        out
    }

    fn event_json(&self, out: &mut String) {
        match &self.event {
            Event::Refused { guard, reason } => {
                out.push_str(",\"guard\":");
                quote(out, guard);
                out.push_str(",\"reason\":");
                quote(out, reason);
            }
            Event::Failed { reason } | Event::Escalated { reason } => {
                out.push_str(",\"reason\":");
                quote(out, reason);
            }
            Event::Executing { fence: Some(fence) } | Event::Undoing { fence: Some(fence) } => {
                let _ = write!(out, ",\"fence\":{fence}");
            }
            Event::Improved { before, after }
            | Event::NoEffect { before, after }
            | Event::Worse { before, after } => {
                for (name, value) in [("before", *before), ("after", *after)] {
                    let _ = write!(out, ",\"{name}\":");
                    number(out, value);
                }
            }
            _ => {}
        }
    }

    /// Why this was decided, for a person.
    ///
    /// ```text
    /// at 12.500s, restart of worker 3: executing (action 1)
    /// because restart-slow sees hang (confidence 0.90; next likely: load, 0.10)
    ///   job_seconds was 7, threshold 1, 0.200s old
    ///   utility 1; beside it: stop 0.25
    ///   expected: less by a share of 0.5 within 2.000s
    /// ```
    #[must_use]
    pub fn explain(&self) -> String {
        let mut out = format!("at {:.3}s, {} of {}: ", self.at.as_secs_f64(), self.kind, self.subject);
        let _ = match &self.event {
            Event::Refused { guard, reason } => write!(out, "not done, guard {guard}: {reason}"),
            Event::Shadow => write!(out, "proposed by a shadow policy, never carried out"),
            Event::WouldExecute => write!(out, "would be done; the loop only records (dry run)"),
            Event::ClaimLost => write!(out, "not done, another healer has it"),
            Event::Executing { fence: Some(fence) } => write!(out, "executing, fence {fence}"),
            Event::Executing { fence: None } => write!(out, "executing"),
            Event::Executed => write!(out, "executed; the verdict follows"),
            Event::Failed { reason } => write!(out, "failed: {reason}"),
            Event::Improved { before, after } => {
                write!(out, "helped: {} before, {} after", Badness(*before), Badness(*after))
            }
            Event::NoEffect { before, after } => {
                write!(out, "changed nothing: {} before, {} after", Badness(*before), Badness(*after))
            }
            Event::Worse { before, after } => {
                write!(out, "made it worse: {} before, {} after", Badness(*before), Badness(*after))
            }
            Event::Undoing { fence: Some(fence) } => write!(out, "being undone, fence {fence}"),
            Event::Undoing { fence: None } => write!(out, "being undone"),
            Event::Undone => write!(out, "undone"),
            Event::Escalated { reason } => write!(out, "handed over to a person: {reason}"),
        };
        if self.action > 0 {
            let _ = write!(out, " (action {})", self.action);
        }
        let _ =
            write!(out, "\nbecause {} sees {} (confidence {:.2}", self.policy, self.cause, self.confidence);
        if let Some((cause, confidence)) = &self.runner_up {
            let _ = write!(out, "; next likely: {cause}, {confidence:.2}");
        }
        out.push(')');
        for EvidenceRecord { signal, value, threshold, age } in &self.evidence {
            let age = age.as_secs_f64();
            let _ = write!(out, "\n  {signal} was {value}, threshold {threshold}, {age:.3}s old");
        }
        let _ = write!(out, "\n  utility {}", self.utility);
        if self.penalty < 1.0 {
            let effective = effective(self.utility, self.penalty);
            let _ =
                write!(out, ", {effective} after the penalty {} for what did not help before", self.penalty);
        }
        for (place, AlternativeRecord { kind, utility }) in self.alternatives.iter().enumerate() {
            let _ = write!(out, "{} {kind} {utility}", if place == 0 { "; beside it:" } else { "," });
        }
        let within = self.within.as_secs_f64();
        let _ = write!(out, "\n  expected: less by a share of {} within {within:.3}s", self.improvement);
        out
    }
}
