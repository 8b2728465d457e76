//! The consumer of bundle endpoints.

use std::collections::{BTreeMap, VecDeque};
use std::format;
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

use pki_types::ServerName;

use super::response::{Response, ResponseReader};
use super::{ClientOptions, EndpointProfile, EndpointUrl, EndpointUrlError, Relationship, ResponseError};
use crate::random::Random;
use crate::telemetry;
use crate::{BundleMap, SpiffeBundle, SpiffeBundleError, SpiffeId, TrustBundle, TrustDomain};

/// An input of a [`Federation`]. `fetch` is the number in the output that the input answers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FederationInput {
    /// Begin a relationship, or replace the one with the same trust domain (§6.1). The bundle is fetched at
    /// once.
    Establish(Relationship),
    /// End a relationship, and delete the bundle of its trust domain (§6.3).
    Terminate {
        /// The foreign trust domain.
        trust_domain: TrustDomain,
    },
    /// Use this bundle from now on: the operator's update of a foreign bundle (§4.2), or the bundle of a
    /// trust domain without a relationship, such as the own one, whose endpoints serve bundles of others.
    Bundle(SpiffeBundle),
    /// Fetch a bundle before its time.
    Refresh {
        /// The foreign trust domain.
        trust_domain: TrustDomain,
    },
    /// Bytes arrived from the endpoint.
    Received {
        /// The number of the fetch.
        fetch: u64,
        /// The bytes, without TLS.
        bytes: Vec<u8>,
    },
    /// The endpoint closed the connection, with a `close_notify` of TLS.
    Ended {
        /// The number of the fetch.
        fetch: u64,
    },
    /// The connection was not made, or broke.
    Failed {
        /// The number of the fetch.
        fetch: u64,
        /// The reason.
        failure: FetchFailure,
    },
    /// The time of [`Federation::poll_timeout`] has come.
    Timeout,
}

/// Why a connection to an endpoint failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchFailure {
    /// The host was not found or not reached, or the connection broke.
    Unreachable {
        /// The reason.
        reason: String,
    },
    /// The endpoint did not prove its identity in the TLS handshake.
    NotAuthenticated {
        /// The reason.
        reason: String,
    },
}

/// How the TLS handshake with an endpoint authenticates it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointAuthentication {
    /// By the certificate authorities of the web, as of RFC 6125 (§5.2.1.4).
    Web {
        /// The host that the certificate must name.
        host: ServerName<'static>,
    },
    /// By an X.509-SVID (§5.2.2.4).
    Spiffe {
        /// The SPIFFE ID that the SVID must have.
        endpoint: SpiffeId,
        /// The latest bundle of its trust domain.
        bundle: TrustBundle,
    },
}

/// An output of a [`Federation`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FederationOutput {
    /// Connect to host and port of the URL with TLS, authenticate the endpoint, without a certificate of this
    /// side, then send the request and give what comes as [`FederationInput::Received`].
    Dial {
        /// The number of the fetch.
        fetch: u64,
        /// The URL; of a redirect, if one led here.
        url: EndpointUrl,
        /// How to authenticate the endpoint.
        authentication: EndpointAuthentication,
        /// The request.
        request: Vec<u8>,
    },
    /// The connection is not needed any more.
    Close {
        /// The number of the fetch.
        fetch: u64,
    },
    /// The bundle of its trust domain is this one from now on: pass it to validators under that trust domain
    /// (§5.1), and store it for [`Relationship::with_bundle`] after a restart (§4.2).
    Store(SpiffeBundle),
    /// The trust domain is not trusted any more: remove its bundle from validators and from the store (§6.3).
    Remove {
        /// The foreign trust domain.
        trust_domain: TrustDomain,
    },
}

