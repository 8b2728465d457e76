//! The renewal of a node's SVID by an issuer. It decides nothing: the engine of x0-identity does.
//!
//! The thread writes files, and what watches them takes them into use. So a node whose files are replaced by
//! hand and one with an issuer work alike.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use pki_types::ServerName;
use rustls::AlertDescription;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x0_identity::{
    ExchangeFailure, ISSUANCE_ANSWER_LEN_MAX, ISSUANCE_BINDING_LABEL, Identity, IdentityError,
    IssuanceClient, IssuanceClientInput, IssuanceClientOutput, IssuanceFailure, RenewalOptions, RequestKey,
    SpiffeId, TrustBundle, TrustDomain, Verifier, X509Svid, issuance_client_config,
};

use super::files::Stamps;
use super::report::{Renewing, SharedRenewing};
use super::tpm::{self, TpmKey};
use super::{load_bundle, load_svid};
use crate::bundles;
use crate::causes::causes;
use crate::config::NodeConfig;
use crate::config::address::Address;
use crate::init::{write_private, write_public, write_secret};
use crate::issuer::{issuer_id, read_frame, write_frame};
use crate::log::Log;

/// The time for a connection with its handshake, and for the answer.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// How often the files are looked at, which a person may replace.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The section `[issuer]` of node.toml.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuerConfig {
    /// The TCP address of the issuer.
    pub(crate) address: Address,
    /// The file with the join token, for the first SVID.
    #[serde(default)]
    pub(crate) token: Option<PathBuf>,
    /// The TPM of the machine, for the first SVID: a device such as `/dev/tpmrm0`, or the socket of a
    /// simulator.
    #[serde(default)]
    pub(crate) tpm: Option<PathBuf>,
    /// The algorithm of its endorsement key.
    #[serde(default)]
    pub(crate) tpm_key: TpmKey,
}

/// What the thread works with.
struct Renewer {
    spiffe_id: SpiffeId,
    issuer: SpiffeId,
    address: Address,
    token: Option<PathBuf>,
    tpm: Option<(PathBuf, TpmKey)>,
    svid: PathBuf,
    bundle: PathBuf,
    renewing: SharedRenewing,
    log: Log,
    begun: Instant,
}

/// An issued SVID was not taken into use.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error("the issuer's bundle does not trust its SVID: correct the issuer, or the clock of this machine")]
    Unusable(#[source] IdentityError),
    /// The cause names the file.
    #[error(transparent)]
    NotStored(anyhow::Error),
}

impl InstallError {
    fn failure(&self) -> ExchangeFailure {
        match self {
            InstallError::Unusable(_) => ExchangeFailure::Unusable,
            InstallError::NotStored(_) => ExchangeFailure::SvidNotStored,
        }
    }
}

/// Keys and SVIDs that were not stored, and the reason.
#[derive(Debug, Default)]
struct Storing {
    /// A key that must be on disk before the issuer sees it.
    key: Option<Vec<u8>>,
    /// Why the last exchange failed to store something.
    why: Option<String>,
}

impl Storing {
    /// Why an exchange failed, with what this node knows of it and the engine does not: the file.
    fn explain(&self, failure: &IssuanceFailure) -> String {
        let text = causes(&anyhow::Error::new(failure.clone()));
        match (failure, &self.why) {
            (
                IssuanceFailure::NotStored | IssuanceFailure::SvidNotStored | IssuanceFailure::Unusable,
                Some(why),
            ) => format!("{text}: {why}"),
            _ => text,
        }
    }
}

