//! PagerDuty's Events API v2, as far as Alertmanager uses it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// An event that was received.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// The name of the alert, with which the summary begins.
    pub(crate) alert: String,
    /// `trigger` or `resolve`.
    pub(crate) action: String,
    pub(crate) dedup_key: String,
    pub(crate) severity: String,
    pub(crate) client_url: String,
}

/// A receiver and its events so far.
pub(crate) struct Pager {
    pub(crate) url: String,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Pager {
    pub(crate) fn start() -> Pager {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v2/enqueue", listener.local_addr().unwrap());
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let to = Arc::clone(&events);
        std::thread::spawn(move || {
            // The alert of a key: a resolve has no summary of its own.
            let mut alerts = BTreeMap::new();
            for stream in listener.incoming() {
                let body = request(&stream.unwrap());
                let value: Value = serde_json::from_slice(&body).unwrap();
                to.lock().unwrap().push(event(&value, &mut alerts));
            }
        });
        Pager { url, events }
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }
}

fn event(value: &Value, alerts: &mut BTreeMap<String, String>) -> Event {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let dedup_key = text(&value["dedup_key"]);
    assert!(!dedup_key.is_empty() && value["routing_key"] == "a-key-of-a-service", "{value}");
    let summary = text(&value["payload"]["summary"]);
    if let Some((alert, _)) = summary.split_once(':') {
        alerts.entry(dedup_key.clone()).or_insert_with(|| alert.to_owned());
    }
    Event {
        alert: alerts.get(&dedup_key).cloned().unwrap_or_default(),
        action: text(&value["event_action"]),
        dedup_key,
        severity: text(&value["payload"]["severity"]),
        client_url: text(&value["client_url"]),
    }
}

/// Reads a request and accepts it. Returns its body.
fn request(mut stream: &TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let mut len = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    let _ = stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
    body
}