/// Why the last fetch of a relationship gave no bundle. The current bundle stays in use, and the next fetch
/// takes place at the next interval (§6.2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is no bundle to authenticate the endpoint with. It is fetched as soon as there is one.
    #[error(
        "there is no bundle of {trust_domain} to authenticate the endpoint with: configure one, or a relationship with {trust_domain}"
    )]
    NoBundle {
        /// The trust domain of the endpoint.
        trust_domain: TrustDomain,
    },
    /// The endpoint was not reached.
    #[error("the endpoint cannot be reached: {reason}")]
    Unreachable {
        /// The reason.
        reason: String,
    },
    /// The endpoint did not prove its identity.
    #[error("the endpoint did not prove its identity: {reason}")]
    NotAuthenticated {
        /// The reason.
        reason: String,
    },
    /// The fetch took longer than [`ClientOptions::fetch_max`].
    #[error("the endpoint did not answer in time: check that it runs")]
    TimedOut,
    /// The answer cannot be read.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// The status of the answer is neither 200 nor that of a redirect.
    #[error("the endpoint answered with status {status}: correct the URL, or the server")]
    Status {
        /// The status.
        status: u16,
    },
    /// The fetch was redirected more often than [`ClientOptions::redirects_max`].
    #[error("the endpoint redirects more than {redirects_max} times: configure the URL that it leads to")]
    Redirects {
        /// The bound.
        redirects_max: u32,
    },
    /// A redirect has no `Location`.
    #[error("the endpoint redirects without a location: correct the server")]
    NoLocation,
    /// A redirect leads to something that is not the URL of a bundle endpoint.
    #[error("the endpoint redirects to what is not the URL of a bundle endpoint")]
    Location(#[from] EndpointUrlError),
    /// The body is not a SPIFFE bundle.
    #[error("the endpoint answered with what is not a SPIFFE bundle")]
    Bundle(#[from] SpiffeBundleError),
    /// The sequence number is lower than that of the current bundle.
    #[error(
        "the bundle of the endpoint has sequence number {fetched}, and the current one {current}: raise it at the endpoint"
    )]
    Older {
        /// The sequence number of the current bundle.
        current: u64,
        /// The sequence number of the fetched bundle.
        fetched: u64,
    },
}

/// An input was not expected. The state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FederationHandleError {
    /// The input is of a fetch that is over.
    #[error("fetch {fetch} is over: drop the input, and close its connection")]
    Over {
        /// The number of the fetch.
        fetch: u64,
    },
    /// There is no relationship with the trust domain.
    #[error("there is no relationship with {trust_domain}: establish it first")]
    Unknown {
        /// The trust domain.
        trust_domain: TrustDomain,
    },
    /// There are as many relationships as [`ClientOptions::relationships_max`] allows.
    #[error("there are {relationships_max} relationships already: terminate one, or raise relationships_max")]
    RelationshipsMax {
        /// The bound.
        relationships_max: usize,
    },
}

/// The state of a relationship.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelationshipStatus {
    /// The relationship as it was established.
    pub relationship: Relationship,
    /// The current bundle of the trust domain.
    pub bundle: Option<SpiffeBundle>,
    /// When the last bundle was fetched, in the time of the engine.
    pub fetched_at: Option<Duration>,
    /// When the next fetch is due, in the time of the engine. `None` while one is in progress.
    pub next_fetch: Option<Duration>,
    /// Why the last fetch failed; `None` after a success.
    pub failure: Option<FetchError>,
}

/// The consumer of bundle endpoints, as an engine: it fetches the bundle of each relationship, again and
/// again, and reports what changed.
///
/// Bundles of different trust domains are never merged: each is kept under the trust domain of its
/// relationship (§4.2, §7.3).
///
/// # Drain contract
/// After each [`Federation::handle`], with or without an error, take outputs until
/// [`Federation::poll_output`] returns `None`. Then wait until [`Federation::poll_timeout`] or an input,
/// whichever comes first. `now` is the time since any origin, from a clock that does not go back.
#[derive(Debug)]
pub struct Federation {
    options: ClientOptions,
    random: Random,
    relationships: BTreeMap<TrustDomain, Kept>,
    /// The latest bundle of each trust domain.
    bundles: BTreeMap<TrustDomain, SpiffeBundle>,
    /// The number of the last fetch.
    fetch: u64,
    outputs: VecDeque<FederationOutput>,
}

