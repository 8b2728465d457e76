//! The JSON Web Key Sets of the Workload API: keys for JWT-SVIDs only, for validators that do not know SPIFFE
//! (§6.2.2), and keys for WIT-SVIDs only (§7.2.2).

use std::string::String;
use std::vec;

use super::{BUNDLE_LEN_MAX, JwtAuthority, Refusal, Refused, SpiffeBundle, SpiffeBundleError, WitAuthority};
use crate::json::Json;
use crate::{TrustBundle, TrustDomain};

impl SpiffeBundle {
    /// The keys for JWT-SVIDs. They have no `use`: `jwt-svid` is no use of RFC 7517 §4.2, and validators skip
    /// keys whose use they do not know.
    pub(crate) fn jwt_key_set(&self) -> String {
        let keys = self.jwt_authorities().iter().map(|authority| {
            let Json::Object(mut members) = authority.write() else { return Json::Null };
            members.retain(|(name, _)| name != "use");
            Json::Object(members)
        });
        let mut text = String::new();
        Json::Object(vec![("keys".into(), Json::Array(keys.collect()))]).write(&mut text);
        text
    }

    /// The keys for WIT-SVIDs, with their `use`, by which consumers extract them (WIT-SVID §6.2).
    #[cfg(feature = "wit")]
    pub(crate) fn wit_key_set(&self) -> String {
        let keys = self.wit_authorities().iter().map(WitAuthority::write).collect();
        let mut text = String::new();
        Json::Object(vec![("keys".into(), Json::Array(keys))]).write(&mut text);
        text
    }

    /// Reads a key set of the Workload API for JWT-SVIDs. Keys that cannot be used are left out, as in a
    /// SPIFFE bundle.
    pub(crate) fn from_jwt_key_set(
        trust_domain: TrustDomain,
        json: &[u8],
    ) -> Result<SpiffeBundle, SpiffeBundleError> {
        SpiffeBundle::from_key_set(trust_domain, json, "jwt-svid", |bundle, key| {
            JwtAuthority::read(key).and_then(|authority| bundle.add_jwt(authority))
        })
    }

    /// As [`SpiffeBundle::from_jwt_key_set`], for WIT-SVIDs.
    pub(crate) fn from_wit_key_set(
        trust_domain: TrustDomain,
        json: &[u8],
    ) -> Result<SpiffeBundle, SpiffeBundleError> {
        SpiffeBundle::from_key_set(trust_domain, json, "wit-svid", |bundle, key| {
            WitAuthority::read(key).and_then(|authority| bundle.add_wit(authority))
        })
    }

    /// The keys with one use, and those without, which are for the use of the method.
    fn from_key_set(
        trust_domain: TrustDomain,
        json: &[u8],
        usage: &str,
        add: fn(&mut SpiffeBundle, &Json) -> Result<(), Refusal>,
    ) -> Result<SpiffeBundle, SpiffeBundleError> {
        if json.len() > BUNDLE_LEN_MAX {
            return Err(SpiffeBundleError::Length { len: json.len() });
        }
        let set = Json::parse(json)?;
        let Some(Json::Array(keys)) = set.get("keys") else { return Err(SpiffeBundleError::Keys) };
        let mut bundle = SpiffeBundle::new(TrustBundle::empty(trust_domain));
        for (position, key) in keys.iter().enumerate() {
            let is_for_it = key.get("use").is_none_or(|found| found.as_str() == Some(usage));
            let added = if is_for_it { add(&mut bundle, key) } else { Err(Refusal::Use) };
            if let Err(source) = added {
                bundle.refused.push(Refused { position, source });
            }
        }
        Ok(bundle)
    }
}