/// Renews the SVID of a node on a thread of its own, which ends with the process. Without an SVID it gets the
/// first one; the receiver says when.
pub(crate) fn start(
    config: &NodeConfig,
    issuer: &IssuerConfig,
    renewing: &SharedRenewing,
    log: &Log,
) -> Result<oneshot::Receiver<()>> {
    let trust_domain: TrustDomain = config.trust_domain.parse().context("the trust domain is not valid")?;
    let renewer = Renewer {
        spiffe_id: SpiffeId::for_node(&trust_domain, config.node),
        issuer: issuer_id(&trust_domain)?,
        address: issuer.address.clone(),
        token: issuer.token.clone(),
        tpm: issuer.tpm.clone().map(|device| (device, issuer.tpm_key)),
        svid: config.svid.clone(),
        bundle: config.bundle.clone(),
        renewing: Arc::clone(renewing),
        log: log.clone(),
        begun: Instant::now(),
    };
    // A node cannot verify any issuer without it.
    renewer.trusted()?;
    let engine = renewer.engine()?;
    let (first, has_svid) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime of the renewal")?;
    let run = move || runtime.block_on(renewer.run(engine, first));
    std::thread::Builder::new().name("renewal".into()).spawn(run).context("cannot start a thread")?;
    Ok(has_svid)
}

