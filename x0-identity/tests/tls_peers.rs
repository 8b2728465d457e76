//! Unmodified TLS programs with SVIDs of our issuer, over mutual TLS in both directions: nginx, haproxy,
//! openssl, GnuTLS, and curl as a client. Those that verify host names find the DNS name of the registration
//! entry.
//!
//! A program that is not on this machine is skipped; `.ci/run` installs them and sets `X0_SPIFFE_CI`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so, in its helpers as well")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::domain;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use x0_identity::{
    Authority, AuthorityOptions, CaSigner, CaSignerOptions, CertificateRequest, Identity, IssueRequest,
    RegistrationEntry, RequestKey, SpiffeId, X509Svid, peer_spiffe_id,
};

const HOUR: Duration = Duration::from_secs(3600);
/// Generous: only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
const PAGE: &str = "HTTP/1.0 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\nfrom a server\n";

/// Whether a program is here.
fn is_here(program: &str) -> bool {
    let is_here = Command::new(program)
        .arg(if program == "nginx" { "-v" } else { "-version" })
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !is_here {
        assert!(std::env::var_os("X0_SPIFFE_CI").is_none(), "CI installs {program}");
        println!("skipped: there is no {program}; install it");
    }
    is_here
}

/// An authority, and files in a folder: `server.pem` and `client.pem` (chain and key), `bundle.pem`, and
/// `stranger.pem` with the SVID of another authority of the same trust domain.
struct Kit {
    folder: tempfile::TempDir,
    authority: Authority,
    stranger: Authority,
}

impl Kit {
    fn new() -> Kit {
        let authority = || Authority::new(domain("example.org"), &AuthorityOptions::default()).unwrap();
        let kit = Kit { folder: tempfile::tempdir().unwrap(), authority: authority(), stranger: authority() };
        for (file, text) in [
            ("server.pem", issue(&kit.authority, "server").to_pem()),
            ("client.pem", issue(&kit.authority, "client").to_pem()),
            ("stranger.pem", issue(&kit.stranger, "client").to_pem()),
            ("bundle.pem", kit.authority.bundle().to_pem()),
        ] {
            fs::write(kit.path(file), text).unwrap();
        }
        kit
    }

    fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    fn identity(&self, name: &str) -> Identity {
        Identity::new(issue(&self.authority, name), self.authority.bundle()).unwrap()
    }

    /// One that trusts the authority and has no SVID of it.
    fn stranger(&self) -> Identity {
        let mut both = self.authority.bundle();
        both.extend(&self.stranger.bundle()).unwrap();
        let identity = Identity::new(issue(&self.stranger, "client"), both).unwrap();
        identity.set_bundle(self.authority.bundle()).unwrap();
        identity
    }
}

/// An SVID as the issuer makes it: with the DNS name of the entry, for a key of the caller's.
fn issue(authority: &Authority, name: &str) -> X509Svid {
    let id = SpiffeId::parse(&format!("spiffe://example.org/{name}")).unwrap();
    let entry = RegistrationEntry::new(id.clone(), HOUR).dns_name("localhost").unwrap();
    let signer =
        CaSigner::new(authority.certificate().clone(), Vec::new(), CaSignerOptions::default()).unwrap();
    let key = RequestKey::generate().unwrap();
    let request = IssueRequest::new(id, CertificateRequest::from_der(key.request()).unwrap(), HOUR);
    let unsigned = signer.begin(&entry, &request, SystemTime::now()).unwrap();
    let signature = authority.sign(unsigned.to_be_signed()).unwrap();
    key.into_svid(signer.finish(&unsigned, &signature).unwrap()).unwrap()
}

/// Our server: it answers each connection that TLS accepts with a page. Returns its port.
fn server(identity: &Identity) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = identity.server_config();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || -> std::io::Result<()> {
                let stream = stream?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
                let mut tls = StreamOwned::new(connection, stream);
                let mut request: Vec<u8> = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    let mut buffer = [0; 1024];
                    match tls.read(&mut buffer)? {
                        0 => return Ok(()),
                        len => request.extend(&buffer[..len]),
                    }
                }
                tls.write_all(PAGE.as_bytes())?;
                tls.conn.send_close_notify();
                tls.flush()
            });
        }
    });
    port
}

