//! Envoy's secret discovery service (SDS) from the workload of a caller.

use std::string::{String, ToString};
use std::vec::Vec;

use super::Workload;
use super::workload::HeldSvid;
use crate::grpc::{Code, DecodeError, Reader, Status, Writer};
use crate::x509::{write_certificate, write_key};
use crate::{SpiffeBundle, TrustBundle};

/// The method that streams secrets. `FetchSecrets` and `DeltaSecrets` are not served.
pub(super) const PATH: Option<&str> = Some("/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets");

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const SPIFFE_VALIDATOR: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// Names of secrets that a request lists.
const NAMES_MAX: usize = 256;

/// The names that SPIRE gives to what has another name as well.
const DEFAULT_SVID: &str = "default";
const OWN_BUNDLE: &str = "ROOTCA";
const ALL_BUNDLES: &str = "ALL";

/// The state of one stream: what its client subscribes to, and what it has.
#[derive(Debug, Default)]
pub(super) struct SecretStream {
    names: Option<Vec<String>>,
    sent: Vec<Vec<u8>>,
    nonce: u64,
}

impl SecretStream {
    /// Takes a request, and returns the response if there is one: to a subscription that is new or changed,
    /// not to an acknowledgement. A client that refuses a response (NACK) keeps what it has until the next
    /// one.
    pub(super) fn request(&mut self, request: &[u8], workload: &Workload) -> Result<Option<Vec<u8>>, Status> {
        let request =
            Request::decode(request).map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        if !request.type_url.is_empty() && request.type_url != SECRET {
            return Err(Status::new(Code::InvalidArgument, "type_url is not that of secrets"));
        }
        // A request that answers a response before the newest one says nothing of it.
        if self.names.is_some() && request.nonce != self.nonce.to_string() {
            return Ok(None);
        }
        if self.names.as_ref() == Some(&request.names) {
            return Ok(None);
        }
        self.names = Some(request.names);
        self.sent.clear();
        self.update(workload)
    }

    /// The response for a workload that may have changed, if what the client subscribes to has.
    pub(super) fn update(&mut self, workload: &Workload) -> Result<Option<Vec<u8>>, Status> {
        let Some(names) = &self.names else { return Ok(None) };
        let secrets = secrets(workload, names);
        if secrets.is_empty() {
            let message = "the caller has none of the requested secrets; they may be registered later";
            return Err(Status::new(Code::PermissionDenied, message));
        }
        if secrets == self.sent {
            return Ok(None);
        }
        self.nonce += 1;
        let digest = ring::digest::digest(&ring::digest::SHA256, &secrets.concat());
        let version: String = digest.as_ref().iter().take(8).map(|byte| std::format!("{byte:02x}")).collect();
        let mut response = Writer::new().string(1, &version);
        for secret in &secrets {
            response = response.element(2, &any(SECRET, secret));
        }
        self.sent = secrets;
        Ok(Some(response.string(4, SECRET).string(5, &self.nonce.to_string()).finish()))
    }
}

/// `DiscoveryRequest`, as far as it matters. The node is not looked at: the kernel knows the caller.
#[derive(Debug, Default)]
struct Request {
    names: Vec<String>,
    type_url: String,
    nonce: String,
}

impl Request {
    fn decode(message: &[u8]) -> Result<Request, DecodeError> {
        let mut request = Request::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            match field {
                3 if request.names.len() == NAMES_MAX => return Err(DecodeError),
                3 => request.names.push(value.string()?),
                4 => request.type_url = value.string()?,
                5 => request.nonce = value.string()?,
                _ => {}
            }
        }
        Ok(request)
    }
}

/// The secrets of these names that the workload has; all under their own names, if there are none.
fn secrets(workload: &Workload, names: &[String]) -> Vec<Vec<u8>> {
    let bundles = || [workload.bundle()].into_iter().chain(workload.federated().iter());
    if names.is_empty() {
        let svids = workload.identities().iter().map(|held| svid(&held.svid.spiffe_id().to_string(), held));
        return svids.chain(bundles().map(|bundle| authorities(&name_of(bundle), bundle))).collect();
    }
    let secret = |name: &String| match name.as_str() {
        DEFAULT_SVID => workload.identities().first().map(|held| svid(name, held)),
        OWN_BUNDLE => Some(authorities(name, workload.bundle())),
        ALL_BUNDLES => Some(all_bundles(name, bundles())),
        _ => {
            let held = workload.identities().iter().find(|held| held.svid.spiffe_id().to_string() == *name);
            let bundle = || bundles().find(|bundle| name_of(bundle) == *name);
            held.map(|held| svid(name, held)).or_else(|| bundle().map(|bundle| authorities(name, bundle)))
        }
    };
    names.iter().filter_map(secret).collect()
}

fn name_of(bundle: &SpiffeBundle) -> String {
    std::format!("spiffe://{}", bundle.trust_domain())
}

/// `Secret` with a `TlsCertificate`.
fn svid(name: &str, held: &HeldSvid) -> Vec<u8> {
    let (mut chain, mut key) = (String::new(), String::new());
    for certificate in held.svid.chain() {
        write_certificate(certificate, &mut chain);
    }
    write_key(&pki_types::PrivatePkcs8KeyDer::from(held.key.to_vec()).into(), &mut key);
    let certificate = Writer::new().element(1, &inline(&chain)).element(2, &inline(&key)).finish();
    Writer::new().string(1, name).element(2, &certificate).finish()
}

/// `Secret` with a `CertificateValidationContext` of one trust domain.
fn authorities(name: &str, bundle: &SpiffeBundle) -> Vec<u8> {
    let context = Writer::new().element(1, &inline(&bundle.trust_bundle().to_pem())).finish();
    Writer::new().string(1, name).element(4, &context).finish()
}

/// `Secret` with the validator of Envoy that chooses the bundle by the trust domain of the peer, so that no
/// authority is trusted for another domain.
fn all_bundles<'a>(name: &str, bundles: impl Iterator<Item = &'a SpiffeBundle>) -> Vec<u8> {
    let mut config = Writer::new();
    for bundle in bundles.map(SpiffeBundle::trust_bundle).filter(|bundle| !bundle.is_empty()) {
        let domain = Writer::new()
            .string(1, bundle.trust_domain().as_str())
            .element(2, &inline(&TrustBundle::to_pem(bundle)));
        config = config.element(1, &domain.finish());
    }
    let validator = Writer::new()
        .string(1, "envoy.tls.cert_validator.spiffe")
        .element(2, &any(SPIFFE_VALIDATOR, &config.finish()));
    let context = Writer::new().element(12, &validator.finish()).finish();
    Writer::new().string(1, name).element(4, &context).finish()
}

/// `DataSource.inline_bytes`.
fn inline(text: &str) -> Vec<u8> {
    Writer::new().element(2, text.as_bytes()).finish()
}

/// `google.protobuf.Any`.
fn any(type_url: &str, message: &[u8]) -> Vec<u8> {
    Writer::new().string(1, type_url).element(2, message).finish()
}
