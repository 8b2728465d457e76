//! SPIFFE Federation: bundles of foreign trust domains, from their bundle endpoints and over HTTPS.
//!
//! [`Federation`] is the protocol engine of the consumer: it keeps [`Relationship`]s, decides when to fetch
//! which bundle and how to authenticate its endpoint, reads the answers and reports each new bundle.
//! [`ServerConnection`] is the engine of a connection to a bundle endpoint, which serves
//! [`PublishedBundles`]. Both do no I/O and have no clock; [`Client`] and [`Server`] drive them with threads
//! of the standard library. HTTP/1.1 is this crate's own, as far as the protocol needs it, with bounds on
//! heads, bodies, redirects and times.
//!
//! # Profiles
//! A relationship names the profile of its endpoint, and neither is tried in the place of the other (§7.2).
//!
//! | profile | the endpoint proves | against | TLS |
//! |---|---|---|---|
//! | [`EndpointProfile::Web`] (`https_web`) | the host of the URL | the web's certificate authorities of the system | 1.2, 1.3 |
//! | [`EndpointProfile::Spiffe`] (`https_spiffe`) | a SPIFFE ID | the latest bundle of its trust domain | 1.3 |
//!
//! An `https_spiffe` endpoint is *self-serving* if its SPIFFE ID is in the trust domain whose bundle it
//! serves: the first fetch is authenticated by the configured bundle, each later one by the bundle that was
//! fetched before it. The endpoint of another trust domain is authenticated by the bundle of that domain,
//! from a relationship of its own or from [`FederationInput::Bundle`].
//!
//! # Decisions where the document leaves a choice
//! | subject | decision |
//! |---|---|
//! | polling (§4.1, §6.2) | at the refresh hint, within the bounds of [`ClientOptions`], up to a tenth earlier; after a failure as well |
//! | no hint | five minutes |
//! | freshness (§4.2) | a bundle with a lower sequence number than the current one is refused; without a number, the fetched one is the latest |
//! | local updates (§4.2) | [`FederationInput::Bundle`] replaces the current bundle, whatever its number |
//! | redirects | followed up to a bound, all as temporary: each fetch begins at the configured URL |
//! | a bundle without authorities | taken: every SVID of the trust domain is refused |
//! | an answer | status 200, without a content coding; the content type is not looked at |
//! | requests | `GET` and `HEAD`; a path is compared as it is written, without its query |
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use x0_identity::TrustDomain;
//! use x0_identity::federation::{
//!     ClientOptions, EndpointProfile, EndpointUrl, Federation, FederationInput, FederationOutput, Relationship,
//! };
//!
//! let url = EndpointUrl::parse("https://example.com/bundle.json")?;
//! let relationship = Relationship::new(TrustDomain::parse("prod.example.com")?, url, EndpointProfile::Web);
//! let mut federation = Federation::new(ClientOptions::default(), 7);
//! federation.handle(Duration::ZERO, FederationInput::Establish(relationship))?;
//! let Some(FederationOutput::Dial { fetch, .. }) = federation.poll_output() else { panic!() };
//!
//! let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n{\"spiffe_sequence\":7,\"keys\":[]}".to_vec();
//! federation.handle(Duration::ZERO, FederationInput::Received { fetch, bytes: answer })?;
//! assert!(matches!(federation.poll_output(), Some(FederationOutput::Close { .. })));
//! let Some(FederationOutput::Store(bundle)) = federation.poll_output() else { panic!() };
//! assert_eq!(bundle.trust_domain().as_str(), "prod.example.com");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod client;
mod engine;
mod head;
mod options;
mod published;
mod relationship;
mod response;
mod server;
mod server_connection;
mod tls;
mod url;

pub use client::{Client, FederatedBundles, StartError};
pub use engine::{
    EndpointAuthentication, Federation, FederationHandleError, FederationInput, FederationOutput, FetchError,
    FetchFailure, RelationshipStatus,
};
pub use options::{ClientOptions, ServerOptions};
pub use published::{PublishError, PublishedBundles};
pub use relationship::{EndpointProfile, Relationship, RelationshipError};
pub use response::ResponseError;
pub use server::Server;
pub use server_connection::{ServerConnection, ServerInput, ServerOutput};
pub use tls::{
    SystemRootsError, WebEndpointError, system_roots, web_endpoint_config, web_endpoint_config_with_provider,
};
pub use url::{EndpointUrl, EndpointUrlError, URL_LEN_MAX};