impl Renewer {
    fn engine(&self) -> Result<IssuanceClient> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).context("cannot read random bytes from the operating system")?;
        let seed = u64::from_le_bytes(seed);
        let mut engine = IssuanceClient::new(self.spiffe_id.clone(), RenewalOptions::default(), seed);
        if let Some(path) = &self.token {
            match std::fs::read_to_string(path) {
                Ok(token) => engine = engine.token(token.trim().to_owned()),
                // The token is needed for the first SVID alone, and may be gone after that.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
            }
        }
        if let Some((device, key)) = &self.tpm {
            engine = engine.tpm(tpm::evidence(device, *key)?);
        }
        if let Ok(pkcs8) = std::fs::read(self.key()) {
            match RequestKey::from_pkcs8(&pkcs8) {
                Ok(key) => engine = engine.key(key),
                Err(error) => {
                    self.log.event("issuance-failed", format!("file={} why={error}", self.key().display()));
                }
            }
        }
        Ok(engine)
    }

    /// The file of a key that waits for its certificate.
    fn key(&self) -> PathBuf {
        self.svid.with_extension("key")
    }

    fn trusted(&self) -> Result<TrustBundle> {
        load_bundle(self.spiffe_id.trust_domain().clone(), &self.bundle)
    }

    fn held(&self) -> Result<X509Svid> {
        load_svid(self.spiffe_id.trust_domain(), &self.svid)
    }

    /// Whether another authority issues than the one that signed the SVID: the first of the bundle does.
    fn is_replaced(&self, svid: &X509Svid) -> bool {
        let Ok(bundle) = self.trusted() else { return false };
        bundle.authorities().first() != bundle.authority_of(svid.chain())
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What the reports and the healer see.
    fn shared(&self) -> MutexGuard<'_, Renewing> {
        self.renewing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self, mut engine: IssuanceClient, first: oneshot::Sender<()>) {
        let (mut first, mut seen, mut failure, mut storing) = (Some(first), None, None, Storing::default());
        loop {
            let stamps = Stamps::of(&[self.svid.clone(), self.bundle.clone()]);
            if seen.as_ref() != Some(&stamps) {
                seen = Some(stamps);
                // A file that is no SVID of this node is not used by anyone; without one the engine attests.
                if let Ok(svid) = self.held()
                    && *svid.spiffe_id() == self.spiffe_id
                {
                    let is_valid = svid.not_after() > SystemTime::now();
                    let is_replaced = self.is_replaced(&svid);
                    let _ = engine.handle(self.now(), IssuanceClientInput::Holds { svid, wall: wall() });
                    if is_replaced {
                        let _ = engine.handle(self.now(), IssuanceClientInput::Replaced { wall: wall() });
                    }
                    let _ = first.take_if(|_| is_valid).map(|first| first.send(()));
                }
            }
            let is_asked = std::mem::take(&mut self.shared().is_asked);
            if is_asked {
                // As after a change of the authority: the next exchange begins now.
                let _ = engine.handle(self.now(), IssuanceClientInput::Replaced { wall: wall() });
            }
            let _ = engine.handle(self.now(), IssuanceClientInput::Timeout { wall: wall() });
            if self.drain(&mut engine, &mut storing).await {
                // The file that the node wrote itself is no news.
                seen = Some(Stamps::of(&[self.svid.clone(), self.bundle.clone()]));
                let _ = first.take().map(|first| first.send(()));
            }
            let why = engine.failure().map(|error| storing.explain(error));
            if why != failure {
                failure.clone_from(&why);
                if let Some(why) = &why {
                    self.log.event("issuance-failed", format!("issuer={} why={why}", self.address));
                }
            }
            {
                let mut shared = self.shared();
                *shared = Renewing { next: engine.renew_at(), failure: why, is_asked: shared.is_asked };
            }
            let due = engine.poll_timeout().map_or(LOOK_EVERY, |at| at.saturating_sub(self.now()));
            sleep(due.min(LOOK_EVERY)).await;
        }
    }

    /// Does what the engine wants. Says whether an SVID was stored.
    async fn drain(&self, engine: &mut IssuanceClient, storing: &mut Storing) -> bool {
        let (mut stream, mut has_stored) = (None, false);
        while let Some(output) = engine.poll_output() {
            let failed = |exchange, failure| IssuanceClientInput::Failed { exchange, failure, wall: wall() };
            let input = match output {
                IssuanceClientOutput::StoreKey { pkcs8 } => {
                    storing.key = Some(pkcs8);
                    continue;
                }
                IssuanceClientOutput::Dial { exchange, with_svid } => {
                    // The engine gives a key out again that is not stored: evidence that needs no stored key
                    // is not kept from the issuer.
                    let stored = storing.key.take().map_or(Ok(()), |key| write_secret(&self.key(), &key));
                    storing.why = stored.err().map(|error| causes(&error));
                    if storing.why.is_some() {
                        failed(exchange, ExchangeFailure::NotStored)
                    } else {
                        match self.dial(with_svid).await {
                            Ok((connected, binding)) => {
                                stream = Some(connected);
                                IssuanceClientInput::Connected { exchange, binding, wall: wall() }
                            }
                            Err(error) => failed(exchange, self.explain(&error)),
                        }
                    }
                }
                IssuanceClientOutput::Send { exchange, bytes } => {
                    let answer = match stream.take() {
                        Some(stream) => ask(stream, &bytes).await,
                        None => Err(io::Error::other("not connected").into()),
                    };
                    match answer {
                        Ok((answered, bytes)) => {
                            // A challenge is answered on its connection.
                            stream = Some(answered);
                            IssuanceClientInput::Answer { exchange, bytes, wall: wall() }
                        }
                        Err(error) => failed(exchange, self.explain(&error)),
                    }
                }
                IssuanceClientOutput::Challenged { exchange, challenge, binding } => {
                    let response = self.answer(challenge, binding).await;
                    let response = response.map_err(|error| {
                        self.log.event("issuance-failed", format!("why={}", causes(&error)));
                    });
                    IssuanceClientInput::Response { exchange, response: response.ok(), wall: wall() }
                }
                IssuanceClientOutput::Install { exchange, svid, bundle } => {
                    match self.install(&svid, &bundle) {
                        Ok(()) => {
                            has_stored = true;
                            IssuanceClientInput::Installed { exchange, wall: wall() }
                        }
                        Err(error) => {
                            let failure = error.failure();
                            storing.why = Some(causes(&error.into()));
                            failed(exchange, failure)
                        }
                    }
                }
                _ => continue,
            };
            // An input that came too late is refused, and the next attempt follows.
            let _ = engine.handle(self.now(), input);
        }
        has_stored
    }

    /// The answer of the TPM, which takes its time.
    async fn answer(&self, challenge: Vec<u8>, binding: [u8; 32]) -> Result<Vec<u8>> {
        let (device, key) = self.tpm.clone().context("the configuration has no TPM")?;
        tokio::task::spawn_blocking(move || tpm::answer(&device, key, &challenge, &binding)).await?
    }

    /// Connects to the issuer with what the files have now.
    async fn dial(&self, with_svid: bool) -> Result<(TlsStream<TcpStream>, [u8; 32])> {
        let bundle = self.trusted()?;
        let config = if with_svid {
            Identity::new(self.held()?, bundle)?.issuance_client_config(self.issuer.clone())
        } else {
            issuance_client_config(Arc::new(Verifier::new(bundle)), self.issuer.clone())?
        };
        let address = self.address.clone();
        let dial = async {
            let address = tokio::task::spawn_blocking(move || address.resolve()).await??;
            let stream = TcpStream::connect(address).await?;
            // rustls requires a name, and neither sends nor verifies it.
            let name = ServerName::try_from("issuer")?;
            Ok::<_, anyhow::Error>(TlsConnector::from(config).connect(name, stream).await?)
        };
        let stream = timeout(DIAL_LIMIT, dial).await.context("the issuer did not answer in time")??;
        let binding = stream.get_ref().1.export_keying_material([0; 32], ISSUANCE_BINDING_LABEL, None)?;
        Ok((stream, binding))
    }

    /// Logs why an exchange failed, and classifies it.
    fn explain(&self, error: &anyhow::Error) -> ExchangeFailure {
        self.log.event("issuer-unreached", format!("issuer={} why={}", self.address, causes(error)));
        let alert = error.chain().find_map(|cause| {
            let cause = cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>()?;
            match cause {
                rustls::Error::AlertReceived(alert) => Some(*alert),
                _ => None,
            }
        });
        match alert {
            Some(
                AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA,
            ) => ExchangeFailure::NotAccepted,
            _ => ExchangeFailure::Unreachable,
        }
    }

    /// Stores the bundle and then the SVID, if they are an identity together.
    fn install(&self, svid: &X509Svid, bundle: &TrustBundle) -> Result<(), InstallError> {
        Identity::new(svid.clone(), bundle.clone()).map_err(InstallError::Unusable)?;
        store_bundle(&self.bundle, svid, bundle)
            .and_then(|()| write_private(&self.svid, &svid.to_pem()))
            .and_then(|()| remove(&self.key()))
            .map_err(InstallError::NotStored)?;
        let until = svid.not_after().duration_since(UNIX_EPOCH).unwrap_or_default();
        let until = crate::log::timestamp(until.as_millis());
        self.log.event("identity-issued", format!("identity={} valid_until={until}", svid.spiffe_id()));
        Ok(())
    }
}