#[derive(Debug)]
struct Kept {
    relationship: Relationship,
    due: Duration,
    fetching: Option<Fetching>,
    fetched_at: Option<Duration>,
    failure: Option<FetchError>,
}

#[derive(Debug)]
struct Fetching {
    fetch: u64,
    url: EndpointUrl,
    redirects: u32,
    deadline: Duration,
    reader: ResponseReader,
}

impl Federation {
    /// Builds an engine without relationships. `seed` spreads the fetches of clients that started together.
    #[must_use]
    pub fn new(options: ClientOptions, seed: u64) -> Federation {
        Federation {
            options,
            random: Random::new(seed),
            relationships: BTreeMap::new(),
            bundles: BTreeMap::new(),
            fetch: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Takes an input.
    ///
    /// # Errors
    /// [`FederationHandleError`]; the state is unchanged.
    pub fn handle(&mut self, now: Duration, input: FederationInput) -> Result<(), FederationHandleError> {
        match input {
            FederationInput::Establish(relationship) => self.establish(now, relationship)?,
            FederationInput::Terminate { trust_domain } => {
                let kept = self.relationships.remove(&trust_domain);
                let kept = kept
                    .ok_or_else(|| FederationHandleError::Unknown { trust_domain: trust_domain.clone() })?;
                self.close(kept.fetching);
                self.bundles.remove(&trust_domain);
                self.outputs.push_back(FederationOutput::Remove { trust_domain });
            }
            FederationInput::Bundle(bundle) => self.take(now, bundle),
            FederationInput::Refresh { trust_domain } => match self.relationships.get_mut(&trust_domain) {
                Some(kept) => kept.due = now,
                None => return Err(FederationHandleError::Unknown { trust_domain }),
            },
            FederationInput::Received { fetch, bytes } => {
                let (trust_domain, fetching) = self.current(fetch)?;
                match fetching.reader.read(&bytes) {
                    Ok(None) => {}
                    Ok(Some(response)) => self.answered(now, &trust_domain, &response),
                    Err(error) => self.failed(now, &trust_domain, error.into()),
                }
            }
            FederationInput::Ended { fetch } => {
                let (trust_domain, fetching) = self.current(fetch)?;
                match fetching.reader.ended() {
                    Ok(response) => self.answered(now, &trust_domain, &response),
                    Err(error) => self.failed(now, &trust_domain, error.into()),
                }
            }
            FederationInput::Failed { fetch, failure } => {
                let (trust_domain, _) = self.current(fetch)?;
                let error = match failure {
                    FetchFailure::Unreachable { reason } => FetchError::Unreachable { reason },
                    FetchFailure::NotAuthenticated { reason } => FetchError::NotAuthenticated { reason },
                };
                self.failed(now, &trust_domain, error);
            }
            FederationInput::Timeout => {
                let late =
                    |kept: &Kept| kept.fetching.as_ref().is_some_and(|fetching| fetching.deadline <= now);
                let late: Vec<TrustDomain> = self
                    .relationships
                    .iter()
                    .filter(|(_, kept)| late(kept))
                    .map(|(trust_domain, _)| trust_domain.clone())
                    .collect();
                for trust_domain in late {
                    self.failed(now, &trust_domain, FetchError::TimedOut);
                }
            }
        }
        self.begin_due(now);
        Ok(())
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<FederationOutput> {
        self.outputs.pop_front()
    }

    /// When to give [`FederationInput::Timeout`] at the latest; `None` without relationships.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let full = self.fetches() >= self.options.fetches_max;
        let next = |kept: &Kept| match &kept.fetching {
            Some(fetching) => Some(fetching.deadline),
            // The end of a fetch makes room.
            None if full => None,
            None => Some(kept.due),
        };
        self.relationships.values().filter_map(next).min()
    }

    /// The latest bundle of each trust domain.
    #[must_use]
    pub fn bundles(&self) -> BundleMap {
        let mut map = BundleMap::new();
        for bundle in self.bundles.values() {
            map.insert(bundle.clone());
        }
        map
    }

    /// The state of each relationship, in the order of their trust domains.
    #[must_use]
    pub fn status(&self) -> Vec<RelationshipStatus> {
        let of = |kept: &Kept| RelationshipStatus {
            relationship: kept.relationship.clone(),
            bundle: self.bundles.get(kept.relationship.trust_domain()).cloned(),
            fetched_at: kept.fetched_at,
            next_fetch: kept.fetching.is_none().then_some(kept.due),
            failure: kept.failure.clone(),
        };
        self.relationships.values().map(of).collect()
    }

    fn establish(&mut self, now: Duration, relationship: Relationship) -> Result<(), FederationHandleError> {
        let trust_domain = relationship.trust_domain().clone();
        let relationships_max = self.options.relationships_max;
        if !self.relationships.contains_key(&trust_domain) && self.relationships.len() >= relationships_max {
            return Err(FederationHandleError::RelationshipsMax { relationships_max });
        }
        let bundle = relationship.bundle().cloned();
        let kept = Kept { relationship, due: now, fetching: None, fetched_at: None, failure: None };
        if let Some(before) = self.relationships.insert(trust_domain, kept) {
            self.close(before.fetching);
        }
        if let Some(bundle) = bundle {
            self.take(now, bundle);
        }
        Ok(())
    }

    /// Makes a bundle the current one of its trust domain.
    fn take(&mut self, now: Duration, bundle: SpiffeBundle) {
        let trust_domain = bundle.trust_domain().clone();
        if self.bundles.get(&trust_domain) == Some(&bundle) {
            return;
        }
        self.bundles.insert(trust_domain.clone(), bundle.clone());
        for kept in self.relationships.values_mut() {
            let waits_for = FetchError::NoBundle { trust_domain: trust_domain.clone() };
            if kept.failure.as_ref() == Some(&waits_for) {
                kept.due = now;
            }
        }
        self.outputs.push_back(FederationOutput::Store(bundle));
    }

    fn fetches(&self) -> usize {
        self.relationships.values().filter(|kept| kept.fetching.is_some()).count()
    }

    fn current(&mut self, fetch: u64) -> Result<(TrustDomain, &mut Fetching), FederationHandleError> {
        for (trust_domain, kept) in &mut self.relationships {
            if let Some(fetching) = &mut kept.fetching
                && fetching.fetch == fetch
            {
                return Ok((trust_domain.clone(), fetching));
            }
        }
        Err(FederationHandleError::Over { fetch })
    }

    fn close(&mut self, fetching: Option<Fetching>) {
        self.outputs.extend(fetching.map(|fetching| FederationOutput::Close { fetch: fetching.fetch }));
    }

    /// Begins what is due, the longest overdue first.
    fn begin_due(&mut self, now: Duration) {
        let mut due: Vec<(Duration, TrustDomain)> = self
            .relationships
            .iter()
            .filter(|(_, kept)| kept.fetching.is_none() && kept.due <= now)
            .map(|(trust_domain, kept)| (kept.due, trust_domain.clone()))
            .collect();
        due.sort();
        let room = self.options.fetches_max.saturating_sub(self.fetches());
        for (_, trust_domain) in due.into_iter().take(room) {
            let deadline = now + self.options.fetch_max;
            let url = self.relationships[&trust_domain].relationship.url().clone();
            self.dial(now, &trust_domain, url, 0, deadline);
        }
    }

    /// Connects to the configured URL or to that of a redirect, which is authenticated in the same way.
    fn dial(
        &mut self,
        now: Duration,
        trust_domain: &TrustDomain,
        url: EndpointUrl,
        redirects: u32,
        deadline: Duration,
    ) {
        let Some(kept) = self.relationships.get_mut(trust_domain) else { return };
        let authentication = match kept.relationship.profile() {
            EndpointProfile::Web => EndpointAuthentication::Web { host: url.host().clone() },
            EndpointProfile::Spiffe { endpoint } => {
                let Some(bundle) = self.bundles.get(endpoint.trust_domain()) else {
                    let trust_domain_of_endpoint = endpoint.trust_domain().clone();
                    let error = FetchError::NoBundle { trust_domain: trust_domain_of_endpoint };
                    self.failed(now, trust_domain, error);
                    return;
                };
                EndpointAuthentication::Spiffe {
                    endpoint: endpoint.clone(),
                    bundle: bundle.trust_bundle().clone(),
                }
            }
        };
        self.fetch += 1;
        let (fetch, request) = (self.fetch, request(&url));
        let reader = ResponseReader::default();
        kept.fetching = Some(Fetching { fetch, url: url.clone(), redirects, deadline, reader });
        self.outputs.push_back(FederationOutput::Dial { fetch, url, authentication, request });
    }

    fn answered(&mut self, now: Duration, trust_domain: &TrustDomain, response: &Response) {
        match response.status {
            200 => match SpiffeBundle::from_json(trust_domain.clone(), &response.body) {
                Ok(bundle) => self.fetched(now, trust_domain, bundle),
                Err(error) => self.failed(now, trust_domain, error.into()),
            },
            301 | 302 | 303 | 307 | 308 => self.redirected(now, trust_domain, response.location.as_deref()),
            status => self.failed(now, trust_domain, FetchError::Status { status }),
        }
    }

    fn redirected(&mut self, now: Duration, trust_domain: &TrustDomain, location: Option<&str>) {
        let redirects_max = self.options.redirects_max;
        let Some(kept) = self.relationships.get_mut(trust_domain) else { return };
        let Some(fetching) = &kept.fetching else { return };
        let to = match location {
            _ if fetching.redirects >= redirects_max => Err(FetchError::Redirects { redirects_max }),
            None => Err(FetchError::NoLocation),
            Some(location) => fetching.url.join(location).map_err(FetchError::from),
        };
        match to {
            Ok(url) => {
                let (redirects, deadline) = (fetching.redirects + 1, fetching.deadline);
                let fetching = kept.fetching.take();
                self.close(fetching);
                self.dial(now, trust_domain, url, redirects, deadline);
            }
            Err(error) => self.failed(now, trust_domain, error),
        }
    }

    fn fetched(&mut self, now: Duration, trust_domain: &TrustDomain, bundle: SpiffeBundle) {
        let current = self.bundles.get(trust_domain).and_then(SpiffeBundle::sequence);
        if let (Some(current), Some(fetched)) = (current, bundle.sequence())
            && fetched < current
        {
            self.failed(now, trust_domain, FetchError::Older { current, fetched });
            return;
        }
        telemetry::fetched(None);
        if let Some(kept) = self.relationships.get_mut(trust_domain) {
            (kept.failure, kept.fetched_at) = (None, Some(now));
            let fetching = kept.fetching.take();
            self.close(fetching);
        }
        self.take(now, bundle);
        self.rest(now, trust_domain);
    }

    fn failed(&mut self, now: Duration, trust_domain: &TrustDomain, error: FetchError) {
        telemetry::fetched(Some(&error));
        if let Some(kept) = self.relationships.get_mut(trust_domain) {
            kept.failure = Some(error);
            let fetching = kept.fetching.take();
            self.close(fetching);
        }
        self.rest(now, trust_domain);
    }

    /// §4.1: at the refresh hint, and up to a tenth earlier.
    fn rest(&mut self, now: Duration, trust_domain: &TrustDomain) {
        let hint = self.bundles.get(trust_domain).and_then(SpiffeBundle::refresh_hint);
        let interval = hint.unwrap_or(self.options.refresh_default);
        let interval = interval.min(self.options.refresh_max).max(self.options.refresh_min);
        let earlier = interval.mul_f64(0.1 * self.random.fraction());
        if let Some(kept) = self.relationships.get_mut(trust_domain) {
            kept.due = now + interval - earlier;
        }
    }
}

fn request(url: &EndpointUrl) -> Vec<u8> {
    let (target, authority) = (url.path_and_query(), url.authority());
    format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nAccept: application/json\r\nUser-Agent: x0-identity\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}
