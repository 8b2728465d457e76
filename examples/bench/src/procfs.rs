//! CPU time and memory of processes, from procfs.

use std::time::Duration;

use anyhow::{Context, Result};

/// `/proc/PID/stat` counts in USER_HZ, which is 100 on every supported architecture.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time (user and system, all threads) of the processes since each began.
pub(crate) fn cpu(pids: &[u32]) -> Result<Duration> {
    pids.iter().try_fold(Duration::ZERO, |sum, pid| {
        let path = format!("/proc/{pid}/stat");
        let stat = std::fs::read_to_string(&path).with_context(|| format!("{path}: the server has gone"))?;
        Ok(sum + cpu_of_stat(&stat).with_context(|| format!("{path} has an unknown form"))?)
    })
}

/// Resident memory of the processes, in bytes.
pub(crate) fn resident(pids: &[u32]) -> Result<u64> {
    pids.iter().try_fold(0, |sum, pid| {
        let path = format!("/proc/{pid}/status");
        let status =
            std::fs::read_to_string(&path).with_context(|| format!("{path}: the server has gone"))?;
        Ok(sum + memory_of_status(&status, "VmRSS:").with_context(|| format!("{path} has no VmRSS"))?)
    })
}

/// Resident memory of this process at its peak, in bytes.
pub(crate) fn resident_max() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    memory_of_status(&status, "VmHWM:").context("/proc/self/status has no VmHWM")
}

/// proc(5): the second field is the command in parentheses and may contain any character, so that fields are
/// counted from the last `)`.
fn cpu_of_stat(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?; // field 14
    let system: u64 = fields.next()?.parse().ok()?; // field 15
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

fn memory_of_status(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_last_parenthesis() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 123 45 7 8 20 0 14 0 99 1 2";
        for name in ["etcd", "a b", "x) S 1 (y", ""] {
            let stat = format!("4711 ({name}) {rest}\n");
            assert_eq!(cpu_of_stat(&stat), Some(Duration::from_millis(1680)), "{name}");
        }
        for broken in ["", "4711 (etcd", "4711 (etcd) S 1 2", "4711 (e) S 1 2 3 4 5 6 7 8 9 10 x 45"] {
            assert_eq!(cpu_of_stat(broken), None, "{broken}");
        }
    }

    #[test]
    fn status_gives_resident_bytes() {
        assert_eq!(
            memory_of_status("Name:\tetcd\nVmRSS:\t   12345 kB\nVmData: 1 kB\n", "VmRSS:"),
            Some(12345 * 1024)
        );
        assert_eq!(memory_of_status("Name:\tkthreadd\n", "VmRSS:"), None);
    }

    #[test]
    fn our_own_process_is_readable() {
        let own = [std::process::id()];
        assert!(resident(&own).unwrap() > 100_000);
        assert!(resident_max().unwrap() >= resident(&own).unwrap());
        cpu(&own).unwrap();
        assert!(cpu(&[u32::MAX]).is_err());
    }
}
