//! Prometheus, Alertmanager and VictoriaMetrics of Debian, unpacked in a folder, and what they answer.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Instant, SystemTime};

use serde_json::Value;

use crate::common::LIMIT;

/// The real files are for minutes and hours. All their times are divided by this.
pub(crate) const FASTER: u64 = 20;

const RULES: &str = include_str!("../../deploy/prometheus/rules.yml");
const ROUTES: &str = include_str!("../../deploy/alertmanager/alertmanager.yml");

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The programs, and their ports.
pub(crate) struct Programs {
    pub(crate) prometheus: u16,
    pub(crate) victoria: u16,
    pub(crate) began: f64,
    _running: [Running; 3],
}

impl Programs {
    /// Starts them in `folder`. Prometheus scrapes `targets` each second, and Alertmanager notifies PagerDuty
    /// at `pager`.
    pub(crate) fn start(root: &Path, folder: &Path, targets: &[u16], pager: &str) -> Programs {
        let [prometheus, alertmanager, victoria] = [free(), free(), free()];
        let file = |name: &str| folder.join(name).display().to_string();
        let targets =
            targets.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect::<Vec<_>>().join(", ");
        let scrape = format!(
            "scrape_configs:\n  - job_name: x0\n    scrape_interval: 1s\n    static_configs: [{{targets: [{targets}]}}]\n"
        );
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("victoria.yml", &scrape);
        let (horizon, nearer) = ("4 * 3600)", format!("{})", 4 * 3600 / FASTER));
        assert!(RULES.contains(horizon));
        write("rules.yml", &faster(&RULES.replace(horizon, &nearer)));
        write(
            "prometheus.yml",
            &format!(
                "global: {{evaluation_interval: 1s}}\nrule_files: [rules.yml]\nalerting: {{alertmanagers: [{{static_configs: \
                 [{{targets: [\"127.0.0.1:{alertmanager}\"]}}]}}]}}\n{scrape}"
            ),
        );
        write("pagerduty.key", "a-key-of-a-service\n");
        let key = format!("routing_key_file: {}\n        url: {pager}", file("pagerduty.key"));
        assert!(ROUTES.contains("routing_key_file: pagerduty.key"));
        write("alertmanager.yml", &faster(&ROUTES.replace("routing_key_file: pagerduty.key", &key)));
        let running = [
            // Debian's Alertmanager opens its templates below /usr/share: it sees those of the package.
            Running::start(
                Command::new("unshare")
                    .args(["--user", "--map-root-user", "--mount", "--", "/bin/sh", "-c"])
                    .arg("mount --bind \"$0/usr/share\" /usr/share && exec \"$@\"")
                    .arg(root)
                    .arg(root.join("usr/bin/prometheus-alertmanager"))
                    .arg(format!("--config.file={}", file("alertmanager.yml")))
                    .arg(format!("--storage.path={}", file("alertmanager")))
                    .arg(format!("--web.listen-address=127.0.0.1:{alertmanager}"))
                    .arg("--cluster.listen-address="),
                &folder.join("alertmanager.log"),
            ),
            Running::start(
                Command::new(root.join("usr/bin/prometheus"))
                    .arg(format!("--config.file={}", file("prometheus.yml")))
                    .arg(format!("--storage.tsdb.path={}", file("prometheus")))
                    .arg(format!("--web.listen-address=127.0.0.1:{prometheus}")),
                &folder.join("prometheus.log"),
            ),
            Running::start(
                Command::new(root.join("usr/bin/victoria-metrics"))
                    .arg(format!("-promscrape.config={}", file("victoria.yml")))
                    .arg(format!("-storageDataPath={}", file("victoria")))
                    .arg(format!("-httpListenAddr=127.0.0.1:{victoria}"))
                    // The answers leave the last 30 seconds out otherwise.
                    .arg("-search.latencyOffset=0s"),
                &folder.join("victoria.log"),
            ),
        ];
        let began = now();
        let programs = Programs { prometheus, victoria, began, _running: running };
        let begun = Instant::now();
        for port in [prometheus, alertmanager, victoria] {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                assert!(begun.elapsed() < LIMIT, "a program did not start: {}", logs(folder));
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
        programs
    }

    /// The series of an expression, now.
    pub(crate) fn query(&self, expression: &str) -> Vec<Value> {
        results(&get(self.prometheus, &format!("/api/v1/query?query={}", encoded(expression))))
    }

    /// The number of series of an expression since the start.
    pub(crate) fn series(&self, expression: &str) -> usize {
        let (from, to) = (self.began, now());
        let path = format!("/api/v1/query_range?query={}&start={from}&end={to}&step=2", encoded(expression));
        results(&get(self.prometheus, &path)).len()
    }

    /// The names of metrics of x0 and of processes that the database at this port holds.
    pub(crate) fn names(&self, port: u16) -> BTreeSet<String> {
        let answer = get(port, "/api/v1/label/__name__/values");
        let names = answer["data"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let names = names.iter().map(|name| name.as_str().unwrap().to_owned());
        names.filter(|name| name.starts_with("x0_") || name.starts_with("process_")).collect()
    }
}

impl Running {
    fn start(command: &mut Command, log: &Path) -> Running {
        let log = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Running(command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }
}

/// The logs of the programs, for the message of a failure.
pub(crate) fn logs(folder: &Path) -> String {
    let names = ["prometheus.log", "alertmanager.log", "victoria.log"].map(PathBuf::from);
    let texts = names.iter().map(|name| fs::read_to_string(folder.join(name)).unwrap_or_default());
    texts
        .map(|text| text.lines().rev().take(10).collect::<Vec<_>>().join("\n"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

fn free() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn results(answer: &Value) -> Vec<Value> {
    assert_eq!(answer["status"], "success", "{answer}");
    answer["data"]["result"].as_array().unwrap().clone()
}

fn get(port: u16, path: &str) -> Value {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    // HTTP/1.0: the answer is not in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let body = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {text}")).1;
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{path}: {text}"))
}

/// RFC 3986, section 2.1.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").unwrap(),
        }
        encoded
    })
}

/// The text of a configuration with its durations divided: those of windows, and after a colon.
fn faster(text: &str) -> String {
    let mut faster = String::new();
    for line in text.split_inclusive('\n') {
        let is_setting = ["for:", "interval:", "group_wait:", "group_interval:"]
            .iter()
            .any(|key| line.trim_start_matches([' ', '-']).starts_with(key));
        let mut rest = line;
        let start = if is_setting { ": " } else { "[" };
        while let Some(at) = rest.find(start) {
            let (before, after) = rest.split_at(at + start.len());
            faster.push_str(before);
            let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let unit = match after.as_bytes().get(digits) {
                Some(b's') => 1,
                Some(b'm') => 60,
                Some(b'h') => 3600,
                _ => 0,
            };
            rest = after;
            if let (Ok(count), 1..) = (after[..digits].parse::<u64>(), unit) {
                // A rate needs several scrapes.
                let least = if is_setting { 1 } else { 5 };
                write!(faster, "{}s", (count * unit / FASTER).max(least)).unwrap();
                rest = &after[digits + 1..];
            }
        }
        faster.push_str(rest);
    }
    faster
}

#[test]
fn durations_are_divided() {
    let text = "  interval: 15s\n expr: rate(x[5m]) > 5 and y{a=\"[x\"}[1h]\n for: 2m\n group_wait: 1m\n runbook: a: b\n";
    let expected = "  interval: 1s\n expr: rate(x[15s]) > 5 and y{a=\"[x\"}[180s]\n for: 6s\n group_wait: 3s\n runbook: a: b\n";
    assert_eq!(faster(text), expected);
}
