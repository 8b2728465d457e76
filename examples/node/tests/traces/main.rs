//! Traces of real processes: a write through a follower is one tree in a receiver, and a receiver that does
//! not behave costs spans alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::time::{Duration, Instant};

use common::{Cluster, LIMIT, Process, x0_node};
use receiver::{Receiver, Span};

/// The path of `oteltap` of PyPI: the stage `traces` of `.ci/run` sets it.
const OTELTAP: &str = "X0_OTELTAP";
/// The path of `rotel-agent` of PyPI: the same stage sets it.
const ROTEL: &str = "X0_ROTEL";

/// Appends a section to the configuration of a node.
fn observe(cluster: &Cluster, node: usize, section: &str) {
    let config = cluster.path(&format!("node-{node}/node.toml"));
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[observe]\n{section}\n")).unwrap();
}

/// A configuration of the client that knows node `only` alone, and sends its own spans to `url`.
fn client_of(cluster: &Cluster, only: usize, url: Option<&str>) -> String {
    let text = fs::read_to_string(cluster.path("client/client.toml")).unwrap();
    let mut parts = text.split("[[members]]");
    let mut head = parts.next().unwrap().to_owned();
    if let Some(url) = url {
        head.push_str(&format!("traces = \"{url}\"\n"));
    }
    let member = parts.nth(only - 1).unwrap();
    let path = cluster.path(&format!("client/only-{only}.toml"));
    fs::write(&path, format!("{head}[[members]]{member}")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn kv(arguments: &[&str], config: &str) -> Output {
    let output = x0_node(&["kv"]).args(arguments).args(["--config", config]).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

/// The id of the trace that a command prints.
fn printed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("trace ")).expect(&text);
    assert!(line.len() == 32 && line.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
    line.to_owned()
}

/// The number of the leader, as a node reports it.
fn leader(node: &mut Process) -> usize {
    let line = node.logged("event=leader ");
    let id = line.split("leader=").last().unwrap().split(' ').next().unwrap();
    usize::from_str_radix(id, 16).unwrap()
}

/// The nodes with a span of this name.
fn nodes(spans: &[Span], name: &str) -> BTreeSet<String> {
    spans.iter().filter(|span| span.name == name).filter_map(|span| span.texts.get("node").cloned()).collect()
}

/// The share of the time of `span` in which one of its children is under way.
fn covered(span: &Span, spans: &[Span]) -> f64 {
    let mut parts: Vec<(u64, u64)> = spans
        .iter()
        .filter(|child| child.parent == span.id)
        .map(|child| (child.start.max(span.start), child.end.min(span.end)))
        .collect();
    parts.sort_unstable();
    let (mut sum, mut until) = (0, 0);
    for (start, end) in parts {
        sum += end.saturating_sub(start.max(until));
        until = until.max(end);
    }
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    (sum as f64 / (span.end - span.start) as f64)
}

/// Hardly any time of a command is in no span. A machine with other work may stop the command between two
/// spans, so that it is run again.
fn check_cover(receiver: &Receiver, command: &[&str], config: &str) {
    let begun = Instant::now();
    loop {
        let trace = printed(&kv(command, config));
        let spans = receiver.trace(&trace, |spans| spans.iter().any(|span| span.parent.is_empty()));
        let covered = covered(spans.iter().find(|span| span.parent.is_empty()).unwrap(), &spans);
        if covered >= 0.95 {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{covered} of the command is in a span: {spans:#?}");
    }
}

fn a_write_through_a_follower_is_one_tree(receiver: &Receiver) {
    let cluster = Cluster::init(3);
    let url = &receiver.url;
    for number in 1..=3 {
        observe(&cluster, number, &format!("traces = \"{url}\"\ntrace_ratio = 0.0"));
    }
    let mut processes: Vec<Process> = (1..=3).map(|number| cluster.start(number)).collect();
    let leader = leader(&mut processes[0]);
    let follower = (1..=3).find(|number| *number != leader).unwrap();
    let config = client_of(&cluster, follower, Some(url));
    // A command that is not traced leaves nothing.
    kv(&["put", "untraced", "value"], &config);
    let output = kv(&["put", "--trace", "key", "value"], &config);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("revision "), "{output:?}");
    let trace = printed(&output);
    let id = |number: usize| format!("{number:016x}");
    let all = [1, 2, 3].map(id).into_iter().collect::<BTreeSet<_>>();
    let followers: BTreeSet<String> =
        all.iter().filter(|id| !id.ends_with(&leader.to_string())).cloned().collect();
    let spans = receiver.trace(&trace, |spans| {
        nodes(spans, "log.write") == all
            && nodes(spans, "consensus.append") == followers
            && nodes(spans, "consensus.apply") == all
            // The session and the value.
            && spans.iter().filter(|span| span.name == "consensus.commit").count() == 2
            && spans.iter().filter(|span| span.name == "consensus.apply").count() == 6
            && spans.iter().any(|span| span.parent.is_empty())
    });
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "no span comes twice");
    let roots: Vec<&Span> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    assert_eq!(roots.iter().map(|root| root.name.as_str()).collect::<Vec<_>>(), ["kv.command"]);
    for span in spans.iter().filter(|span| !span.parent.is_empty()) {
        let parent =
            by_id.get(span.parent.as_str()).unwrap_or_else(|| panic!("{span:?} has no parent in {spans:#?}"));
        assert!(span.start <= span.end && parent.start <= span.start, "{span:?} begins before {parent:?}");
    }
    // The way of the operation: the command, the follower, the leader.
    let path = |span: &Span| {
        let mut path = vec![span.clone()];
        while let Some(parent) = by_id.get(path.last().unwrap().parent.as_str()) {
            path.push((*parent).clone());
        }
        path.iter().rev().map(|span| span.name.clone()).collect::<Vec<_>>().join("/")
    };
    let commits: BTreeSet<String> =
        spans.iter().filter(|span| span.name == "consensus.commit").map(path).collect();
    let expected = "kv.command/kv.put/kv.write/kv.write/consensus.propose/consensus.commit";
    assert_eq!(commits.into_iter().collect::<Vec<_>>(), [expected]);
    let served = nodes(&spans, "kv.write");
    assert_eq!(served.len(), 2, "the follower passes it on, the leader proposes it: {served:?}");
    for write in spans.iter().filter(|span| span.name == "log.write") {
        assert_eq!(write.links, std::slice::from_ref(&write.parent), "the only traced entry of its batch");
    }
    // No other operation was traced.
    let others = receiver.spans().into_iter().filter(|span| span.trace != trace);
    let others: BTreeSet<String> = others.map(|span| span.name).collect();
    assert!(!others.iter().any(|name| name.starts_with("kv.")), "{others:?}");
    // A span of another program is continued.
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let output = kv(&["get", "key", "--trace-parent", parent], &config);
    assert_eq!(output.stdout, b"value\n");
    assert_eq!(printed(&output), "0af7651916cd43dd8448eb211c80319c");
    let spans = receiver.trace("0af7651916cd43dd8448eb211c80319c", |spans| {
        spans.iter().any(|span| span.name == "kv.command") && nodes(spans, "kv.read").len() == 2
    });
    let command = spans.iter().find(|span| span.name == "kv.command").unwrap();
    assert_eq!(command.parent, "b7ad6b7169203331");
    check_cover(receiver, &["put", "--trace", "key", "value"], &config);
    // The election of another leader is one tree over three processes, down to the entry that begins the
    // term.
    let transfer = ["leader", "transfer", &follower.to_string(), "--config"];
    let operator = cluster.path("operator/operator.toml");
    let transferred = x0_node(&transfer).arg(operator).output().unwrap();
    assert!(transferred.status.success(), "{transferred:?}");
    let begun = Instant::now();
    let is_won = |span: &Span| {
        let has = |key: &str| span.texts.get(key).is_some_and(|text| *text == id(follower));
        span.name == "consensus.election" && has("node") && has("leader")
    };
    let election = loop {
        if let Some(root) = receiver.spans().into_iter().find(is_won) {
            break root;
        }
        assert!(begun.elapsed() < LIMIT, "no span of the election: {:#?}", receiver.spans());
        std::thread::sleep(Duration::from_millis(20));
    };
    let spans = receiver.trace(&election.trace, |spans| {
        ["consensus.election", "consensus.append", "consensus.apply", "log.write"]
            .iter()
            .all(|name| nodes(spans, name) == all)
    });
    let roots: Vec<&Span> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    assert_eq!(roots.iter().map(|root| &root.id).collect::<Vec<_>>(), [&election.id], "{spans:#?}");
    for span in &spans {
        let has_parent = spans.iter().any(|parent| parent.id == span.parent);
        assert!(span.parent.is_empty() || has_parent, "{span:?} has no parent in {spans:#?}");
    }
}

#[test]
fn a_write_through_a_follower_is_one_tree_over_three_processes() {
    a_write_through_a_follower_is_one_tree(&Receiver::start());
}

/// A write through a follower is one tree in a receiver that others wrote.
#[test]
fn oteltap_receives_the_tree() {
    match std::env::var(OTELTAP) {
        Ok(program) => a_write_through_a_follower_is_one_tree(&Receiver::oteltap(&program)),
        Err(_) => eprintln!("skipped: {OTELTAP} is not set to the path of oteltap"),
    }
}

/// The same through another receiver that others wrote, which forwards what it receives.
#[test]
fn rotel_forwards_the_tree() {
    match std::env::var(ROTEL) {
        Ok(program) => a_write_through_a_follower_is_one_tree(&Receiver::rotel(&program)),
        Err(_) => eprintln!("skipped: {ROTEL} is not set to the path of rotel-agent"),
    }
}

/// Without `--trace` the ratio of the member decides, and a client needs no receiver.
#[test]
fn the_member_decides_about_operations_of_clients() {
    let receiver = Receiver::start();
    let cluster = Cluster::init(1);
    observe(&cluster, 1, &format!("traces = \"{}\"\ntrace_ratio = 1.0", receiver.url));
    let _node = cluster.start(1);
    let config = client_of(&cluster, 1, None);
    kv(&["put", "key", "value"], &config);
    let begun = Instant::now();
    let root = loop {
        let spans = receiver.spans();
        // The first is that of the session.
        if let Some(root) = spans.iter().filter(|span| span.name == "kv.write").nth(1) {
            break root.clone();
        }
        assert!(begun.elapsed() < LIMIT, "{spans:#?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(root.parent, "");
    let spans = receiver.trace(&root.trace, |spans| spans.iter().any(|span| span.name == "log.write"));
    assert!(spans.iter().any(|span| span.name == "consensus.commit"), "{spans:#?}");
    // The id of a command without a receiver of its own is that of the spans of the nodes.
    let trace = printed(&kv(&["put", "--trace", "key", "value"], &config));
    receiver.trace(&trace, |spans| spans.iter().any(|span| span.name == "log.write"));
}

/// The lines of the log have the ids of the spans that the receiver gets, and a request over HTTP continues
/// the trace of its client.
#[test]
fn lines_of_the_log_and_requests_over_http_join_their_traces() {
    let receiver = Receiver::start();
    let cluster = Cluster::init(1);
    let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let section = format!(
        "traces = \"{}\"\ntrace_ratio = 1.0\nslow_ms = 0\n[[http]]\naddress = \"127.0.0.1:{http}\"\nroutes = [\"metrics\"]\n\
         tls = \"off\"",
        receiver.url
    );
    observe(&cluster, 1, &section);
    let config = cluster.path("node-1/node.toml");
    let mut node = Process::start(x0_node(&["run", "--log", "json", "--config"]).arg(config));
    let ids = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        ["trace_id", "span_id"].map(|key| record[key].as_str().unwrap_or_else(|| panic!("{line}")).to_owned())
    };
    let [trace, span] = ids(&node.logged("\"event\":\"election\""));
    let spans = receiver.trace(&trace, |spans| spans.iter().any(|one| one.id == span));
    assert_eq!(spans[0].name, "consensus.election");
    kv(&["put", "key", "value"], &client_of(&cluster, 1, None));
    let [trace, span] = ids(&node.logged_both("\"event\":\"operation-slow\"", "\"kv.write\""));
    let spans = receiver.trace(&trace, |spans| spans.iter().any(|one| one.id == span));
    assert!(spans.iter().any(|one| one.id == span && one.name == "kv.write"), "{spans:#?}");
    // The identity is read again within a span, and so are the lines about it.
    let issued = x0_node(&["issue", "--node", "1", "--dir"]).arg(cluster.root()).output().unwrap();
    assert!(issued.status.success(), "{issued:?}");
    let [trace, span] = ids(&node.logged("\"event\":\"identity-rotated\""));
    let spans = receiver.trace(&trace, |spans| spans.iter().any(|one| one.name == "identity.rotate"));
    assert!(spans.iter().any(|one| one.name == "identity.rotate" && one.parent == span), "{spans:#?}");

    let mut stream = TcpStream::connect(("127.0.0.1", http)).unwrap();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\ntraceparent: {parent}\r\nConnection: close\r\n\r\n")
        .unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    let spans = receiver.trace("0af7651916cd43dd8448eb211c80319c", |spans| !spans.is_empty());
    assert_eq!((spans[0].name.as_str(), spans[0].parent.as_str()), ("http.request", "b7ad6b7169203331"));
}

fn a_crdt_write_is_one_tree(receiver: &Receiver) {
    let cluster = Cluster::init(3);
    for number in 1..=3 {
        observe(&cluster, number, &format!("traces = \"{}\"\ntrace_ratio = 0.0", receiver.url));
    }
    let _nodes: Vec<Process> = (1..=3).map(|number| cluster.start(number)).collect();
    let config = client_of(&cluster, 1, Some(&receiver.url));
    // Once each member has this write they know each other, and the next one mostly reaches them in one
    // datagram.
    kv(&["put", "--crdt", "first", "value"], &config);
    let begun = Instant::now();
    for number in 2..=3 {
        let config = client_of(&cluster, number, None);
        while x0_node(&["kv", "get", "--crdt", "first", "--config", &config]).output().unwrap().stdout
            != b"value\n"
        {
            assert!(begun.elapsed() < LIMIT, "node {number} does not get the first write");
        }
    }
    let is_whole = |spans: &[Span]| {
        nodes(spans, "crdt.merge").len() == 2 && spans.iter().any(|span| span.name == "kv.command")
    };
    // A member that gets the write from the other one first, or in a later exchange, gets it without its
    // trace.
    let begun = Instant::now();
    let spans = loop {
        let trace = printed(&kv(&["put", "--trace", "--crdt", "key", "value"], &config));
        match receiver.trace_within(Duration::from_secs(5), &trace, is_whole) {
            Ok(spans) => break spans,
            Err(spans) => assert!(begun.elapsed() < LIMIT, "the trace {trace} is not whole: {spans:#?}"),
        }
    };
    let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (put, write) = (of("kv.crdt.put")[0], of("kv.crdt.write")[0]);
    assert_eq!((&write.parent, &put.parent), (&put.id, &of("kv.command")[0].id));
    assert!(of("crdt.merge").iter().all(|merge| merge.parent == write.id), "{spans:#?}");
    check_cover(receiver, &["put", "--trace", "--crdt", "key", "value"], &config);
}

/// A write to a CRDT keyspace is one tree as well, with its merge on each other member.
#[test]
fn a_write_to_a_crdt_keyspace_is_one_tree_with_its_merges() {
    a_crdt_write_is_one_tree(&Receiver::start());
}

/// A CRDT write is one tree in a receiver that others wrote.
#[test]
fn oteltap_receives_the_tree_of_a_crdt_write() {
    match std::env::var(OTELTAP) {
        Ok(program) => a_crdt_write_is_one_tree(&Receiver::oteltap(&program)),
        Err(_) => eprintln!("skipped: {OTELTAP} is not set to the path of oteltap"),
    }
}

/// What a receiver does with a connection.
type Behaviour = fn(TcpStream);

/// A listener of this behaviour; `None` is a port on which nobody listens.
fn bad_receiver(behaviour: Option<Behaviour>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    if let Some(behaviour) = behaviour {
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || behaviour(stream.unwrap()));
            }
        });
    }
    url
}

