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
    /// Only of servers with the profile WIT-SVID.
    FetchWitSvid,
    /// As [`Method::FetchWitSvid`].
    FetchWitBundles,
    /// Only with the feature `sds`.
    StreamSecrets,
}

impl Method {
    pub(super) const ALL: [Method; 8] = [
        Method::FetchX509Svid,
        Method::FetchX509Bundles,
        Method::FetchJwtSvid,
        Method::FetchJwtBundles,
        Method::ValidateJwtSvid,
        Method::FetchWitSvid,
        Method::FetchWitBundles,
        Method::StreamSecrets,
    ];

    pub(super) fn path(self) -> &'static str {
        match self {
            Method::FetchX509Svid => "/SpiffeWorkloadAPI/FetchX509SVID",
            Method::FetchX509Bundles => "/SpiffeWorkloadAPI/FetchX509Bundles",
            Method::FetchJwtSvid => "/SpiffeWorkloadAPI/FetchJWTSVID",
            Method::FetchJwtBundles => "/SpiffeWorkloadAPI/FetchJWTBundles",
            Method::ValidateJwtSvid => "/SpiffeWorkloadAPI/ValidateJWTSVID",
            Method::FetchWitSvid => "/SpiffeWorkloadAPI/FetchWITSVID",
            Method::FetchWitBundles => "/SpiffeWorkloadAPI/FetchWITBundles",
            Method::StreamSecrets => secrets::PATH.unwrap_or_default(),
        }
    }

    /// The method of a path, of a server with or without the profile WIT-SVID.
    pub(super) fn from_path(path: &[u8], wit_svids: bool) -> Option<Method> {
        let is_wit = |method| matches!(method, Method::FetchWitSvid | Method::FetchWitBundles);
        let mut known = Method::ALL
            .into_iter()
            .filter(|method| !method.path().is_empty() && (wit_svids || !is_wit(*method)));
        known.find(|method| method.path().as_bytes() == path)
    }
}
