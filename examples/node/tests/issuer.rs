//! The issuer of a cluster: first SVIDs by join token, renewals, refusals, and nodes whose SVID has expired.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so, in its helpers as well")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Cluster, LIMIT, Process, answer, x0_node};
use rustls::{ClientConnection, StreamOwned};
use x0_identity::{
    Evidence, ISSUANCE_BINDING_LABEL, Identity, IssuanceAnswer, IssuanceRequest, RequestKey, SpiffeId,
    TrustBundle, TrustDomain, X509Svid,
};

/// A TCP address that is free now.
fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn start_issuer(cluster: &Cluster, address: SocketAddr) -> Process {
    let listen = address.to_string();
    let mut issuer = Process::start(x0_node(&["issuer", "--listen", &listen, "--dir"]).arg(cluster.root()));
    issuer.logged("event=issuer-listening");
    issuer
}

fn svid(file: &Path) -> X509Svid {
    X509Svid::from_pem(&fs::read(file).unwrap()).unwrap()
}

/// Registers a node and returns its join token.
fn token(cluster: &Cluster, node: &str) -> String {
    answer(x0_node(&["entry", "add", "--node", node, "--dir"]).arg(cluster.root())).trim().to_owned()
}

/// Makes the SVIDs of a node valid for some seconds only: no option of the commands goes so low.
fn shorten(cluster: &Cluster, seconds: u64) {
    let file = cluster.path("authority/entries.json");
    let mut entries: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for entry in entries["entries"].as_array_mut().unwrap() {
        entry["validity_seconds"] = seconds.into();
    }
    common::replace(&file, &entries.to_string());
}

#[test]
fn a_node_gets_its_first_svid_by_a_join_token_and_renews_it() {
    let address = free();
    let cluster = Cluster::init_with(1, &["--issuer", &address.to_string()]);
    let folder = cluster.path("node-1");
    fs::remove_file(folder.join("svid.pem")).unwrap();
    let config = folder.join("node.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}token = \"token\"\n")).unwrap();
    let secret = token(&cluster, "1");
    fs::write(folder.join("token"), format!("{secret}\n")).unwrap();
    shorten(&cluster, 12);

    // The node waits for an issuer that is not there yet, with the key that its token will be bound to.
    let mut node = Process::start(x0_node(&["run", "--config"]).arg(&config));
    node.logged("event=waiting-for-identity");
    node.logged("event=issuance-failed");
    let key = fs::read(folder.join("svid.key")).unwrap();
    let issuer = start_issuer(&cluster, address);
    node.logged("event=identity-issued");
    node.logged("event=started");
    assert!(!folder.join("svid.key").exists());
    let first = svid(&folder.join("svid.pem"));
    assert_eq!(first.key().secret_der(), key, "the key stayed where it was generated");
    assert_eq!(first.spiffe_id().to_string(), "spiffe://test.example/node/0000000000000001");

    // The node renews over mutual TLS, and uses the renewed SVID, for longer than the first one is valid.
    let begun = Instant::now();
    for _ in 0..3 {
        node.logged("event=identity-rotated");
        cluster.put("renewed");
    }
    assert!(begun.elapsed() < LIMIT && begun.elapsed() > Duration::from_secs(9));
    let rows = cluster.identities();
    assert!(rows[1]["next_renewal"].as_u64() < rows[1]["valid_until"].as_u64(), "{rows:?}");
    assert_ne!(svid(&folder.join("svid.pem")).serial_number(), first.serial_number());

    // Without an entry it is not renewed any more, and an operator sees why.
    let id = "spiffe://test.example/node/0000000000000001";
    let list = answer(x0_node(&["entry", "list", "--dir"]).arg(cluster.root()));
    assert!(list.contains(id) && list.contains("operator/1"), "{list}");
    answer(x0_node(&["entry", "remove", "--id", id, "--dir"]).arg(cluster.root()));
    let line = node.logged("event=issuance-failed");
    assert!(line.contains("is not registered for this workload"), "{line}");
    let again = x0_node(&["entry", "remove", "--node", "1", "--dir"]).arg(cluster.root()).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not registered"), "{again:?}");
    drop(node);
    drop(issuer);

    // Days later, it seems: its SVID is expired, and its token serves no other key. It is registered again.
    token(&cluster, "1");
    fs::remove_file(folder.join("token")).unwrap();
    let expired = svid(&folder.join("svid.pem"));
    // The SVID is valid to the end of its last second.
    while expired.not_after() + Duration::from_secs(1) > std::time::SystemTime::now() {
        std::thread::sleep(Duration::from_millis(100));
    }
    let _issuer = start_issuer(&cluster, address);
    let mut node = Process::start(x0_node(&["run", "--config"]).arg(&config));
    node.logged("event=identity-issued");
    node.logged("event=started");
    cluster.put("after the expiry");
}