/// The answer of a server to our client, and its SPIFFE ID.
fn get(identity: &Identity, port: u16) -> std::io::Result<(String, SpiffeId)> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(identity.client_config(), name).map_err(std::io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    tls.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    match tls.read_to_end(&mut answer) {
        // Not every server closes TLS before TCP.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        other => _ = other?,
    }
    let peer = peer_spiffe_id(tls.conn.peer_certificates().unwrap()).unwrap();
    Ok((String::from_utf8_lossy(&answer).into_owned(), peer))
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A program that listens, until the end of the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, port: u16) -> Running {
        // Open, so that a program that reads it does not end.
        let child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut running = Running(child);
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(running.0.try_wait().unwrap().is_none(), "{command:?} ended");
            assert!(begun.elapsed() < PATIENCE, "{command:?} does not listen");
            std::thread::yield_now();
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The output of a client that reads a request from its standard input.
fn ask(command: &mut Command) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // A client that was refused may have ended.
    let _ = input.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let output = child.wait_with_output().unwrap();
    drop(input);
    output
}

fn shows_page(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stdout).contains("from a server")
}

/// A foreign client reaches our server with its SVID; with that of a stranger it does not, and it refuses a
/// server of a stranger.
fn check_client(kit: &Kit, client: impl Fn(&str, u16) -> Output) {
    let port = server(&kit.identity("server"));
    let output = client(&kit.path("client.pem"), port);
    assert!(shows_page(&output), "{output:?}");
    let output = client(&kit.path("stranger.pem"), port);
    assert!(!shows_page(&output), "our server accepted a stranger: {output:?}");
    let port = server(&Identity::new(issue(&kit.stranger, "server"), kit.stranger.bundle()).unwrap());
    let output = client(&kit.path("client.pem"), port);
    assert!(!shows_page(&output), "the client accepted a stranger: {output:?}");
}

/// Our client reaches a foreign server, which proves its SPIFFE ID; the server refuses a stranger, and our
/// client a server of a stranger.
fn check_server(kit: &Kit, expected: &str, start: impl Fn(&str, u16) -> Running) {
    let port = free_port();
    let running = start("server.pem", port);
    let (answer, peer) = get(&kit.identity("client"), port).unwrap();
    assert!(answer.contains(expected), "{answer}");
    assert_eq!(peer.path(), "/server");
    let refused = get(&kit.stranger(), port);
    assert!(!matches!(&refused, Ok((answer, _)) if answer.contains(expected)), "{refused:?}");
    drop(running);
    let port = free_port();
    let _running = start("stranger.pem", port);
    let refused = get(&kit.identity("client"), port).unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
}

#[test]
fn curl_verifies_the_host_name() {
    if !is_here("curl") {
        return;
    }
    let kit = Kit::new();
    let curl = |host: &str, svid: &str, port: u16| {
        let url = format!("https://{host}:{port}/");
        let bundle = kit.path("bundle.pem");
        Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "30", "--cacert", &bundle])
            .args(["--cert", svid, "--key", svid, &url])
            .output()
            .unwrap()
    };
    check_client(&kit, |svid, port| curl("localhost", svid, port));
    let port = server(&kit.identity("server"));
    let output = curl("127.0.0.1", &kit.path("client.pem"), port);
    assert!(!shows_page(&output), "no name of the SVID is that of the host: {output:?}");
}

#[test]
fn openssl_in_both_directions() {
    if !is_here("openssl") {
        return;
    }
    let kit = Kit::new();
    let bundle = kit.path("bundle.pem");
    check_client(&kit, |svid, port| {
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-connect", &address, "-CAfile", &bundle, "-cert", svid]);
        command.args(["-key", svid, "-verify_return_error", "-verify_hostname", "localhost"]);
        ask(&mut command)
    });
    check_server(&kit, "s_server", |svid, port| {
        let (svid, port_text) = (kit.path(svid), port.to_string());
        let mut command = Command::new("openssl");
        command.args(["s_server", "-www", "-tls1_3", "-accept", &port_text, "-cert", &svid, "-key", &svid]);
        command.args(["-CAfile", &bundle, "-Verify", "2", "-verify_return_error"]);
        Running::start(&mut command, port)
    });
}

