//! Three ZooKeeper servers, without TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Cluster, SERVERS, debian};
use crate::load::Target;
use crate::process::{Server, find_program, free_ports};

/// Debian's ZooKeeper and the libraries that a server without its admin console loads. (The package
/// `zookeeper` itself would bring forty more for the console, and start a service.)
const PACKAGES: [&str; 8] = [
    "libzookeeper-java",
    "libcommons-cli-java",
    "libcommons-io-java",
    "libdropwizard-metrics-java",
    "liblog4j1.2-java",
    "libnetty-java",
    "libslf4j-java",
    "libsnappy-java",
];
const JARS: [&str; 7] = [
    "zookeeper.jar",
    "zookeeper-jute.jar",
    "commons-cli.jar",
    "metrics-core.jar",
    "slf4j-api.jar",
    "slf4j-simple.jar",
    "snappy-java.jar",
];

/// Installed or previously fetched Java and ZooKeeper libraries.
pub(crate) fn present() -> (Option<PathBuf>, Option<PathBuf>) {
    let jars = |root: PathBuf| Some(root.join("usr/share/java")).filter(|jars| jars.join(JARS[0]).is_file());
    let java = find_program("java").or_else(|| java_in(&debian::root("java")));
    (java, jars(PathBuf::from("/")).or_else(|| jars(debian::root("zookeeper"))))
}

/// Starts three servers with the defaults of ZooKeeper: ticks of 2 s, the transaction log synced at every
/// commit (`forceSync`), a heap of 1000 MB.
pub(crate) fn start(data: &Path) -> Result<Cluster> {
    let (java, jars) = present();
    let java = match java {
        Some(java) => java,
        None => fetch_java()?,
    };
    let jars = match jars {
        Some(jars) => jars,
        None => debian::fetch("zookeeper", &PACKAGES)?.join("usr/share/java"),
    };
    let netty = std::fs::read_dir(&jars)?.filter_map(|entry| Some(entry.ok()?.path()));
    let netty =
        netty.filter(|jar| jar.file_name().is_some_and(|name| name.to_string_lossy().starts_with("netty-")));
    let class_path = std::env::join_paths(JARS.iter().map(|jar| jars.join(jar)).chain(netty))?;

    let folder = tempfile::Builder::new().prefix("zookeeper-").tempdir_in(data)?;
    let ports = free_ports(3 * SERVERS)?;
    let (endpoints, ports) = ports.split_at(SERVERS);
    let members: String = ports.chunks(2).enumerate().map(|(n, ports)| member(n + 1, ports)).collect();
    let servers = endpoints.iter().enumerate().map(|(n, port)| {
        let own = folder.path().join(format!("n{n}"));
        std::fs::create_dir_all(&own)?;
        std::fs::write(own.join("myid"), format!("{}\n", n + 1))?;
        let config = own.join("zoo.cfg");
        let text = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             admin.enableServer=false\n4lw.commands.whitelist=srvr\n{members}",
            own.display()
        );
        std::fs::write(&config, text)?;
        Server::start(&format!("zookeeper-n{n}"), &java, folder.path(), |command| {
            command.arg("-Xmx1000m").arg("-cp").arg(&class_path);
            command.args(["-Dzookeeper.jmx.log4j.disable=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
            command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(&config);
        })
    });
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let target = Target::Zookeeper { endpoints: endpoints.to_vec() };
    Ok(Cluster { name: "zookeeper".to_owned(), servers, target, _folder: folder })
}

/// `server.N=ADDRESS:QUORUM PORT:ELECTION PORT`.
fn member(number: usize, ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!("server.{number}=127.0.0.1:{}\n", ports.join(":"))
}

/// The runtime that Debian's `default-jre-headless` depends on, without the other packages.
fn fetch_java() -> Result<PathBuf> {
    let by_hand = "no Java here; run `apt-get install --no-install-recommends default-jre-headless`";
    let depends =
        Command::new("apt-cache").args(["depends", "default-jre-headless"]).output().context(by_hand)?;
    let text = String::from_utf8_lossy(&depends.stdout).into_owned();
    let package = java_package(&text).context(by_hand)?;
    let root = debian::fetch("java", &[package])?;
    java_in(&root).with_context(|| format!("{package} has no java in it; {by_hand}"))
}

fn java_package(depends: &str) -> Option<&str> {
    let packages = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    packages.into_iter().find(|package| package.starts_with("openjdk-") && package.ends_with("-jre-headless"))
}

fn java_in(root: &Path) -> Option<PathBuf> {
    let machines = std::fs::read_dir(root.join("usr/lib/jvm")).ok()?;
    machines.filter_map(|machine| Some(machine.ok()?.path().join("bin/java"))).find(|java| java.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_behind_the_default_is_found() {
        let text =
            "default-jre-headless\n  Depends: java-common\n  Depends: openjdk-17-jre-headless\n  Breaks: x\n";
        assert_eq!(java_package(text), Some("openjdk-17-jre-headless"));
        assert_eq!(java_package(""), None);
    }

    #[test]
    fn a_member_line() {
        assert_eq!(member(2, &[7001, 7002]), "server.2=127.0.0.1:7001:7002\n");
    }
}
