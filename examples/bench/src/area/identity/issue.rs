//! Issuing SVIDs to callers that keep their keys: over mutual TLS beside `cfssl serve` over plain HTTP, which
//! authenticates nobody; and in memory.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use x0_identity::{Evidence, IssuanceAnswer, IssuanceRequest, RequestKey};

use super::load::{Kit, Running, dial};
use super::worker::{Mode, read_message, write_message};
use super::{CPU, DAY, Options, each, id, in_turns};
use crate::case::Case;
use crate::peer::debian;
use crate::process::find_program;

/// The most that issuing may take, as a multiple of cfssl's in the same turn.
const MOST: f64 = 0.2;
/// The place of cfssl among the systems.
const CFSSL: usize = 3;
/// Requests of a kept connection that wait for their answers.
const AHEAD: u32 = 16;
const ROOT: &str = "cfssl-bookworm";

/// cfssl on PATH, or the one that was fetched.
pub(super) fn present() -> Option<PathBuf> {
    find_program("cfssl")
        .or_else(|| Some(debian::root(ROOT).join("usr/bin/cfssl")).filter(|path| path.is_file()))
}

fn program() -> Result<PathBuf> {
    match present() {
        Some(program) => Ok(program),
        None => Ok(debian::fetch(ROOT, &["golang-cfssl"])?.join("usr/bin/cfssl")),
    }
}

fn cfssl(kit: &Kit) -> Result<Running> {
    let folder = kit.folder.path();
    let config = r#"{"signing":{"default":{"expiry":"24h","usages":["digital signature","server auth","client auth"]}}}"#;
    std::fs::write(folder.join("config.json"), config)?;
    std::fs::write(folder.join("ca.pem"), kit.authority.bundle().to_pem())?;
    let pem = kit.authority.to_pem();
    let key = pem.find("-----BEGIN PRIVATE KEY-----").context("the authority has no key")?;
    let end = pem[key..].find("-----END PRIVATE KEY-----").context("the key has no end")?;
    std::fs::write(
        folder.join("ca-key.pem"),
        format!("{}-----END PRIVATE KEY-----\n", &pem[key..key + end]),
    )?;
    Running::start("cfssl", &program()?, folder, |port| {
        let port = port.to_string();
        [
            "serve",
            "-address",
            "127.0.0.1",
            "-port",
            &port,
            "-ca",
            "ca.pem",
            "-ca-key",
            "ca-key.pem",
            "-config",
            "config.json",
            "-loglevel",
            "4",
        ]
        .map(str::to_owned)
        .to_vec()
    })
}

/// A kept HTTP connection to cfssl, with the body of a request.
struct Http {
    stream: BufReader<TcpStream>,
    body: String,
}

impl Http {
    fn new(port: u16) -> Result<Http> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        let key = KeyPair::generate()?;
        let request = CertificateParams::new(vec!["web.example.org".to_owned()])?.serialize_request(&key)?;
        let body = serde_json::json!({"certificate_request": request.pem()?}).to_string();
        Ok(Http { stream: BufReader::new(stream), body })
    }

    fn issue(&mut self) -> Result<()> {
        let head = format!(
            "POST /api/v1/cfssl/sign HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.body.len()
        );
        self.stream.get_mut().write_all(&[head.as_bytes(), self.body.as_bytes()].concat())?;
        let (mut len, mut chunked) = (None, false);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                len = Some(value.trim().parse()?);
            }
            chunked |= line == "transfer-encoding: chunked";
        }
        let mut body = Vec::new();
        while chunked {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let len = usize::from_str_radix(line.trim(), 16)?;
            self.read(len, &mut body)?;
            // The end of the line after each chunk.
            self.read(2, &mut Vec::new())?;
            chunked = len > 0;
        }
        if let Some(len) = len {
            self.read(len, &mut body)?;
        }
        if !String::from_utf8_lossy(&body).contains("BEGIN CERTIFICATE-----") {
            bail!("cfssl did not issue: {}", String::from_utf8_lossy(&body));
        }
        Ok(())
    }

    fn read(&mut self, len: usize, into: &mut Vec<u8>) -> Result<()> {
        let begin = into.len();
        into.resize(begin + len, 0);
        self.stream.read_exact(&mut into[begin..])?;
        Ok(())
    }
}

/// A request with a new key.
fn request() -> Result<(RequestKey, Vec<u8>)> {
    let key = RequestKey::generate()?;
    let request = IssuanceRequest::new(id("web")?, key.request().to_vec(), Evidence::CurrentSvid);
    let bytes = request.to_bytes();
    Ok((key, bytes))
}

fn take(key: RequestKey, answer: &[u8]) -> Result<()> {
    match IssuanceAnswer::from_bytes(answer)? {
        IssuanceAnswer::Issued { chain, .. } => drop(key.into_svid(chain)?),
        other => bail!("the issuer refused: {other:?}"),
    }
    Ok(())
}

/// Renews the SVID over a new connection.
fn renew(config: &Arc<ClientConfig>, port: u16) -> Result<()> {
    let (key, request) = request()?;
    let mut stream = dial(config, port)?;
    write_message(&mut stream, &request)?;
    take(key, &read_message(&mut stream)?)
}

