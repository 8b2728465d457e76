//! The methods of the service `SpiffeWorkloadAPI`.

/// A method that this crate serves and calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Method {
    FetchX509Svid,
    FetchX509Bundles,
    FetchJwtSvid,
    FetchJwtBundles,
    ValidateJwtSvid,
}

impl Method {
    pub(super) const ALL: [Method; 5] = [
        Method::FetchX509Svid,
        Method::FetchX509Bundles,
        Method::FetchJwtSvid,
        Method::FetchJwtBundles,
        Method::ValidateJwtSvid,
    ];

    pub(super) fn path(self) -> &'static str {
        match self {
            Method::FetchX509Svid => "/SpiffeWorkloadAPI/FetchX509SVID",
            Method::FetchX509Bundles => "/SpiffeWorkloadAPI/FetchX509Bundles",
            Method::FetchJwtSvid => "/SpiffeWorkloadAPI/FetchJWTSVID",
            Method::FetchJwtBundles => "/SpiffeWorkloadAPI/FetchJWTBundles",
            Method::ValidateJwtSvid => "/SpiffeWorkloadAPI/ValidateJWTSVID",
        }
    }

    pub(super) fn from_path(path: &[u8]) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.path().as_bytes() == path)
    }
}
