//! Files as a source.

use std::format;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::string::String;
use std::task::Waker;
use std::time::{Duration, SystemTime};
use std::vec::Vec;

use super::{SvidPoll, SvidSource, SvidSourceError, SvidState};
use crate::{BundleError, PEM_LEN_MAX, SvidError, TrustBundle, TrustBundleSet, TrustDomain, X509Svid};

/// An SVID and bundles in PEM files, as a helper of SPIRE, an orchestrator or a person writes them. They are
/// looked at every five seconds, and read when one of them was changed or replaced. Replace files by
/// renaming, so that nobody reads half of one; the SVID and its bundle need not change at once.
#[derive(Debug, Clone)]
pub struct SvidFiles {
    trust_domain: TrustDomain,
    svid: PathBuf,
    bundle: PathBuf,
    federated: Vec<(TrustDomain, PathBuf)>,
    look: Duration,
    /// The versions of the files that were read last.
    seen: Option<Vec<Version>>,
}

/// A file cannot be used.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path} has more than {PEM_LEN_MAX} bytes: it is no SVID and no bundle")]
    Length { path: String },
    #[error("{path} is not an X.509-SVID with its key")]
    Svid { path: String, source: SvidError },
    #[error("{path} is not a trust bundle")]
    Bundle { path: String, source: BundleError },
    #[error("{path} has an SVID of another trust domain than {trust_domain}: correct the path or the name")]
    TrustDomain { path: String, trust_domain: TrustDomain },
}

/// The attributes of a file that change with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    len: u64,
    modified: Option<SystemTime>,
    file: u64,
}

impl SvidFiles {
    /// Builds the source of a trust domain: a file with the certificate chain and the private key, and one
    /// with the authorities.
    pub fn new(trust_domain: TrustDomain, svid: impl Into<PathBuf>, bundle: impl Into<PathBuf>) -> SvidFiles {
        let (svid, bundle) = (svid.into(), bundle.into());
        let look = Duration::from_secs(5);
        SvidFiles { trust_domain, svid, bundle, federated: Vec::new(), look, seen: None }
    }

    /// Adds the bundle of a foreign trust domain.
    #[must_use]
    pub fn federated(mut self, trust_domain: TrustDomain, bundle: impl Into<PathBuf>) -> SvidFiles {
        self.federated.push((trust_domain, bundle.into()));
        self
    }

    /// Sets the time between two looks at the files.
    #[must_use]
    pub fn look(mut self, look: Duration) -> SvidFiles {
        self.look = look;
        self
    }

    /// The versions of all files; of one that cannot be looked at there is none.
    fn versions(&self) -> Option<Vec<Version>> {
        let foreign = self.federated.iter().map(|(_, path)| path);
        let paths = [&self.svid, &self.bundle].into_iter().chain(foreign);
        paths.map(|path| Some(Version::of(&std::fs::metadata(path).ok()?))).collect()
    }

    fn read(&self) -> Result<SvidState, FileError> {
        let shown = |path: &Path| format!("{}", path.display());
        let svid = X509Svid::from_pem(&read(&self.svid)?)
            .map_err(|source| FileError::Svid { path: shown(&self.svid), source })?;
        if *svid.spiffe_id().trust_domain() != self.trust_domain {
            let trust_domain = self.trust_domain.clone();
            return Err(FileError::TrustDomain { path: shown(&self.svid), trust_domain });
        }
        let own = (self.trust_domain.clone(), self.bundle.clone());
        let mut bundles = TrustBundleSet::new();
        for (trust_domain, path) in [&own].into_iter().chain(&self.federated) {
            let bundle = TrustBundle::from_pem(trust_domain.clone(), &read(path)?)
                .map_err(|source| FileError::Bundle { path: shown(path), source })?;
            bundles.insert(bundle);
        }
        Ok(SvidState::Held { svid: svid.into(), bundles })
    }
}

impl SvidSource for SvidFiles {
    fn poll(&mut self, _now: SystemTime, _waker: &Waker) -> SvidPoll {
        let before = self.versions();
        if before.is_some() && before == self.seen {
            return SvidPoll::new(Ok(None), self.look);
        }
        let read = self.read();
        // A file that was replaced meanwhile is read again at the next look, as one that cannot be read is.
        self.seen = before.filter(|before| read.is_ok() && self.versions().as_ref() == Some(before));
        SvidPoll::new(read.map(Some).map_err(SvidSourceError::new), self.look)
    }
}

impl Version {
    fn of(metadata: &Metadata) -> Version {
        Version { len: metadata.len(), modified: metadata.modified().ok(), file: number(metadata) }
    }
}

/// The number of the file, which changes when it is replaced.
#[cfg(unix)]
fn number(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn number(_metadata: &Metadata) -> u64 {
    0
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let shown = || format!("{}", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(PEM_LEN_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|source| FileError::Read { path: shown(), source })?;
    if bytes.len() > PEM_LEN_MAX { Err(FileError::Length { path: shown() }) } else { Ok(bytes) }
}