/// Renews the SVID again and again over one connection, with [`AHEAD`] requests ahead of their answers.
fn renew_over_one(config: &Arc<ClientConfig>, port: u16, count: u32) -> Result<()> {
    let mut stream = dial(config, port)?;
    let mut left = count;
    while left > 0 {
        let ahead = left.min(AHEAD);
        let mut keys = Vec::new();
        for _ in 0..ahead {
            let (key, request) = request()?;
            write_message(&mut stream, &request)?;
            keys.push(key);
        }
        for key in keys {
            take(key, &read_message(&mut stream)?)?;
        }
        left -= ahead;
    }
    Ok(())
}

/// The handshake of a connection on which nothing is asked.
fn handshake(config: &Arc<ClientConfig>, port: u16) -> Result<()> {
    let mut stream = dial(config, port)?;
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    // Until the server has verified the client and closes.
    let _ = stream.sock.read_to_end(&mut Vec::new());
    Ok(())
}

pub(super) fn run(options: &Options) -> Result<Case> {
    let kit = Kit::new()?;
    let count = options.count(2_000);
    let how = format!(
        "{count} certificates (ECDSA P-256) in each turn. x0-identity: mutual TLS 1.3, a new key each, the proof of possession verified; cfssl: \
         one kept connection without TLS, the same request each time, one at a time. In memory: with the key."
    );
    let ahead = format!("x0-identity, attested over a kept mutual TLS connection, {AHEAD} requests ahead");
    let systems = [
        "x0-identity, attested over a new mutual TLS connection each",
        &ahead,
        "x0-identity, the mutual TLS handshake alone",
        "cfssl serve (Debian), plain HTTP",
        "x0-identity in memory",
    ];
    let mut case = Case::new("identity", "issue an SVID", how, systems.map(str::to_owned).to_vec());
    let client = kit.identity("web")?.issuance_client_config(id("server")?);
    // One process for each: none waits for a connection of another one.
    let (mut each_own, mut kept, mut bare) =
        (kit.worker(Mode::Issue)?, kit.worker(Mode::Issue)?, kit.worker(Mode::Issue)?);
    let mut peer = match cfssl(&kit).and_then(|peer| Ok((Http::new(peer.port)?, peer))) {
        Ok(peer) => Some(peer),
        Err(error) => {
            case.miss(CFSSL, format!("{error:#}"));
            None
        }
    };
    in_turns(
        &mut case,
        CPU,
        options.turns,
        &mut [
            &mut || each_own.cpu_of_each(count, |port| renew(&client, port)),
            &mut || kept.cpu_of_all(count, |port| renew_over_one(&client, port, count)),
            &mut || bare.cpu_of_each(count, |port| handshake(&client, port)),
            &mut || {
                let (http, peer) = peer.as_mut().context("no cfssl")?;
                peer.cpu_of_each(count, |_| http.issue())
            },
            &mut || {
                each(count, || {
                    black_box(kit.authority.issue(&id("web")?, DAY)?);
                    Ok(())
                })
            },
        ],
    )?;
    for (system, what) in [(0, "a new connection each"), (1, "a kept connection")] {
        let ratio = case.paired_ratio(CPU, system, CFSSL);
        let what = format!("processor time of the server beside cfssl in the same turn, {what}");
        case.aim(what, ratio, MOST, "x");
    }
    Ok(case)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Reads an answer that comes in pieces with [`Http`].
    fn answered(pieces: &'static [&'static str]) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let (mut line, mut len) = (String::new(), 0);
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).unwrap();
                len = line.strip_prefix("Content-Length: ").map_or(len, |len| len.trim().parse().unwrap());
            }
            let mut body = vec![0; len];
            reader.read_exact(&mut body).unwrap();
            assert!(String::from_utf8(body).unwrap().contains("BEGIN CERTIFICATE REQUEST"));
            for piece in pieces {
                reader.get_mut().write_all(piece.as_bytes()).unwrap();
                reader.get_mut().flush().unwrap();
            }
        });
        let result = Http::new(port).and_then(|mut http| http.issue());
        server.join().unwrap();
        result
    }

    #[test]
    fn answers_of_cfssl_are_read_to_their_end() {
        let body = "-----BEGIN CERTIFICATE-----";
        answered(&["HTTP/1.1 200 OK\r\nContent-Length: 27\r\n", "\r\n-----BEGIN ", "CERTIFICATE-----"])
            .unwrap();
        assert_eq!(body.len(), 27);
        answered(&[
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "b\r\n-----BEGIN \r\n10\r\nCERTIFICATE-----\r\n0\r\n\r\n",
        ])
        .unwrap();
        answered(&[
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "1b\r\n-----BEGIN CERTIFICATE-----\r\n0\r\n\r\n",
        ])
        .unwrap();
        let refused = answered(&["HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno"]).unwrap_err();
        assert!(refused.to_string().contains("cfssl did not issue: no"), "{refused}");
        answered(&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"]).unwrap_err();
    }

    #[test]
    fn an_answer_that_is_none_is_an_error() {
        let (key, request) = request().unwrap();
        let read = IssuanceRequest::from_bytes(&request).unwrap();
        assert_eq!((read.spiffe_id, read.evidence), (id("web").unwrap(), Evidence::CurrentSvid));
        let refusal = x0_identity::IssuanceRefusal::NotRegistered;
        let refused = IssuanceAnswer::Refused { refusal, text: "not here".into() }.to_bytes();
        assert!(take(key, &refused).unwrap_err().to_string().contains("not here"));
    }
}