#[test]
fn a_token_serves_one_node_and_wrong_arguments_are_refused() {
    let address = free();
    let cluster = Cluster::init_with(2, &["--issuer", &address.to_string()]);
    let mut issuer = start_issuer(&cluster, address);
    // The token of node 1 does not make anyone node 2.
    let secret = token(&cluster, "1");
    let folder = cluster.path("node-2");
    fs::remove_file(folder.join("svid.pem")).unwrap();
    let config = folder.join("node.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}token = \"token\"\n")).unwrap();
    fs::write(folder.join("token"), secret).unwrap();
    let mut node = Process::start(x0_node(&["run", "--config"]).arg(&config));
    let line = node.logged("event=issuance-failed");
    assert!(line.contains("no registration entry") && line.contains("0000000000000002"), "{line}");
    issuer.logged("event=issuance-refused");
    assert!(!folder.join("svid.pem").exists());
    // What is no TLS does not disturb the issuer.
    let mut stream = TcpStream::connect(address).unwrap();
    Write::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let line = issuer.logged("event=issuance-refused");
    assert!(line.contains("the TLS handshake failed"), "{line}");

    let refused = |arguments: &[&str], words: &str| {
        let output = x0_node(arguments).arg("--dir").arg(cluster.root()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(words), "{arguments:?}: {text}");
    };
    refused(&["entry", "add", "--id", "spiffe://other.example/web"], "not of the trust domain");
    refused(&["entry", "add"], "--node");
    refused(&["entry", "add", "--node", "1", "--dns", "no name"], "cannot register `no name`");
    refused(&["issuer", "--listen", &address.to_string()], "choose another --listen");
    let json = answer(x0_node(&["entry", "list", "--json", "--dir"]).arg(cluster.root()));
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 4, "{json}");
}

/// An identity that dials the issuer of a cluster, with the SVID in a folder of it.
fn dial(cluster: &Cluster, address: SocketAddr, folder: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let own = svid(&cluster.path(folder).join("svid.pem"));
    let domain: TrustDomain = "test.example".parse().unwrap();
    let bundle = TrustBundle::from_pem(domain, &fs::read(cluster.path("authority/bundle.pem")).unwrap());
    let issuer = SpiffeId::parse("spiffe://test.example/issuer").unwrap();
    let config = Identity::new(own, bundle.unwrap()).unwrap().issuance_client_config(issuer);
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let name = "issuer".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream)
}

fn framed(request: &IssuanceRequest) -> Vec<u8> {
    let bytes = request.to_bytes();
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

fn read_answer(stream: &mut impl Read) -> std::io::Result<IssuanceAnswer> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let mut bytes = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut bytes)?;
    Ok(IssuanceAnswer::from_bytes(&bytes).unwrap())
}

/// A machine with two identities renews both over one connection, ahead of the answers. The identity that TLS
/// does not authenticate proves itself.
#[test]
fn several_renewals_share_a_connection() {
    let address = free();
    let cluster = Cluster::init_with(2, &["--issuer", &address.to_string()]);
    let _issuer = start_issuer(&cluster, address);
    let mut stream = dial(&cluster, address, "node-1");
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    let binding = stream.conn.export_keying_material([0; 32], ISSUANCE_BINDING_LABEL, None).unwrap();
    let id = |node: u64| {
        SpiffeId::for_node(&"test.example".parse().unwrap(), x0_identity::NodeId::new(node).unwrap())
    };
    let (mut requests, mut keys) = (Vec::new(), Vec::new());
    let other = svid(&cluster.path("node-2/svid.pem"));
    for number in 0..6 {
        let key = RequestKey::generate().unwrap();
        let node = 1 + number % 2;
        let evidence = if node == 1 {
            Evidence::CurrentSvid
        } else {
            let proof = IssuanceRequest::proof(&id(2), &binding, key.request());
            let signing = rustls::crypto::ring::sign::any_supported_type(other.key()).unwrap();
            let scheme = rustls::SignatureScheme::ECDSA_NISTP256_SHA256;
            let signature = signing.choose_scheme(&[scheme]).unwrap().sign(&proof).unwrap();
            Evidence::Svid { chain: other.chain().to_vec(), signature }
        };
        requests.extend(framed(&IssuanceRequest::new(id(node), key.request().to_vec(), evidence)));
        keys.push((node, key));
    }
    stream.write_all(&requests).unwrap();
    stream.flush().unwrap();
    let mut serial_numbers = std::collections::BTreeSet::new();
    for (node, key) in keys {
        let IssuanceAnswer::Issued { chain, .. } = read_answer(&mut stream).unwrap() else {
            panic!("a refusal")
        };
        let issued = key.into_svid(chain).unwrap();
        assert_eq!(*issued.spiffe_id(), id(node));
        serial_numbers.insert(issued.serial_number().to_vec());
    }
    assert_eq!(serial_numbers.len(), 6);
    // A refusal ends the connection: what TLS authenticated is node 1.
    let key = RequestKey::generate().unwrap();
    let of_other = IssuanceRequest::new(id(2), key.request().to_vec(), Evidence::CurrentSvid);
    stream.write_all(&framed(&of_other)).unwrap();
    assert!(matches!(read_answer(&mut stream), Ok(IssuanceAnswer::Refused { .. })));
    assert!(stream.write_all(&framed(&of_other)).is_err() || read_answer(&mut stream).is_err());
}

