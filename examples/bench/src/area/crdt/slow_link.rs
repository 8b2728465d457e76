//! A radio link of one kilobyte per second that loses a third of the datagrams.

use std::time::Duration;

use anyhow::Result;
use x0_crdt::SessionOptions;

use super::Work;
use super::systems::{self, Link, Net, map_of, replica_of};
use crate::case::{Case, Metric};

const SECONDS: Metric = Metric { name: "until both hold the same", unit: "s" };
const BYTES: Metric = Metric { name: "bytes", unit: "B" };
const TO_LOSSLESS: Metric = Metric { name: "bytes, to lossless", unit: "x" };

/// Seeds of the losses.
const SEEDS: usize = 20;
/// Times for which the link is cut while the transfer runs.
const CUT: Duration = Duration::from_secs(30);

pub(super) fn measure(work: &Work<'_>) -> Result<Vec<Case>> {
    let options = work.options;
    let names = ["lossless", "30 % loss", "30 % loss, cut for 30 s after 4 s"]
        .map(|what| format!("{}, {what}", systems::named("x0-crdt")));
    let how = format!(
        "Two sessions over a link of 1 kB/s in each direction, 50 ms long, datagrams of at most 256 B; {} of {} keys changed on one\n\
         side. Virtual time; bytes of all datagrams in both directions until both know, lost ones included. Medians of {SEEDS} seeds.\n\
         The first line is the lossless link; `x0 is` compares with it. The peers have no protocol over datagrams.",
        options.changes, options.keys
    );
    let mut case =
        Case::new("crdt", "slow link", how, vec![names[1].clone(), names[0].clone(), names[2].clone()]);
    let map = map_of(&work.fill())?;
    let there = replica_of(&map)?;
    let session = SessionOptions::default()
        .datagram_len_max(256)
        .bytes_per_second(1_000)
        .retry_min(Duration::from_millis(200));
    for seed in 0..SEEDS {
        let mut lossless = None;
        for (line, loss, cut) in [(1, 0, false), (0, 30, false), (2, 30, true)] {
            work.progress.set_message(format!("slow link: seed {}", seed + 1));
            let link = Link { bytes_per_second: 1_000, delay: Duration::from_millis(50), loss };
            let mut net = Net::new([map.clone(), there.clone()], &session, Link::FAST, seed as u64 * 2 + 1);
            net.run_until_in_sync(Duration::from_secs(60))?;
            net.run(Duration::from_secs(2))?;
            net.set_link(link);
            for (key, value) in work.changes(seed, options.changes) {
                net.map_mut(0).put(key.as_bytes(), 0, &value.to_le_bytes())?;
            }
            let (begin, before) = (net.now(), net.bytes());
            net.changed(0)?;
            if cut {
                net.run(Duration::from_secs(4))?;
                net.set_link(Link { loss: 100, ..link });
                net.run(CUT)?;
                net.set_link(link);
            }
            net.run_until_agreed(Duration::from_secs(600))?;
            case.add(SECONDS, line, (net.now() - begin).as_secs_f64());
            net.run_until_in_sync(Duration::from_secs(600))?;
            let bytes = (net.bytes() - before) as f64;
            case.add(BYTES, line, bytes);
            case.add(TO_LOSSLESS, line, bytes / *lossless.get_or_insert(bytes));
        }
    }
    case.aim("seconds with 30 % loss", case.median(SECONDS, 0), 15.0, "s");
    case.aim("bytes with 30 % loss, to lossless", case.median(TO_LOSSLESS, 0), 1.6, "x");
    case.aim("bytes with 30 % loss and the cut, to lossless", case.median(TO_LOSSLESS, 2), 1.6, "x");
    Ok(vec![case])
}