/// Stores the bundle of an issuer. A bundle that was published has a sequence number, and the next one comes
/// from the store of the cluster: an issuer that lags must not bring an authority back that left. Only a
/// bundle that does not trust the new SVID is replaced, and keeps its number, so that what was published
/// before does not count again; it is marked, so that it is not served under that number.
fn store_bundle(path: &Path, svid: &X509Svid, offered: &TrustBundle) -> Result<()> {
    let _replacing = bundles::replacing();
    let (sequence, held) = match bundles::read(path, offered.trust_domain().clone()) {
        Ok(stored) => (stored.sequence, Some(stored.bundle)),
        Err(_) if path.exists() => (bundles::sequence(path)?, None),
        Err(_) => (0, None),
    };
    if held.as_ref() == Some(offered) {
        return Ok(());
    }
    let trusts = |held: TrustBundle| Identity::new(svid.clone(), held).is_ok();
    match held.map(trusts) {
        Some(true) if sequence > 0 => Ok(()),
        _ if sequence > 0 => bundles::write_of_issuer(path, sequence, offered),
        _ => write_public(path, &offered.to_pem()),
    }
}

/// The key is in the file of the SVID now.
fn remove(key: &Path) -> Result<()> {
    match std::fs::remove_file(key) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", key.display()))
        }
        _ => Ok(()),
    }
}

