//! The cost of a put: latency, processor time and context switches of three nodes and one client in this
//! process, each on a runtime with one worker. Linux only: it reads `/proc`.
//!
//! `cargo run --release -p x0-kv --features mesh --example put_cost [puts]`; under `strace -c -f` it counts
//! system calls.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};
use x0_kv::cluster::{Node, NodeOptions};
use x0_kv::{Client, ClientOptions};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{Mux, MuxOptions};

/// Puts before the measurement, so that connections, sessions and files are warm.
const WARM_UP: u32 = 200;

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// The processor time of this process, in clock ticks of 10 ms.
fn cpu() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in parentheses, may contain spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 =
        fields.get(11..13).ok_or("a short stat")?.iter().flat_map(|field| field.parse::<u64>()).sum();
    Ok(Duration::from_millis(10 * ticks))
}

/// The voluntary context switches of all threads: each is a wait for something.
fn waits() -> Result<u64, Box<dyn Error>> {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += count.unwrap_or("0").trim().parse::<u64>()?;
    }
    Ok(sum)
}

fn main() -> Result<(), Box<dyn Error>> {
    let puts: u32 = std::env::args().nth(1).map_or(Ok(2000), |count| count.parse())?;
    let authority = Authority::new(TrustDomain::parse("example.org")?, &AuthorityOptions::default())?;
    let ids = [1, 2, 3, 9].map(NodeId::new).map(Option::unwrap);
    let (members, client_id) = (&ids[..3], ids[3]);
    let folder = std::env::temp_dir().join(format!("x0-put-cost-{}", std::process::id()));
    let mut transports = Vec::new();
    for id in ids {
        let runtime = runtime()?;
        let _enter = runtime.enter();
        let spiffe_id = SpiffeId::for_node(authority.trust_domain(), id);
        let identity =
            Identity::new(authority.issue(&spiffe_id, Duration::from_secs(3600))?, authority.bundle())?;
        let bind = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = QuicOptions::new(id, bind, identity.server_config(), identity.client_config());
        let transport = QuicTransport::bind(options)?;
        drop(_enter);
        transports.push((id, runtime, transport));
    }
    let address = |(id, _, transport): &(NodeId, Runtime, QuicTransport)| Ok((*id, transport.local_addr()?));
    let addresses = transports.iter().map(address).collect::<Result<Vec<_>, std::io::Error>>()?;
    let (mut nodes, mut client, mut runtimes) = (Vec::new(), None, Vec::new());
    for (id, runtime, transport) in transports {
        for (peer, address) in addresses.iter().filter(|(peer, _)| *peer != id && *peer != client_id) {
            transport.peers().set_peer(*peer, *address);
        }
        let enter = runtime.enter();
        let mux = Mux::new(transport, MuxOptions::default());
        if id == client_id {
            client = Some(Client::connect(ClientOptions::new(id, members.iter().copied()), &mux)?);
        } else {
            let options = NodeOptions::new(id, folder.join(id.to_string())).founders(members.iter().copied());
            nodes.push(Node::start(options, &mux)?);
        }
        drop(enter);
        runtimes.push(runtime);
    }
    let client = client.ok_or("no client")?;
    for _ in 0..WARM_UP {
        client.store().put("key", "value").wait()?;
    }
    let (cpu_before, waits_before) = (cpu()?, waits()?);
    let mut latencies = Vec::new();
    for _ in 0..puts {
        let begun = Instant::now();
        client.store().put("key", "a value of some bytes").wait()?;
        latencies.push(begun.elapsed());
    }
    let (cpu, waits) = (cpu()?.saturating_sub(cpu_before), waits()? - waits_before);
    latencies.sort();
    let p50 = latencies.get(latencies.len() / 2).copied().unwrap_or_default();
    println!(
        "put p50 {p50:?}; per put {:?} of processor time and {:.1} waits",
        cpu / puts,
        waits as f64 / f64::from(puts)
    );
    drop((client, nodes));
    runtimes.into_iter().for_each(|runtime| runtime.shutdown_timeout(Duration::from_secs(5)));
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