#[test]
fn gnutls_in_both_directions() {
    if !is_here("gnutls-cli") || !is_here("gnutls-serv") {
        return;
    }
    let kit = Kit::new();
    let bundle = kit.path("bundle.pem");
    check_client(&kit, |svid, port| {
        let mut command = Command::new("gnutls-cli");
        command.args(["--x509cafile", &bundle, "--x509certfile", svid, "--x509keyfile", svid]);
        command.args(["--port", &port.to_string(), "localhost"]);
        ask(&mut command)
    });
    check_server(&kit, "HTTP/1.0 200", |svid, port| {
        let (svid, port_text) = (kit.path(svid), port.to_string());
        let mut command = Command::new("gnutls-serv");
        command.args(["--http", "--require-client-cert", "--verify-client-cert", "--port", &port_text]);
        command.args(["--x509cafile", &bundle, "--x509certfile", &svid, "--x509keyfile", &svid]);
        Running::start(&mut command, port)
    });
}

/// nginx with this `server` section.
fn nginx(folder: &Path, section: &str, port: u16) -> Running {
    let at = folder.display();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|path| format!("{path}_temp_path {at}/{path};"))
        .concat();
    let text = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log stderr;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; {paths} server {{ {section} }} }}\n"
    );
    let file = folder.join(format!("nginx-{port}.conf"));
    fs::write(&file, text).unwrap();
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(file);
    Running::start(&mut command, port)
}

/// Plain HTTP to a proxy, which dials our server.
fn get_plain(port: u16) -> Output {
    let url = format!("http://127.0.0.1:{port}/");
    Command::new("curl").args(["--silent", "--max-time", "30", &url]).output().unwrap()
}

#[test]
fn nginx_in_both_directions() {
    if !is_here("nginx") || !is_here("curl") {
        return;
    }
    let kit = Kit::new();
    let (folder, bundle) = (kit.folder.path(), kit.path("bundle.pem"));
    check_client(&kit, |svid, port| {
        let listen = free_port();
        let section = format!(
            "listen 127.0.0.1:{listen}; location / {{ proxy_pass https://127.0.0.1:{port};\n\
             proxy_ssl_verify on; proxy_ssl_trusted_certificate {bundle}; proxy_ssl_name localhost;\n\
             proxy_ssl_protocols TLSv1.3; proxy_ssl_certificate {svid}; proxy_ssl_certificate_key {svid}; }}"
        );
        let _proxy = nginx(folder, &section, listen);
        get_plain(listen)
    });
    check_server(&kit, "204 No Content", |svid, port| {
        let svid = kit.path(svid);
        let section = format!(
            "listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3; ssl_certificate {svid}; ssl_certificate_key {svid};\n\
             ssl_client_certificate {bundle}; ssl_verify_client on; location / {{ return 204; }}"
        );
        nginx(folder, &section, port)
    });
}

/// haproxy with these sections.
fn haproxy(folder: &Path, sections: &str, port: u16) -> Running {
    let file = folder.join(format!("haproxy-{port}.cfg"));
    let text = format!(
        "defaults\n mode http\n timeout connect 30s\n timeout client 30s\n timeout server 30s\n{sections}"
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    Running::start(&mut command, port)
}

#[test]
fn haproxy_in_both_directions() {
    if !is_here("haproxy") || !is_here("curl") {
        return;
    }
    let kit = Kit::new();
    let (folder, bundle) = (kit.folder.path(), kit.path("bundle.pem"));
    check_client(&kit, |svid, port| {
        let listen = free_port();
        let sections = format!(
            "frontend plain\n bind 127.0.0.1:{listen}\n default_backend ours\n\
             backend ours\n server ours 127.0.0.1:{port} ssl verify required ca-file {bundle} crt {svid} verifyhost localhost\n"
        );
        let _proxy = haproxy(folder, &sections, listen);
        get_plain(listen)
    });
    check_server(&kit, "200", |svid, port| {
        let svid = kit.path(svid);
        let sections = format!(
            "frontend tls\n bind 127.0.0.1:{port} ssl crt {svid} ca-file {bundle} verify required ssl-min-ver TLSv1.3\n\
             \u{20}http-request return status 200 content-type text/plain string here\n"
        );
        haproxy(folder, &sections, port)
    });
}
