//! Three etcd servers, plain or with mutual TLS between peers and towards clients.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};

use super::{Cluster, SERVERS, debian};
use crate::load::Target;
use crate::process::{Server, find_program, free_ports};

/// PEM files for mutual TLS. One certificate serves every server and the client: the cost of a handshake does
/// not depend on it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TlsFiles {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// An installed etcd, or one fetched before.
pub(crate) fn present() -> Option<PathBuf> {
    let fetched = debian::root("etcd").join("usr/bin/etcd");
    find_program("etcd").or_else(|| fetched.is_file().then_some(fetched))
}

/// The program: installed, or fetched from Debian.
pub(crate) fn program() -> Result<PathBuf> {
    match present() {
        Some(program) => Ok(program),
        None => Ok(debian::fetch("etcd", &["etcd-server"])?.join("usr/bin/etcd")),
    }
}

/// Starts three servers with the defaults of etcd: heartbeat 100 ms, election 1 s, every commit synced to
/// disk.
pub(crate) fn start(data: &Path, tls: bool) -> Result<Cluster> {
    let program = program()?;
    let folder = tempfile::Builder::new().prefix("etcd-").tempdir_in(data)?;
    let tls = tls.then(|| certificates(folder.path())).transpose()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let ports = free_ports(2 * SERVERS)?;
    let (client_ports, peer_ports) = ports.split_at(SERVERS);
    let url = |port: &u16| format!("{scheme}://127.0.0.1:{port}");
    let members: Vec<String> =
        peer_ports.iter().enumerate().map(|(n, port)| format!("n{n}={}", url(port))).collect();
    let servers = client_ports.iter().zip(peer_ports).enumerate().map(|(n, (client, peer))| {
        Server::start(&format!("etcd-n{n}"), &program, folder.path(), |command| {
            command.arg(format!("--name=n{n}"));
            command.arg(format!("--data-dir={}", folder.path().join(format!("n{n}")).display()));
            command.arg(format!("--listen-client-urls={0}", url(client)));
            command.arg(format!("--advertise-client-urls={}", url(client)));
            command.arg(format!("--listen-peer-urls={}", url(peer)));
            command.arg(format!("--initial-advertise-peer-urls={}", url(peer)));
            command.arg(format!("--initial-cluster={}", members.join(",")));
            command.args(["--initial-cluster-state=new", "--logger=zap", "--log-level=warn"]);
            // Far from the default limit of 2 GiB even in a long run: a full store would refuse writes.
            command.arg("--quota-backend-bytes=8589934592");
            if let Some(tls) = &tls {
                for (flag, file) in [
                    ("trusted-ca-file", &tls.authority),
                    ("cert-file", &tls.certificate),
                    ("key-file", &tls.key),
                    ("peer-trusted-ca-file", &tls.authority),
                    ("peer-cert-file", &tls.certificate),
                    ("peer-key-file", &tls.key),
                ] {
                    command.arg(format!("--{flag}={}", file.display()));
                }
                command.args(["--client-cert-auth", "--peer-client-cert-auth"]);
            }
        })
    });
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let endpoints = client_ports.to_vec();
    let name = if tls.is_some() { "etcd TLS" } else { "etcd" };
    Ok(Cluster { name: name.to_owned(), servers, target: Target::Etcd { endpoints, tls }, _folder: folder })
}

/// An authority and one certificate for 127.0.0.1: ECDSA P-256, as the identities of x0.
fn certificates(folder: &Path) -> Result<TlsFiles> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "x0-bench authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority_key = KeyPair::generate()?;
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, "x0-bench");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &issuer)?;

    let write = |name: &str, pem: String| -> Result<PathBuf> {
        let path = folder.join(name);
        std::fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    Ok(TlsFiles {
        authority: write("authority.pem", authority_pem)?,
        certificate: write("certificate.pem", certificate.pem())?,
        key: write("key.pem", key.serialize_pem())?,
    })
}
