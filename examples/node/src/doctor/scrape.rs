//! The metrics of a node, as far as the doctor needs them.

use std::collections::BTreeMap;

/// Most peers of one node that are read.
const PEERS_MAX: usize = 1024;

/// A link to a peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Link {
    pub(super) is_up: bool,
    /// In seconds; NaN while the link is down.
    pub(super) rtt: f64,
    /// The share of packets lost; NaN if it is not known.
    pub(super) loss: f64,
}

impl Default for Link {
    fn default() -> Link {
        Link { is_up: false, rtt: f64::NAN, loss: f64::NAN }
    }
}

/// What was read of one node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Scrape {
    pub(super) peers: BTreeMap<String, Link>,
    /// In Unix time.
    pub(super) svid_not_after: Option<f64>,
    /// In seconds, since the start of the node; `None` if nothing was written.
    pub(super) fsync_p99: Option<f64>,
}

impl Scrape {
    /// Reads the Prometheus text format 0.0.4. Lines that are not understood are skipped.
    pub(super) fn parse(text: &str) -> Scrape {
        let mut scrape = Scrape::default();
        let mut buckets = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            match name {
                "x0_identity_svid_not_after_seconds" => scrape.svid_not_after = Some(value),
                "x0_consensus_log_write_seconds_bucket" => {
                    let bound =
                        label(labels, "le").and_then(|bound| bound.replace("+Inf", "inf").parse().ok());
                    buckets.extend(bound.map(|bound: f64| (bound, value)));
                }
                _ => {
                    let Some(field) = name.strip_prefix("x0_mesh_peer_") else { continue };
                    let Some(peer) = label(labels, "peer") else { continue };
                    if scrape.peers.len() >= PEERS_MAX && !scrape.peers.contains_key(peer) {
                        continue;
                    }
                    let link = scrape.peers.entry(peer.to_owned()).or_default();
                    match field {
                        "up" => link.is_up = value == 1.0,
                        "rtt_seconds" => link.rtt = value,
                        "loss_ratio" => link.loss = value,
                        _ => {}
                    }
                }
            }
        }
        scrape.fsync_p99 = quantile(&buckets, 0.99);
        scrape
    }
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split('"').next()
}

/// As `histogram_quantile` of Prometheus, which is linear inside of a bucket.
fn quantile(buckets: &[(f64, f64)], quantile: f64) -> Option<f64> {
    let total = buckets.last()?.1;
    let rank = quantile * total;
    let at = buckets.iter().position(|(_, count)| *count >= rank).filter(|_| total > 0.0)?;
    let (low, before) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    let (high, count) = buckets[at];
    if high.is_infinite() {
        return Some(low);
    }
    Some(low + (high - low) * (rank - before) / (count - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_read_without_a_panic() {
        for text in [
            "",
            "{",
            "x0_mesh_peer_up{peer=\"",
            "x0_mesh_peer_up 1",
            " 1",
            "a b c\n# x",
            "x0_consensus_log_write_seconds_bucket{le=\"x\"} 1",
        ] {
            assert_eq!(Scrape::parse(text), Scrape::default(), "{text}");
        }
        let many: String = (0..5000).map(|peer| format!("x0_mesh_peer_up{{peer=\"{peer}\"}} 1\n")).collect();
        assert_eq!(Scrape::parse(&many).peers.len(), PEERS_MAX);
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        assert_eq!(quantile(&[(1.0, 0.0), (2.0, 100.0), (f64::INFINITY, 100.0)], 0.5), Some(1.5));
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 10.0)], 0.99), Some(1.0));
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 0.0)], 0.99), None);
        assert_eq!(quantile(&[], 0.99), None);
    }
}
