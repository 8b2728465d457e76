//! Metrics of the process, from /proc, as the official Prometheus clients name them.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The unit of times in /proc: USER_HZ, which is 100 on every architecture of Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process when this was made.
#[derive(Debug)]
pub(crate) struct Process {
    /// In Unix time.
    started: f64,
}

impl Process {
    pub(crate) fn new() -> Process {
        Process { started: started().unwrap_or_default().as_secs_f64() }
    }

    /// Appends the metrics that can be read.
    pub(crate) fn write(&self, to: &mut String) {
        let mut put = |name: &str, kind: &str, help: &str, value: Option<f64>| {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(to, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
            }
        };
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let field = |number: usize| field(stat.as_deref()?, number);
        let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS_PER_SECOND);
        put("process_cpu_seconds_total", "counter", "CPU time of the process, user and system.", cpu);
        put("process_resident_memory_bytes", "gauge", "Resident memory.", field(24).map(resident_bytes));
        put("process_virtual_memory_bytes", "gauge", "Virtual memory.", field(23));
        put("process_threads", "gauge", "Threads.", field(20));
        let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
        put("process_open_fds", "gauge", "Open files.", open);
        let limits = fs::read_to_string("/proc/self/limits").ok();
        put("process_max_fds", "gauge", "The most files that may be open.", files_max(limits.as_deref()));
        put(
            "process_start_time_seconds",
            "gauge",
            "The start of the process, in Unix time.",
            Some(self.started),
        );
    }
}

/// The resident memory of this process, in bytes.
pub(crate) fn resident() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    field(&stat, 24).map(resident_bytes)
}

fn resident_bytes(pages: f64) -> f64 {
    pages * rustix::param::page_size() as f64
}

/// A field of /proc/self/stat, counted from 1 as in proc(5). The name of the program, in parentheses, may
/// hold anything.
fn field(stat: &str, number: usize) -> Option<f64> {
    let after = &stat[stat.rfind(')')? + 1..];
    after.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn files_max(limits: Option<&str>) -> Option<f64> {
    let line = limits?.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

/// The start of this process, as near as the clocks of the kernel show it.
fn started() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let age = Duration::try_from_secs_f64((uptime - field(&stat, 22)? / TICKS_PER_SECOND).max(0.0)).ok()?;
    SystemTime::now().duration_since(UNIX_EPOCH).ok()?.checked_sub(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_hostile_name() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 1250 250";
        assert_eq!((field(stat, 4), field(stat, 14), field(stat, 15)), (Some(1.0), Some(11.0), Some(1250.0)));
        assert_eq!((field("", 4), field(stat, 99)), (None, None));
        assert_eq!(files_max(Some("Max open files            1024   4096   files\n")), Some(1024.0));
    }

    #[test]
    fn this_process_has_all_of_them() {
        let mut text = String::new();
        Process::new().write(&mut text);
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(resident().unwrap() > 100_000.0);
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") > value("process_open_fds"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - 86_400.0..=now + 1.0).contains(&value("process_start_time_seconds")));
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
