//! A Prometheus in small: asks each server for its metrics every second.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::procfs;

const EVERY: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(5);

/// What the scrapes of some windows took.
#[derive(Debug, Default)]
pub(super) struct Scrapes {
    times: Vec<Duration>,
    /// The length of the last answer.
    pub(super) bytes: usize,
}

impl Scrapes {
    pub(super) fn add(&mut self, other: Scrapes) {
        self.times.extend(other.times);
        self.bytes = self.bytes.max(other.bytes);
    }

    /// NaN without a scrape.
    pub(super) fn percentile_ms(&self, share: f64) -> f64 {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        #[expect(clippy::cast_possible_truncation, reason = "a part of the length")]
        let at = (share * sorted.len() as f64) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// Scrapes until it is stopped.
pub(super) struct Scraper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Scrapes>,
}

impl Scraper {
    /// Scrapes these ports of the loopback; none if there are none.
    pub(super) fn start(ports: &[u16]) -> Scraper {
        let (stop, ports) = (Arc::<AtomicBool>::default(), ports.to_vec());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut scrapes = Scrapes::default();
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                if !ports.is_empty() && Instant::now() >= next {
                    next += EVERY;
                    for port in &ports {
                        let begun = Instant::now();
                        // A failed scrape is none; its absence shows in the number of scrapes.
                        if let Ok(len) = scrape(*port) {
                            scrapes.times.push(begun.elapsed());
                            scrapes.bytes = len;
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            scrapes
        });
        Scraper { stop, thread }
    }

    /// Ends it. Returns what it measured.
    pub(super) fn stop(self) -> Scrapes {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// The processor time of the servers for one scrape, without what they use while nobody asks. The servers
/// have no other load.
pub(super) fn cpu(ports: &[u16], servers: &[u32], scrapes: u32) -> Result<Duration> {
    let (begun, before) = (Instant::now(), procfs::cpu(servers)?);
    for _ in 0..scrapes {
        for port in ports {
            scrape(*port)?;
        }
    }
    let (elapsed, after) = (begun.elapsed(), procfs::cpu(servers)?);
    // As long again, for what heartbeats cost.
    std::thread::sleep(elapsed);
    let idle = procfs::cpu(servers)?.saturating_sub(after);
    let count = scrapes.saturating_mul(u32::try_from(ports.len())?).max(1);
    Ok(after.saturating_sub(before).saturating_sub(idle) / count)
}

/// The length of the answer to one scrape.
fn scrape(port: u16) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_windows() {
        let mut all = Scrapes::default();
        assert!(all.percentile_ms(0.5).is_nan());
        for time in [3, 1, 2] {
            all.add(Scrapes { times: vec![Duration::from_millis(time)], bytes: 10 });
        }
        assert_eq!((all.percentile_ms(0.5), all.percentile_ms(0.99), all.bytes), (2.0, 3.0, 10));
    }
}
