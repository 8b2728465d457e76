//! The Workload API: one test for each MUST and MUST NOT of SPIFFE_Workload_API.md and
//! SPIFFE_Workload_Endpoint.md, hostile peers, the drivers, secrets for Envoy, and clients that others wrote.
//!
//! | MUST | Section | Rule | Test |
//! |---|---|---|---|
//! | API 1 | 1 | the profiles X.509-SVID and JWT-SVID MUST be supported | `api_1_both_profiles` |
//! | API 2 | 2 | MUST NOT be extended beyond the specification | `api_2_no_other_method` |
//! | API 3 | 4.3 | every message MUST include the full set | `api_4_3_messages_are_complete` |
//! | API 4 | 4.3 | a request MUST generate a response | `api_4_3_the_first_message_follows_the_request` |
//! | API 5 | 4.3 | the first response MUST be sent without delay | same as API 4 |
//! | API 6 | 4.4 | clients MUST take empty fields as empty | `api_4_4_nothing_earlier_is_retained` |
//! | API 7 | 4.4 | earlier values MUST NOT be retained | same as API 6 |
//! | API 8 | 4.4 | every message MUST include the full set | same as API 3 |
//! | API 9 | 5.1 | the leaf MUST come first | `api_5_1_leaf_first_and_key_in_pkcs8` |
//! | API 10 | 5.1 | the key MUST be unencrypted PKCS #8 | same as API 9 |
//! | API – | 5.1 | revocation lists pass through | `api_5_1_revocation_lists_pass_through` |
//! | API 11 | 5.2.1 | the bundles MUST only be used for X.509-SVIDs | `api_5_2_bundles_are_of_one_kind` |
//! | API 12 | 5.2.1 | `svids` MUST contain one message per identity | `api_5_2_1_one_svid_per_identity` |
//! | API 13 | 5.2.1 | hints MUST be unique | `api_5_2_1_hints_are_unique` |
//! | API 14 | 5.2.2 | the bundles MUST only be used for X.509-SVIDs | same as API 11 |
//! | API 15 | 5.2.2 | `bundles` MUST contain the server's trust domain | `api_5_2_2_bundles_contain_the_own_domain` |
//! | API 16 | 6.2.1 | `audience` MUST be the audience of the tokens | `api_6_2_1_audience_of_the_token` |
//! | API 17 | 6.2.1 | without `spiffe_id`, MUST return all identities | `api_6_2_1_all_identities_or_the_requested_one` |
//! | API 18 | 6.2.1 | `svids` MUST contain one or more messages | same as API 17 |
//! | API 19 | 6.2.1 | hints MUST be unique | same as API 13 |
//! | API 20 | 6.2.2 | the bundles MUST only be used for JWT-SVIDs | same as API 11 |
//! | API 21 | 6.2.2 | `bundles` MUST contain the server's trust domain | `api_6_2_2_jwt_bundles` |
//! | API 22 | 6.2.2 | MUST NOT include keys with other uses | same as API 21 |
//! | API 23 | 6.2.3 | MUST validate by the rules of JWT-SVID | `api_6_2_3_tokens_are_validated` |
//! | API 24 | 6.3 | MUST use the bundle of the subject's trust domain | `api_6_3_the_bundle_of_the_subject` |
//! | API 25 | 7 | WIT-SVID, unsupported, MUST be `Unimplemented` | `api_7_wit_svids_are_unimplemented` |
//! | API 26 | 7.1 | a key of a WIT bundle MUST have a `kid` | `api_7_2_2_bundles` |
//! | API 27 | 7.2.1 | without `spiffe_id`, MUST return all identities | `api_7_2_1_all_identities_or_the_requested_one` |
//! | API 28 | 7.2.1 | `svids` MUST contain one or more messages | same as API 27 |
//! | API 29 | 7.2.1 | hints MUST be unique | `api_7_2_1_hints_are_unique` |
//! | API 30 | 7.2.2 | the bundles MUST only be used for WIT-SVIDs | same as API 26 |
//! | API 31 | 7.2.2 | `bundles` MUST contain the server's trust domain | same as API 26 |
//! | Endpoint 1 | 3 | MUST be served over gRPC | `api_1_both_profiles`, `tests/workload_api/foreign.rs` |
//! | Endpoint 2 | 3 | clients MUST support gRPC | same as Endpoint 1 |
//! | Endpoint 3 | 3 | TCP MUST NOT be used where callers are not identified | `endpoint_3_tcp_is_local` |
//! | Endpoint 4 | 3 | every request MUST include the security header | `endpoint_3_the_client_sends_the_security_header` |
//! | Endpoint 5 | 3 | requests without it MUST be rejected | `endpoint_3_the_security_header_is_required` |
//! | Endpoint 6 | 3.1 | TLS MUST NOT be required | same as Endpoint 1: clear text throughout |
//! | Endpoint 7 | 4 | clients MUST fall back to the environment | `endpoint_4_the_environment_locates_the_endpoint` |
//! | Endpoint 8 | 4 | the scheme MUST be `unix` or `tcp` | `endpoint_4_addresses` |
//! | Endpoint 9 | 4 | `unix`: the authority MUST NOT be set | same as Endpoint 8 |
//! | Endpoint 10 | 4 | `unix`: the path MUST be absolute | same as Endpoint 8 |
//! | Endpoint 11 | 4 | `tcp`: the host MUST be an IP address | same as Endpoint 8 |
//! | Endpoint 12 | 4 | `tcp`: the port MUST be set | same as Endpoint 8 |
//! | Endpoint 13 | 5 | clients MUST NOT be required to authenticate | `endpoint_5_callers_are_known_by_the_kernel` |
//! | Endpoint 14 | 5 | the workload MUST NOT participate in the checks | same as Endpoint 13 |
//! | Endpoint 15 | 6 | without the header, MUST respond `InvalidArgument` | same as Endpoint 5 |
//! | Endpoint 16 | 7 | a service of the specification MUST NOT be extended | same as API 2 |
//! | Endpoint 17 | 7 | MUST expose the Workload API | same as API 1 |
//!
//! The profile WIT-SVID is served with the feature `wit` and `ServerOptions::wit_svids`, and a client calls
//! it with `ClientOptions::wit_svids` and `wit_bundles`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers as well"
)]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so, in its helpers as well")]
#![cfg(unix)]

#[path = "workload_api/client.rs"]
mod client;
mod common;
#[path = "workload_api/drivers.rs"]
mod drivers;
#[path = "workload_api/endpoint.rs"]
mod endpoint;
#[path = "workload_api/foreign.rs"]
mod foreign;
#[path = "workload_api/hostile.rs"]
mod hostile;
#[path = "workload_api/kit.rs"]
mod kit;
#[path = "workload_api/pair.rs"]
mod pair;
#[path = "workload_api/proto.rs"]
mod proto;
#[path = "workload_api/raw.rs"]
mod raw;
#[path = "workload_api/secrets.rs"]
mod secrets;
#[path = "workload_api/server.rs"]
mod server;
#[path = "workload_api/wit.rs"]
mod wit;
