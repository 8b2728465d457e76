//! `/livez`, `/readyz` and `/health`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{RawQuery, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::health::{EVENT_LOOP, Finding, Health, State};
use crate::http::json as json_response;
use crate::log::timestamp;

/// The routes of the probes.
pub(crate) fn router(health: &Arc<Health>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/health", get(report))
        .with_state(Arc::clone(health))
}

async fn livez(Shared(health): Shared<Arc<Health>>, RawQuery(query): RawQuery) -> Response {
    respond("livez", &health.findings(), is_live, is_verbose(query.as_deref()))
}

async fn readyz(Shared(health): Shared<Arc<Health>>, RawQuery(query): RawQuery) -> Response {
    respond("readyz", &health.findings(), |finding| finding.is_needed, is_verbose(query.as_deref()))
}

async fn report(Shared(health): Shared<Arc<Health>>) -> Response {
    let (findings, since) = (health.findings(), health.since());
    let components = findings.iter().map(|finding| {
        // The thread that notes changes, and logs them, may not have seen this state yet.
        let noted = since.get(finding.component).filter(|(state, _)| *state == finding.state);
        let since = unix_ms(noted.map_or_else(SystemTime::now, |(_, at)| *at));
        json!({
            "component": finding.component,
            "state": finding.state.name(),
            "since": timestamp(since),
            "reason": finding.reason,
            "remedy": finding.remedy,
        })
    });
    json_response(&json!({
        "state": overall(&findings).name(),
        "components": components.collect::<Vec<_>>(),
    }))
}

/// Whether `/livez` depends on a finding. A lost quorum must never restart a node (Kubernetes #96886).
fn is_live(finding: &Finding) -> bool {
    finding.component == EVENT_LOOP
}

fn overall(findings: &[Finding]) -> State {
    findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
}

fn is_verbose(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")))
}

/// The status code and the text of a probe: one line for each check if it is verbose, else the names of the
/// checks that fail.
fn answer(
    name: &str,
    findings: &[Finding],
    is_needed: impl Fn(&Finding) -> bool,
    verbose: bool,
) -> (StatusCode, String) {
    let needed: Vec<&Finding> = findings.iter().filter(|finding| is_needed(finding)).collect();
    let failed: Vec<&str> =
        needed.iter().filter(|finding| finding.state != State::Ok).map(|finding| finding.component).collect();
    let code = if failed.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = String::new();
    if verbose {
        for finding in &needed {
            let (sign, end) = match finding.state {
                State::Ok => ('+', String::new()),
                _ => ('-', format!("; {}", finding.remedy)),
            };
            text.push_str(&format!("[{sign}] {}: {}{end}\n", finding.component, finding.reason));
        }
    }
    match failed.is_empty() {
        true => text.push_str(&format!("{name} ok\n")),
        false => text.push_str(&format!("{name} failed: {}\n", failed.join(", "))),
    }
    (code, text)
}

fn respond(
    name: &str,
    findings: &[Finding],
    is_needed: impl Fn(&Finding) -> bool,
    verbose: bool,
) -> Response {
    let (code, text) = answer(name, findings, is_needed, verbose);
    (code, [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")], text)
        .into_response()
}

fn unix_ms(at: SystemTime) -> u128 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::config::ObserveConfig;
    use super::super::health::{Reading, findings};
    use super::*;

    fn healthy() -> Reading {
        let now = SystemTime::now();
        Reading {
            beat_age: Some(Duration::from_millis(300)),
            is_leader_known: true,
            committed: 5000,
            applied: 4000,
            is_disk_short: false,
            damage: 0,
            svid_not_after: Some(now + Duration::from_secs(60)),
            now,
        }
    }

    /// The table of probes: what each endpoint answers in each state.
    #[test]
    fn the_table_of_probes() {
        type Change = fn(&mut Reading);
        let table: [(&str, Change, u16, u16, State, &str); 9] = [
            ("healthy", |_| {}, 200, 200, State::Ok, ""),
            ("quorum lost", |r| r.is_leader_known = false, 200, 503, State::Degraded, "leader"),
            ("starting", |r| r.beat_age = None, 200, 503, State::Degraded, "start"),
            (
                "waiting for an SVID",
                |r| (r.beat_age, r.svid_not_after) = (None, None),
                200,
                503,
                State::Degraded,
                "start",
            ),
            ("catching up", |r| r.applied = 3999, 200, 503, State::Degraded, "replication"),
            ("disk full", |r| r.is_disk_short = true, 200, 503, State::Degraded, "disk"),
            (
                "SVID expired",
                |r| r.svid_not_after = Some(r.now - Duration::from_secs(1)),
                200,
                503,
                State::Degraded,
                "identity",
            ),
            (
                "event loop stalled",
                |r| r.beat_age = Some(Duration::from_secs(11)),
                503,
                503,
                State::Failed,
                "event_loop",
            ),
            ("damaged data", |r| r.damage = 1, 200, 200, State::Degraded, ""),
        ];
        for (name, change, live, ready, state, failing) in table {
            let mut reading = healthy();
            change(&mut reading);
            let found = findings(&reading, &ObserveConfig::default());
            assert_eq!(answer("livez", &found, is_live, false).0.as_u16(), live, "{name}");
            let (code, text) = answer("readyz", &found, |finding| finding.is_needed, true);
            assert_eq!(code.as_u16(), ready, "{name}: {text}");
            assert_eq!(overall(&found), state, "{name}");
            let last = text.lines().last().unwrap();
            let expected =
                if failing.is_empty() { "readyz ok".into() } else { format!("readyz failed: {failing}") };
            assert_eq!(last, expected, "{name}");
            // Each check that fails names a remedy.
            for finding in found.iter().filter(|finding| finding.state != State::Ok) {
                assert!(!finding.remedy.is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn verbose_is_a_flag_or_a_value() {
        assert!(is_verbose(Some("verbose")) && is_verbose(Some("a=b&verbose=1")));
        assert!(!is_verbose(None) && !is_verbose(Some("verbosely")));
    }
}
