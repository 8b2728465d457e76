//! Metrics of links, through the `metrics` facade (feature `metrics`).
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `x0_ebpf_link_packets_total` | counter | `link`, `direction`: received, sent; `backend` | packets |
//! | `x0_ebpf_link_bytes_total` | counter | as above | bytes, with the headers that the table of [`stats`](crate::stats) lists |
//! | `x0_ebpf_link_errors_total` | counter | as above | malformed packets received, or packets that could not be sent |
//! | `x0_ebpf_link_drops_total` | counter | as above | packets that were dropped |
//!
//! `backend` is [`BackendKind::name`](crate::stats::BackendKind::name): the backends count the same packets
//! at different points. The owner of a [`LinkStats`] publishes its readings; only links that it names become
//! series, at most [`LINKS_MAX`].

use std::collections::BTreeMap;

use metrics::{Counter, Unit, counter, describe_counter};

use crate::stats::{BackendKind, DirectionCounters, LinkCounters};

#[cfg(doc)]
use crate::LinkStats;

/// Most links that become series.
pub const LINKS_MAX: usize = 64;

/// Gives the installed recorder the unit and the meaning of each name.
pub fn describe() {
    describe_counter!("x0_ebpf_link_packets_total", Unit::Count, "Packets of a link, by direction");
    describe_counter!("x0_ebpf_link_bytes_total", Unit::Bytes, "Bytes of a link, by direction");
    describe_counter!("x0_ebpf_link_errors_total", Unit::Count, "Malformed or unsendable packets of a link");
    describe_counter!("x0_ebpf_link_drops_total", Unit::Count, "Dropped packets of a link");
}

/// The counters of the links that an owner names.
#[derive(Debug)]
pub struct LinkTelemetry {
    backend: BackendKind,
    links: BTreeMap<String, Link>,
}

#[derive(Debug)]
struct Link {
    index: Option<u32>,
    /// Received, sent.
    directions: [Direction; 2],
}

#[derive(Debug)]
struct Direction {
    counters: [Counter; 4],
    published: [u64; 4],
}

impl Direction {
    fn new(link: &str, direction: &'static str, backend: &'static str) -> Direction {
        let of = |name: &'static str| counter!(name, "link" => link.to_owned(), "direction" => direction, "backend" => backend);
        Direction {
            counters: [
                of("x0_ebpf_link_packets_total"),
                of("x0_ebpf_link_bytes_total"),
                of("x0_ebpf_link_errors_total"),
                of("x0_ebpf_link_drops_total"),
            ],
            published: [0; 4],
        }
    }

    fn publish(&mut self, now: DirectionCounters) {
        let now = [now.packets, now.bytes, now.errors, now.drops];
        for (counter, (before, now)) in self.counters.iter().zip(self.published.into_iter().zip(now)) {
            counter.increment(now.saturating_sub(before));
        }
        self.published = now;
    }
}

impl LinkTelemetry {
    /// The counters of links that `backend` reads.
    #[must_use]
    pub fn new(backend: BackendKind) -> LinkTelemetry {
        LinkTelemetry { backend, links: BTreeMap::new() }
    }

    /// Adds what a link counted since the last call. A link that was created again, which its index shows,
    /// starts at zero. Does nothing for a new link beyond [`LINKS_MAX`].
    pub fn publish(&mut self, link: &LinkCounters) {
        if self.links.len() >= LINKS_MAX && !self.links.contains_key(&link.name) {
            return;
        }
        let backend = self.backend.name();
        let held = self.links.entry(link.name.clone()).or_insert_with(|| Link {
            index: link.index,
            directions: ["received", "sent"].map(|way| Direction::new(&link.name, way, backend)),
        });
        if held.index != link.index {
            held.index = link.index;
            for direction in &mut held.directions {
                direction.published = [0; 4];
            }
        }
        let [received, sent] = &mut held.directions;
        received.publish(link.rx);
        sent.publish(link.tx);
    }
}
