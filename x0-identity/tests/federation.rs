//! SPIFFE Federation: one test for each MUST and MUST NOT of SPIFFE_Federation.md, the engine of the
//! consumer, that of the endpoint, the drivers, and curl and `spiffe` of PyPI as consumers.
//!
//! | Section | Rule | Test |
//! |---|---|---|
//! | 4.1 | new keys MUST be published before they are used | `s4_1_a_new_key_is_served_at_once` |
//! | 4.2 | bundles of different domains MUST NOT be merged | `s4_2_bundles_are_never_merged` |
//! | 5 | clients MUST support both profiles | `s5_both_profiles` |
//! | 5 | servers MUST support at least one | `s5_both_profiles` |
//! | 5 | TLS MUST be as of Mozilla's intermediate compatibility | `s5_tls_of_the_intermediate_compatibility` |
//! | 5.1 | clients MUST be configured with URL, profile and trust domain | `s5_1_parameters_are_explicit` |
//! | 5.1 | the trust domain of a bundle MUST be communicated | `s5_1_a_bundle_is_reported_under_its_domain` |
//! | 5.2.1.1, 5.2.2.1 | the scheme MUST be `https` | `s5_2_1_1_urls` |
//! | 5.2.1.1, 5.2.2.1 | URLs MUST NOT include userinfo | `s5_2_1_1_urls` |
//! | 5.2.1.2 | MUST NOT require additional parameters | `s5_2_1_2_the_web_profile_needs_no_more` |
//! | 5.2.1.3 | the certificate MUST include the host | `s5_2_1_3_the_certificate_names_the_host` |
//! | 5.2.1.3, 5.2.2.3 | servers MUST NOT require client authentication | `s5_2_1_3_no_client_authenticates` |
//! | 5.2.1.3, 5.2.2.3 | MUST respond with the most up-to-date bundle | `s4_1_a_new_key_is_served_at_once` |
//! | 5.2.1.3, 5.2.2.3 | the response MUST be UTF-8 | `s5_2_1_3_an_answer_is_utf_8_of_type_json` |
//! | 5.2.1.3, 5.2.2.3 | the target of a redirect MUST be a valid URL | `s5_2_1_4_redirects_lead_to_valid_urls` |
//! | 5.2.1.4 | the certificate MUST be validated as of RFC 6125 | `s5_2_1_4_the_web_certificate_is_validated` |
//! | 5.2.1.4 | it MUST be issued by a trusted authority | `s5_2_1_4_the_web_certificate_is_validated` |
//! | 5.2.1.4 | it MUST match the host of the URL | `s5_2_1_4_the_web_certificate_is_validated` |
//! | 5.2.1.4, 5.2.2.4 | clients MUST know the trust domain before | `s5_1_parameters_are_explicit` |
//! | 5.2.1.4, 5.2.2.4 | a redirect MUST be authenticated in the same way | `s5_2_1_4_redirects_are_authenticated_alike` |
//! | 5.2.2.2 | clients MUST be configured with the endpoint's SPIFFE ID | `s5_1_parameters_are_explicit` |
//! | 5.2.2.2 | the first bundle MUST be supported in SPIFFE Bundle Format | `s5_2_2_2_the_first_bundle_is_in_bundle_format` |
//! | 5.2.2.2 | not self-serving: the endpoint's domain MUST be configured | `s5_2_2_2_endpoints_of_another_domain` |
//! | 5.2.2.3 | the server certificate MUST be a valid X.509-SVID | `s5_2_2_4_the_endpoint_has_the_configured_id` |
//! | 5.2.2.4 | it MUST be an SVID of the configured SPIFFE ID | `s5_2_2_4_the_endpoint_has_the_configured_id` |
//! | 5.2.2.4 | the latest bundle MUST validate later connections | `s5_2_2_4_the_latest_bundle_validates` |
//! | 5.2.2.4 | a redirect MUST present the same SPIFFE ID | `s5_2_1_4_redirects_are_authenticated_alike` |
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
