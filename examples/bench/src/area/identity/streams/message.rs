//! `X509SVIDResponse` of the Workload API, for the server with tonic.

use anyhow::{Result, bail};
use prost::Message;
use rustls::pki_types::PrivateKeyDer;
use x0_identity::{Authority, X509Svid};

/// `X509SVIDResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, Message)]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes, tag = "2")]
    chain: Vec<u8>,
    #[prost(bytes, tag = "3")]
    key: Vec<u8>,
    #[prost(bytes, tag = "4")]
    bundle: Vec<u8>,
}

impl SvidResponse {
    pub(super) fn of(svid: &X509Svid, authority: &Authority) -> Result<SvidResponse> {
        let PrivateKeyDer::Pkcs8(key) = svid.key() else { bail!("a key that is not in PKCS #8") };
        let svid = Svid {
            spiffe_id: svid.spiffe_id().to_string(),
            chain: svid.chain().iter().flat_map(|der| der.to_vec()).collect(),
            key: key.secret_pkcs8_der().to_vec(),
            bundle: authority.certificate().to_vec(),
        };
        Ok(SvidResponse { svids: vec![svid] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::area::identity::{DAY, authority, id};

    #[test]
    fn the_message_is_that_of_the_specification() {
        let authority = authority().unwrap();
        let svid = authority.issue(&id("web").unwrap(), DAY).unwrap();
        let message = SvidResponse::of(&svid, &authority).unwrap().encode_to_vec();
        assert_eq!(
            SvidResponse::decode(&message[..]).unwrap().svids[0].spiffe_id,
            svid.spiffe_id().to_string()
        );
        // The first field is a message: its tag is 10.
        assert_eq!(message[0], 10);
    }
}