fn hangs(stream: TcpStream) {
    std::thread::sleep(LIMIT);
    drop(stream);
}

fn refuses(mut stream: TcpStream) {
    let mut some = [0; 64];
    let _ = stream.read(&mut some);
    let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
}

fn answers_garbage(mut stream: TcpStream) {
    let garbage: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
    let _ = stream.write_all(&garbage);
}

fn metric(port: u16, name: &str) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Operations go on, spans are dropped and counted, and the node ends within two seconds of a signal.
#[test]
fn a_bad_receiver_costs_spans_alone() {
    let behaviours: [(&str, Option<Behaviour>); 4] = [
        ("absent", None),
        ("hanging", Some(hangs)),
        ("refusing", Some(refuses)),
        ("garbage", Some(answers_garbage)),
    ];
    for (name, behaviour) in behaviours {
        let cluster = Cluster::init(1);
        let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let section = format!(
            "traces = \"{}\"\ntrace_ratio = 1.0\n[[http]]\naddress = \"127.0.0.1:{http}\"\nroutes = [\"metrics\"]\ntls = \"off\"",
            bad_receiver(behaviour)
        );
        observe(&cluster, 1, &section);
        let mut node = cluster.start(1);
        let begun = Instant::now();
        for number in 0..10 {
            cluster.put(&number.to_string());
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "{name}: 10 commands took {took:?}");
        while metric(http, "x0_trace_dropped_total") == 0 {
            assert!(begun.elapsed() < LIMIT, "{name}: no span was dropped");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(metric(http, "x0_trace_exported_total"), 0, "{name}");
        cluster.put("last");
        let took = node.terminate();
        assert!(took < Duration::from_secs(2), "{name}: the node ended after {took:?}");
    }
}
