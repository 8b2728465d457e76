//! The methods of the service `SpiffeWorkloadAPI`, and of the discovery of secrets.

use super::secrets;

/// A method that this crate serves and calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Method {
    FetchX509Svid,
    FetchX509Bundles,
    FetchJwtSvid,
    FetchJwtBundles,
    ValidateJwtSvid,
    /// Only with the feature `sds`.
    StreamSecrets,
}

impl Method {
    pub(super) const ALL: [Method; 6] = [
        Method::FetchX509Svid,
        Method::FetchX509Bundles,
        Method::FetchJwtSvid,
        Method::FetchJwtBundles,
        Method::ValidateJwtSvid,
        Method::StreamSecrets,
    ];

    pub(super) fn path(self) -> &'static str {
        match self {
            Method::FetchX509Svid => "/SpiffeWorkloadAPI/FetchX509SVID",
            Method::FetchX509Bundles => "/SpiffeWorkloadAPI/FetchX509Bundles",
            Method::FetchJwtSvid => "/SpiffeWorkloadAPI/FetchJWTSVID",
            Method::FetchJwtBundles => "/SpiffeWorkloadAPI/FetchJWTBundles",
            Method::ValidateJwtSvid => "/SpiffeWorkloadAPI/ValidateJWTSVID",
            Method::StreamSecrets => secrets::PATH.unwrap_or_default(),
        }
    }

    pub(super) fn from_path(path: &[u8]) -> Option<Method> {
        let mut known = Method::ALL.into_iter().filter(|method| !method.path().is_empty());
        known.find(|method| method.path().as_bytes() == path)
    }
}
