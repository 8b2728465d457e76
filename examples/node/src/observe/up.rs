//! `x0-node observe up`: Prometheus and Alertmanager for one cluster, on the loopback of this machine.
//!
//! The programs are those of Debian, unpacked into a folder: an installed package would start services.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;

use crate::cli::ObserveUpArgs;
use crate::signals::Stops;

const RULES: &str = include_str!("../../deploy/prometheus/rules.yml");
const PACKAGES: [&str; 2] = ["prometheus", "prometheus-alertmanager"];
/// The time in which both must accept connections.
const START_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// A program that ends with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs both until a signal.
pub(crate) async fn up(args: &ObserveUpArgs) -> Result<()> {
    let mut stops = Stops::new()?;
    let root = args.dir.join("root");
    for folder in [&args.dir, &root, &args.dir.join("packages")] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    if !root.join("usr/bin/prometheus-alertmanager").is_file() {
        fetch(&args.dir, &root)?;
    }
    let (prometheus, alertmanager) = (loopback(args.prometheus_port), loopback(args.alertmanager_port));
    write(&args.dir.join("rules.yml"), RULES)?;
    write(&args.dir.join("prometheus.yml"), &prometheus_yml(&args.http, alertmanager))?;
    write(&args.dir.join("alertmanager.yml"), &alertmanager_yml(args.webhook.as_deref()))?;
    let file = |name: &str| args.dir.join(name).display().to_string();
    let mut programs = [
        start_inside(
            &root,
            "usr/bin/prometheus-alertmanager",
            &args.dir.join("alertmanager.log"),
            &[
                format!("--config.file={}", file("alertmanager.yml")),
                format!("--storage.path={}", file("alertmanager")),
                format!("--web.listen-address={alertmanager}"),
                // No gossip: there is one.
                "--cluster.listen-address=".into(),
            ],
        )?,
        start(
            &root.join("usr/bin/prometheus"),
            &args.dir.join("prometheus.log"),
            &[
                format!("--config.file={}", file("prometheus.yml")),
                format!("--storage.tsdb.path={}", file("data")),
                format!("--web.listen-address={prometheus}"),
            ],
        )?,
    ];
    let started = async {
        for address in [alertmanager, prometheus] {
            while TcpStream::connect(address).await.is_err() {
                for program in &mut programs {
                    if let Some(status) = program.0.try_wait().context("cannot watch a program")? {
                        bail!("a program ended ({status}): see the logs in {}", args.dir.display());
                    }
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    };
    tokio::time::timeout(START_LIMIT, started).await.with_context(|| {
        format!("no answer within {START_LIMIT:?}: see the logs in {}", args.dir.display())
    })??;
    let text = format!(
        "Prometheus:    http://{prometheus}/alerts\nAlertmanager:  http://{alertmanager}/#/alerts\nCtrl-C stops both.\n"
    );
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    stops.next().await;
    Ok(())
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Fetches the packages with apt and unpacks them.
fn fetch(dir: &Path, root: &Path) -> Result<()> {
    let packages = dir.join("packages");
    run(Command::new("apt-get").arg("download").args(PACKAGES).current_dir(&packages))?;
    let files = std::fs::read_dir(&packages).context("cannot read the folder of the packages")?;
    for file in files {
        let path = file.context("cannot read the folder of the packages")?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg").arg("-x").arg(&path).arg(root))?;
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {name}: Debian's apt and dpkg are needed"))?;
    if !status.success() {
        bail!("{name} failed ({status}): run `apt-get update`, and look at its message above");
    }
    Ok(())
}

fn start(program: &Path, log: &Path, arguments: &[String]) -> Result<Running> {
    let log = std::fs::File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let both = log.try_clone().context("cannot open the log twice")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(both).stderr(log);
    command.spawn().map(Running).with_context(|| format!("cannot start {}", program.display()))
}

/// Starts a program of the unpacked packages that reads files below /usr/share: Debian's Alertmanager opens
/// its templates there. It sees those of the packages, in a mount namespace of its own.
fn start_inside(root: &Path, program: &str, log: &Path, arguments: &[String]) -> Result<Running> {
    // unshare and the shell replace themselves, so that the process that is started is the program.
    let mount = "mount --bind \"$0/usr/share\" /usr/share && exec \"$@\"";
    let root = root.canonicalize().with_context(|| format!("cannot find {}", root.display()))?;
    let mut all: Vec<String> =
        ["--user", "--map-root-user", "--mount", "--", "/bin/sh", "-c", mount].map(String::from).into();
    all.extend([root.display().to_string(), root.join(program).display().to_string()]);
    all.extend_from_slice(arguments);
    start(Path::new("unshare"), log, &all)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn prometheus_yml(targets: &[SocketAddr], alertmanager: SocketAddr) -> String {
    let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
    format!(
        "global: {{scrape_interval: 2s, evaluation_interval: 2s}}\nrule_files: [rules.yml]\nalerting:\n  alertmanagers:\n    \
         - static_configs: [{{targets: [\"{alertmanager}\"]}}]\nscrape_configs:\n  - job_name: x0\n    static_configs: \
         [{{targets: [{}]}}]\n",
        targets.join(", ")
    )
}

fn alertmanager_yml(webhook: Option<&str>) -> String {
    let receiver = match webhook {
        Some(url) => format!("\n    webhook_configs: [{{url: {url:?}}}]"),
        None => String::new(),
    };
    format!(
        "route: {{receiver: local, group_by: [job, alertname], group_wait: 2s, group_interval: 5s}}\n{}receivers:\n  - \
         name: local{receiver}\n",
        inhibitions()
    )
}

/// The inhibitions of the delivered configuration of the Alertmanager.
fn inhibitions() -> &'static str {
    let text = include_str!("../../deploy/alertmanager/alertmanager.yml");
    let from = text.find("inhibit_rules:").unwrap_or(text.len());
    let to = text.find("receivers:\n").unwrap_or(text.len());
    text.get(from..to).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_name_the_nodes_and_each_other() {
        let text = prometheus_yml(&[loopback(9401), loopback(9402)], loopback(9093));
        assert!(text.contains("targets: [\"127.0.0.1:9401\", \"127.0.0.1:9402\"]"), "{text}");
        assert!(
            text.contains("[{targets: [\"127.0.0.1:9093\"]}]") && text.contains("job_name: x0"),
            "{text}"
        );
        assert!(alertmanager_yml(Some("http://127.0.0.1:1/x")).contains("{url: \"http://127.0.0.1:1/x\"}"));
        let local = alertmanager_yml(None);
        assert!(!local.contains("webhook") && local.ends_with("receivers:\n  - name: local\n"), "{local}");
        assert!(local.contains("\ninhibit_rules:\n") && local.contains("X0NodeDown"), "{local}");
    }
}