/// A software TPM with a seed of its own.
struct Simulator {
    _process: Process,
    folder: tempfile::TempDir,
}

impl Simulator {
    /// `None` without swtpm, outside of CI.
    fn start() -> Option<Simulator> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let mut command = std::process::Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
        command.arg("--tpmstate").arg(format!("dir={path}"));
        command.arg("--server").arg(format!("type=unixio,path={path}/socket"));
        if std::process::Command::new("swtpm").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "CI installs swtpm");
            println!("skipped: there is no swtpm; install the package");
            return None;
        }
        let process = Process::start(&mut command);
        let begun = Instant::now();
        while !folder.path().join("socket").exists() {
            assert!(begun.elapsed() < LIMIT, "swtpm did not start");
            std::thread::yield_now();
        }
        Some(Simulator { _process: process, folder })
    }

    fn socket(&self) -> String {
        self.folder.path().join("socket").display().to_string()
    }

    /// The arguments of `entry add` for this TPM.
    fn digests(&self, key: &str) -> Vec<String> {
        let text = answer(&mut x0_node(&["entry", "tpm", "--key", key, "--device", &self.socket()]));
        text.split_whitespace().map(str::to_owned).collect()
    }
}

/// A node without an SVID whose TPM attests: its first SVID and a renewal, by each kind of endorsement key.
/// Another TPM, and one whose registers are others, are refused with the reason.
#[test]
fn a_node_gets_its_first_svid_by_its_tpm() {
    let (Some(own), Some(other)) = (Simulator::start(), Simulator::start()) else { return };
    let address = free();
    let cluster = Cluster::init_with(2, &["--issuer", &address.to_string()]);
    let mut issuer = start_issuer(&cluster, address);
    let register = |node: &str, digests: &[String]| {
        let mut command = x0_node(&["entry", "add", "--node", node]);
        let text = answer(command.args(digests).arg("--dir").arg(cluster.root()));
        assert!(text.contains("is registered for its TPM"), "{text}");
    };
    let attesting = |node: usize, tpm: &Simulator, key: &str| {
        let folder = cluster.path(&format!("node-{node}"));
        let _ = fs::remove_file(folder.join("svid.pem"));
        let config = folder.join("node.toml");
        let text = fs::read_to_string(&config).unwrap();
        let text = text.split("tpm = ").next().unwrap();
        let text = format!("{text}tpm = \"{}\"\ntpm_key = \"{key}\"\n", tpm.socket());
        fs::write(&config, text).unwrap();
        Process::start(x0_node(&["run", "--config"]).arg(&config))
    };
    register("1", &own.digests("p256"));
    let mut imposter = attesting(1, &other, "p256");
    let line = imposter.logged("event=issuance-failed");
    assert!(line.contains("is not enrolled"), "{line}");
    issuer.logged("event=issuance-refused");
    imposter.kill();
    // Registered for the state of another machine.
    let [ek, digest, registers, _] = &own.digests("p256")[..] else { panic!("four words") };
    let elsewhere = [ek, digest, registers, &"00".repeat(32)].map(Clone::clone);
    register("1", &elsewhere);
    let mut changed = attesting(1, &own, "p256");
    let line = changed.logged("event=issuance-failed");
    assert!(line.contains("is not registered for this workload"), "{line}");
    changed.kill();

    register("1", &own.digests("p256"));
    register("2", &other.digests("rsa2048"));
    shorten(&cluster, 12);
    let mut one = attesting(1, &own, "p256");
    let mut two = attesting(2, &other, "rsa2048");
    for node in [&mut one, &mut two] {
        node.logged("event=identity-issued");
        node.logged("event=started");
    }
    cluster.put("attested");
    for node in [&mut one, &mut two] {
        node.logged("event=identity-rotated");
    }
    cluster.put("renewed");
    let refused =
        x0_node(&["entry", "add", "--node", "1", "--tpm-ek", "12", "--dir"]).arg(cluster.root()).output();
    let text = String::from_utf8_lossy(&refused.unwrap().stderr).into_owned();
    assert!(text.contains("is not a digest of a TPM"), "{text}");
}
