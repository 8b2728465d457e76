//! The SPIFFE Workload API: a server and a client, without gRPC libraries.
//!
//! The server serves the API inside the user's own binary: a [`Server`] listens on a socket, asks [`Callers`]
//! who connected, and sends each [`Caller`] its [`Workload`]: X.509-SVIDs with keys, bundles of its own and
//! of foreign trust domains, JWT-SVIDs on request. Streams receive a complete message whenever it changes,
//! and end with `PermissionDenied` when there is nothing left to send. The [`Client`] keeps a subscription to
//! any Workload API, SPIRE's or this one, and an [`Identity`](crate::Identity) that follows it.
//!
//! # Engines and drivers
//! [`ServerConnection`] and [`ClientSession`] are protocol engines without I/O, clock or randomness: bytes
//! in, bytes out. [`Server`] and [`Client`] drive them with threads of the standard library (on Unix); a
//! program with an event loop of its own drives the engines itself. HTTP/2, header compression, gRPC and the
//! messages are this crate's own (see ARCHITECTURE.md for the reason), with bounds on frames, header lists,
//! tables, streams, messages and what waits to be sent.
//!
//! # Callers
//! [`SharedWorkload`] gives every process that reaches the socket the same identities. With the feature
//! `unix-peers` (Linux), `UnixCallers` attests each process and gives it what its registration entries say.
//!
//! # Envoy
//! With the feature `sds` the server streams secrets to Envoy on the same socket (`StreamSecrets` of the
//! secret discovery service, version 3), under the names that SPIRE uses: the SPIFFE ID of an SVID or of a
//! trust domain, `default` (the default SVID), `ROOTCA` (the bundle of the own trust domain) and `ALL` (all
//! bundles, for Envoy's SPIFFE validator). Envoy sends the security header if its configuration says so:
//!
//! ```yaml
//! envoy_grpc: { cluster_name: workload_api }
//! initial_metadata: [{ key: workload.spiffe.io, value: "true" }]
//! ```
//!
//! # Decisions where the documents leave a choice
//! | subject | decision |
//! |---|---|
//! | security header (Workload Endpoint §3) | every call needs it, those of unknown methods too |
//! | `:authority` | any value: clients of gRPC core send the path of the socket |
//! | a call that is not one request, compressed requests | `Unimplemented`, as the documents of gRPC say |
//! | an invalid token (§6.2.3), an empty mandatory field (§4.5) | `InvalidArgument` with the reason |
//! | updates that arrive while a message is sent (§4.3) | the newest one follows; those in between are dropped |
//! | WIT-SVIDs (§7) | `Unimplemented`, unless `ServerOptions::wit_svids` (feature `wit`) is set: the profile is incubating |
//! | WIT bundles (§7.2.2) | keys with their `use`, by which consumers extract them (WIT-SVID §6.2); a client takes keys without `use` as well |
//! | a WIT-SVID that a client receives (§7.2.1) | its form, its SPIFFE ID and its key are checked, and one that fails discards the message; its signature by those it is presented to |
//! | server reflection | `Unimplemented` |
//! | secrets for Envoy | the same rules: security header, `PermissionDenied`; `StreamSecrets` only |
//! | certificate revocation lists | passed through (`Workload::with_crls`, `X509Context::crls`), read and enforced by nothing |
//! | SVIDs of several trust domains | one server per trust domain; a client takes any |
//! | JWT bundles (§6.2.2) | keys without `use`, which validators that do not know SPIFFE would skip |
//! | a message that a client cannot use (§4.5) | discarded and reported; what came before stays in use |
//! | an authority of a bundle that breaks a rule | left out and reported |
//! | a connection that ends (§4.2) | the next one at once if it lasted, otherwise after a pause that grows |

mod backoff;
#[cfg(unix)]
mod callers;
#[cfg(unix)]
mod client;
mod client_options;
mod client_session;
mod context;
mod endpoint;
mod identity_feed;
mod jwt_request;
mod messages;
mod method;
#[cfg(feature = "sds")]
mod secrets;
#[cfg(not(feature = "sds"))]
#[path = "workload_api/no_secrets.rs"]
mod secrets;
#[cfg(unix)]
mod server;
mod server_connection;
mod server_options;
#[cfg(unix)]
mod socket;
#[cfg(unix)]
mod source;
#[cfg(all(feature = "unix-peers", target_os = "linux"))]
mod unix_callers;
#[cfg(feature = "wit")]
mod wit;
#[cfg(not(feature = "wit"))]
#[path = "workload_api/no_wit.rs"]
mod wit;
mod workload;

pub use crate::grpc::{Code, DecodeError, Status};
#[cfg(unix)]
pub use callers::{Caller, Callers, Peer, PeerCredentials, SharedWorkload};
#[cfg(unix)]
pub use client::{Client, ClientIdentityError, ClientStartError, WaitError};
pub use client_options::{ClientOptions, Subscription};
pub use client_session::{
    ClientAnswer, ClientCall, ClientError, ClientHandleError, ClientInput, ClientOutput, ClientSession,
};
pub use context::{
    FetchedJwtSvid, HintedSvid, MessageError, RefusedAuthority, ValidatedJwtSvid, X509Bundles, X509Context,
};
pub use endpoint::{ENDPOINT_SOCKET, EndpointAddress, EndpointAddressError};
pub use identity_feed::{IdentityFeed, IdentityFeedError};
pub use jwt_request::{JwtAnswer, JwtRequest};
#[cfg(unix)]
pub use server::{BindError, Server, StartError};
pub use server_connection::{ServerConnection, ServerHandleError, ServerInput, ServerOutput};
pub use server_options::ServerOptions;
#[cfg(unix)]
pub use socket::Listener;
#[cfg(unix)]
pub use source::ClientSource;
#[cfg(all(feature = "unix-peers", target_os = "linux"))]
pub use unix_callers::{UnixCallers, WorkloadSource};
#[cfg(feature = "wit")]
pub use wit::{FetchedWitSvid, WitContext, WitMessageError};
pub use workload::{CRLS_LEN_MAX, CRLS_MAX, HINT_LEN_MAX, WIT_SVIDS_LEN_MAX, Workload, WorkloadError};