async fn ask(mut stream: TlsStream<TcpStream>, bytes: &[u8]) -> Result<(TlsStream<TcpStream>, Vec<u8>)> {
    let exchange = async {
        write_frame(&mut stream, bytes).await?;
        read_frame(&mut stream, ISSUANCE_ANSWER_LEN_MAX).await
    };
    let answer = timeout(DIAL_LIMIT, exchange).await.context("the issuer did not answer in time")??;
    Ok((stream, answer))
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use x0_identity::{Authority, AuthorityOptions};

    use super::*;

    /// A full disk and an untrusted SVID are two errors, and the first one names the file.
    #[test]
    fn an_svid_that_cannot_be_stored_is_no_svid_that_cannot_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse("example.org").unwrap();
        let authority = || Authority::new(domain.clone(), &AuthorityOptions::default()).unwrap();
        let (issuer, other) = (authority(), authority());
        let spiffe_id = SpiffeId::parse("spiffe://example.org/node/1").unwrap();
        let svid = issuer.issue(&spiffe_id, Duration::from_secs(3600)).unwrap();
        let renewer = Renewer {
            spiffe_id,
            issuer: issuer_id(&domain).unwrap(),
            address: "127.0.0.1:1".parse().unwrap(),
            token: None,
            tpm: None,
            svid: folder.path().join("svid.pem"),
            bundle: folder.path().join("bundle.pem"),
            renewing: SharedRenewing::default(),
            log: Log::start("test", Default::default()).unwrap(),
            begun: Instant::now(),
        };
        let install = |bundle: &TrustBundle| {
            let error = renewer.install(&svid, bundle).err()?;
            let (failure, why) = (error.failure(), Some(causes(&error.into())));
            Some((failure, Storing { key: None, why }))
        };
        let (failure, storing) = install(&other.bundle()).unwrap();
        assert_eq!(failure, ExchangeFailure::Unusable);
        assert!(storing.explain(&IssuanceFailure::Unusable).contains("does not trust its SVID"));
        // Nothing can take the place of a folder; a full disk fails at the same call.
        std::fs::create_dir(&renewer.svid).unwrap();
        let (failure, storing) = install(&issuer.bundle()).unwrap();
        assert_eq!(failure, ExchangeFailure::SvidNotStored);
        let why = storing.explain(&IssuanceFailure::SvidNotStored);
        let file = renewer.svid.display().to_string();
        assert!(
            why.contains("cannot be stored") && why.contains(&file) && why.contains("directory"),
            "{why}"
        );
        assert!(!storing.explain(&IssuanceFailure::Unreachable).contains(&file));
        // The next attempt succeeds once the cause is gone.
        std::fs::remove_dir(&renewer.svid).unwrap();
        assert!(install(&issuer.bundle()).is_none());
        assert!(renewer.held().is_ok());
    }

    /// A bundle that was published keeps its number and its content, unless it does not trust the new SVID.
    #[test]
    fn an_issuer_does_not_take_a_published_bundle_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle.pem");
        let domain = || TrustDomain::parse("example.org").unwrap();
        let authority = || Authority::new(domain(), &AuthorityOptions::default()).unwrap();
        let (old, new) = (authority(), authority());
        let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
        let svid = new.issue(&id, Duration::from_secs(3600)).unwrap();
        let mut both = new.bundle();
        both.extend(&old.bundle()).unwrap();
        let held = || load_bundle(domain(), &path).ok();
        let store = |offered: &TrustBundle| {
            store_bundle(&path, &svid, offered).unwrap();
            (bundles::sequence(&path).unwrap(), held().unwrap())
        };
        // Without a file, and without a number.
        assert_eq!(store(&both), (0, both.clone()));
        assert_eq!(store(&new.bundle()), (0, new.bundle()));
        assert!(!std::fs::read_to_string(&path).unwrap().starts_with('#'));
        // The old authority left with the third bundle, and does not come back.
        bundles::write(&path, 3, &new.bundle()).unwrap();
        assert_eq!(store(&both), (3, new.bundle()));
        assert_eq!(store(&new.bundle()), (3, new.bundle()));
        // A bundle that does not trust the SVID serves nobody.
        bundles::write(&path, 3, &old.bundle()).unwrap();
        assert_eq!(store(&both), (3, both.clone()));
        // What it took is not the published bundle of that number, until the next one is.
        let stored = || bundles::read(&path, domain()).unwrap();
        assert!(!stored().is_published);
        bundles::write(&path, 4, &new.bundle()).unwrap();
        assert!(stored().is_published);
        // A damaged file keeps its number, and need not be text.
        for damage in [&b"no PEM\n-----BEGIN CERTIFICATE-----"[..], b"\xFF\xFE"] {
            std::fs::write(&path, [b"# sequence 4\n", damage].concat()).unwrap();
            assert_eq!(store(&both), (4, both.clone()));
        }
    }
}
