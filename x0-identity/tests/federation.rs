//! SPIFFE Federation: one test for each MUST and MUST NOT of SPIFFE_Federation.md, the engine of the
//! consumer, that of the endpoint, the drivers, and curl and `spiffe` of PyPI as consumers.
//!
//! | MUST | Section | Rule | Test |
//! |---|---|---|---|
//! | Federation 1 | 4.1 | new keys MUST be published before they are used | `s4_1_a_new_key_is_served_at_once` |
//! | Federation 2 | 4.2 | bundles of different domains MUST NOT be merged | `s4_2_bundles_are_never_merged` |
//! | Federation 3 | 5 | clients MUST support both profiles | `s5_both_profiles` |
//! | Federation 4 | 5 | servers MUST support at least one | same as Federation 3 |
//! | Federation 5 | 5 | TLS MUST be as of Mozilla's intermediate compatibility | `s5_tls_of_the_intermediate_compatibility` |
//! | Federation 6 | 5.1 | clients MUST be configured with URL, profile and trust domain | `s5_1_parameters_are_explicit` |
//! | Federation 7 | 5.1 | the trust domain of a bundle MUST be communicated | `s5_1_a_bundle_is_reported_under_its_domain` |
//! | Federation 8 | 5.2.1.1 | the scheme MUST be `https` | `s5_2_1_1_urls` |
//! | Federation 9 | 5.2.1.1 | URLs MUST NOT include userinfo | same as Federation 8 |
//! | Federation 10 | 5.2.1.2 | MUST NOT require additional parameters | `s5_2_1_2_the_web_profile_needs_no_more` |
//! | Federation 11 | 5.2.1.3 | the certificate MUST include the host | `s5_2_1_3_the_certificate_names_the_host` |
//! | Federation 12 | 5.2.1.3 | servers MUST NOT require client authentication | `s5_2_1_3_no_client_authenticates` |
//! | Federation 13 | 5.2.1.3 | MUST respond with the most up-to-date bundle | same as Federation 1 |
//! | Federation 14 | 5.2.1.3 | the response MUST be UTF-8 | `s5_2_1_3_an_answer_is_utf_8_of_type_json` |
//! | Federation 15 | 5.2.1.3 | the target of a redirect MUST be a valid URL | `s5_2_1_4_redirects_lead_to_valid_urls` |
//! | Federation 16 | 5.2.1.4 | the certificate MUST be validated as of RFC 6125 | `s5_2_1_4_the_web_certificate_is_validated` |
//! | Federation 17 | 5.2.1.4 | it MUST be issued by a trusted authority | same as Federation 16 |
//! | Federation 18 | 5.2.1.4 | it MUST match the host of the URL | same as Federation 16 |
//! | Federation 19 | 5.2.1.4 | clients MUST know the trust domain before | same as Federation 6 |
//! | Federation 20 | 5.2.1.4 | a redirect MUST be authenticated in the same way | `s5_2_1_4_redirects_are_authenticated_alike` |
//! | Federation 21 | 5.2.2.1 | the scheme MUST be `https` | same as Federation 8 |
//! | Federation 22 | 5.2.2.1 | URLs MUST NOT include userinfo | same as Federation 8 |
//! | Federation 23 | 5.2.2.2 | clients MUST be configured with the endpoint's SPIFFE ID | same as Federation 6 |
//! | Federation 24 | 5.2.2.2 | the first bundle MUST be supported in SPIFFE Bundle Format | `s5_2_2_2_the_first_bundle_is_in_bundle_format` |
//! | Federation 25 | 5.2.2.2 | not self-serving: the endpoint's domain MUST be configured | `s5_2_2_2_endpoints_of_another_domain` |
//! | Federation 26 | 5.2.2.3 | the server certificate MUST be a valid X.509-SVID | `s5_2_2_4_the_endpoint_has_the_configured_id` |
//! | Federation 27 | 5.2.2.3 | servers MUST NOT require client authentication | same as Federation 12 |
//! | Federation 28 | 5.2.2.3 | MUST respond with the most up-to-date bundle | same as Federation 1 |
//! | Federation 29 | 5.2.2.3 | the response MUST be UTF-8 | same as Federation 14 |
//! | Federation 30 | 5.2.2.3 | the target of a redirect MUST be a valid URL | same as Federation 15 |
//! | Federation 31 | 5.2.2.4 | it MUST be an SVID of the configured SPIFFE ID | same as Federation 26 |
//! | Federation 32 | 5.2.2.4 | the latest bundle MUST validate later connections | `s5_2_2_4_the_latest_bundle_validates` |
//! | Federation 33 | 5.2.2.4 | clients MUST know the trust domain before | same as Federation 6 |
//! | Federation 34 | 5.2.2.4 | a redirect MUST be authenticated in the same way | same as Federation 20 |
//! | Federation 35 | 5.2.2.4 | a redirect MUST present the same SPIFFE ID | same as Federation 20 |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers as well"
)]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so, in its helpers as well")]

mod common;
#[path = "federation/drivers.rs"]
mod drivers;
#[path = "federation/endpoint.rs"]
mod endpoint;
#[path = "federation/engine.rs"]
mod engine;
#[path = "federation/foreign.rs"]
mod foreign;
#[path = "federation/kit.rs"]
mod kit;
#[path = "federation/musts.rs"]
mod musts;
