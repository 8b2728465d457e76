//! The relationships of a cluster: one statement, signed by its authority, that is a key of the CRDT
//! keyspace.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use x0_identity::federation::{EndpointProfile, EndpointUrl, Relationship};
use x0_identity::{Authority, SignedStatement, SpiffeBundle, SpiffeId, TrustDomain};
use x0_kv::{CrdtStore, Store};

/// The purpose of the statements.
pub(crate) const PURPOSE: &str = "x0-node/federation";
/// The keyspace in the CRDT store.
const KEYSPACE: &str = "x0-federation";
/// The most relationships of a cluster.
const COUNT_MAX: usize = 64;

/// The keyspace of the statements.
pub(crate) fn keyspace(store: &Store) -> Result<CrdtStore> {
    let crdt = store
        .crdt()
        .context("relationships spread through the CRDT keyspace: set `crdt_key` on every member")?;
    Ok(crdt.keyspace(KEYSPACE)?)
}

/// The key of a statement: keys are in the order of the numbers.
pub(crate) fn key(sequence: u64) -> String {
    format!("{sequence:020}")
}

/// All relationships of a cluster. The statement with the highest number counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Relationships {
    pub(crate) sequence: u64,
    pub(crate) relationships: Vec<Row>,
}

/// A relationship with a foreign trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) trust_domain: String,
    /// The URL of the bundle endpoint.
    pub(crate) url: String,
    /// The SPIFFE ID of the endpoint (`https_spiffe`); `None` for `https_web`.
    #[serde(default)]
    pub(crate) endpoint: Option<String>,
    /// The bundle to begin with, as JSON of the SPIFFE bundle format.
    #[serde(default)]
    pub(crate) bundle: Option<serde_json::Value>,
    /// The SPIFFE IDs of the trust domain that are admitted as clients.
    #[serde(default)]
    pub(crate) clients: Vec<String>,
}

impl Relationships {
    /// Reads the content of a statement, and checks each relationship. `own` is the trust domain of the
    /// cluster.
    pub(crate) fn from_json(own: &TrustDomain, json: &[u8]) -> Result<Relationships> {
        let all: Relationships = serde_json::from_slice(json).context("the relationships are malformed")?;
        all.check(own)?;
        Ok(all)
    }

    /// As pretty JSON.
    pub(crate) fn to_json(&self) -> Result<String> {
        Ok(format!("{}\n", serde_json::to_string_pretty(self)?))
    }

    /// The first rule that a relationship breaks.
    pub(crate) fn check(&self, own: &TrustDomain) -> Result<()> {
        if self.relationships.len() > COUNT_MAX {
            bail!("a cluster federates with at most {COUNT_MAX} trust domains: remove one");
        }
        let mut seen = BTreeSet::new();
        for row in &self.relationships {
            let domain = row.domain()?;
            if domain == *own {
                bail!("{domain} is the trust domain of this cluster: name a foreign one");
            }
            row.relationship(None)?;
            row.admitted()?;
            if !seen.insert(domain.clone()) {
                bail!("{domain} occurs twice: keep one of its relationships");
            }
        }
        Ok(())
    }

    /// The relationship with a trust domain.
    pub(crate) fn of(&self, trust_domain: &str) -> Option<&Row> {
        self.relationships.iter().find(|row| row.trust_domain == trust_domain)
    }

    /// The statement of an authority.
    pub(crate) fn sign(&self, by: &Authority) -> Result<SignedStatement> {
        let content = serde_json::to_vec(self)?;
        let signature = by.sign(&SignedStatement::to_be_signed(PURPOSE, by.trust_domain(), &content))?;
        Ok(SignedStatement::new(PURPOSE, content, signature))
    }
}

impl Row {
    pub(crate) fn domain(&self) -> Result<TrustDomain> {
        let text = &self.trust_domain;
        text.parse().with_context(|| format!("`{text}` is not a valid trust domain"))
    }

    /// The relationship, with a bundle that was fetched before or else the one to begin with.
    pub(crate) fn relationship(&self, stored: Option<SpiffeBundle>) -> Result<Relationship> {
        let domain = self.domain()?;
        let url = EndpointUrl::parse(&self.url)
            .with_context(|| format!("`{}` is not the URL of a bundle endpoint", self.url))?;
        let profile = match &self.endpoint {
            None => EndpointProfile::Web,
            Some(text) => EndpointProfile::Spiffe { endpoint: spiffe_id(text)? },
        };
        let first = self.bundle.as_ref().map(|value| {
            let json = serde_json::to_vec(value)?;
            SpiffeBundle::from_json(domain.clone(), &json)
                .with_context(|| format!("the bundle of {domain} is not a SPIFFE bundle"))
        });
        let first = first.transpose()?;
        let relationship = Relationship::new(domain.clone(), url, profile);
        let relationship = match stored.or(first) {
            Some(bundle) => relationship.with_bundle(bundle)?,
            None => relationship,
        };
        if relationship.is_self_serving() && relationship.bundle().is_none() {
            bail!(
                "the endpoint of {domain} proves its identity by the bundle that it serves: name the current one with --bundle FILE"
            );
        }
        Ok(relationship)
    }

    /// The clients, which are of the trust domain.
    pub(crate) fn admitted(&self) -> Result<BTreeSet<SpiffeId>> {
        let domain = self.domain()?;
        let mut admitted = BTreeSet::new();
        for text in &self.clients {
            let id = spiffe_id(text)?;
            if *id.trust_domain() != domain {
                bail!("{id} is not of the trust domain {domain}: name a client of it");
            }
            admitted.insert(id);
        }
        Ok(admitted)
    }

    /// Whether both have the same endpoint, which is authenticated in the same way.
    pub(crate) fn has_endpoint_of(&self, other: &Row) -> bool {
        let parts = |row: &Row| (row.url.clone(), row.endpoint.clone(), row.bundle.clone());
        parts(self) == parts(other)
    }
}

fn spiffe_id(text: &str) -> Result<SpiffeId> {
    SpiffeId::parse(text).with_context(|| format!("`{text}` is not a SPIFFE ID"))
}

#[cfg(test)]
mod tests {
    use x0_identity::{AuthorityOptions, RevocationView, TrustBundle};

    use super::*;

    fn row(change: fn(&mut Row)) -> Row {
        let domain = TrustDomain::parse("b.example").unwrap();
        let bundle = SpiffeBundle::new(TrustBundle::empty(domain)).to_json();
        let mut row = Row {
            trust_domain: "b.example".into(),
            url: "https://127.0.0.1:8443/bundle.json".into(),
            endpoint: Some("spiffe://b.example/node/0000000000000001".into()),
            bundle: Some(serde_json::from_str(&bundle).unwrap()),
            clients: vec!["spiffe://b.example/client/1".into()],
        };
        change(&mut row);
        row
    }

    #[test]
    fn a_statement_has_what_was_signed() {
        let own = TrustDomain::parse("a.example").unwrap();
        let authority = Authority::new(own.clone(), &AuthorityOptions::default()).unwrap();
        let all = Relationships { sequence: 3, relationships: vec![row(|_| {})] };
        let bytes = all.sign(&authority).unwrap().to_bytes();
        let read = SignedStatement::from_bytes(PURPOSE, &bytes).unwrap();
        let content = read.verify(&authority.bundle(), &RevocationView::new()).unwrap();
        assert_eq!(Relationships::from_json(&own, content).unwrap(), all);
        assert_eq!(Relationships::from_json(&own, all.to_json().unwrap().as_bytes()).unwrap(), all);
        assert!(all.of("b.example").is_some() && all.of("c.example").is_none());
    }

    #[test]
    fn relationships_that_break_a_rule_are_refused() {
        let own = TrustDomain::parse("a.example").unwrap();
        let check = |rows: Vec<Row>, expect: &str| {
            let all = Relationships { sequence: 1, relationships: rows };
            let error = format!("{:?}", all.check(&own).unwrap_err());
            assert!(error.contains(expect), "{error}");
        };
        check(vec![row(|row| row.trust_domain = "B".into())], "`B` is not a valid trust domain");
        let of_own = |row: &mut Row| {
            (row.trust_domain, row.bundle, row.endpoint, row.clients) =
                ("a.example".into(), None, None, Vec::new());
        };
        check(vec![row(of_own)], "name a foreign one");
        check(vec![row(|row| row.url = "http://a".into())], "is not the URL of a bundle endpoint");
        check(vec![row(|row| row.endpoint = Some("b".into()))], "`b` is not a SPIFFE ID");
        check(vec![row(|row| row.bundle = None)], "--bundle FILE");
        check(vec![row(|row| row.bundle = Some(1.into()))], "is not a SPIFFE bundle");
        check(vec![row(|row| row.clients = vec!["spiffe://c.example/x".into()])], "name a client of it");
        check(vec![row(|_| {}), row(|_| {})], "occurs twice");
        check(vec![row(|_| {}); COUNT_MAX + 1], "at most 64");
        // An endpoint of a third trust domain, or of the web, needs no bundle of its own.
        row(|row| (row.bundle, row.endpoint) = (None, None)).relationship(None).unwrap();
        let hosted = |row: &mut Row| {
            (row.bundle, row.endpoint) = (None, Some("spiffe://c.example/bundles".into()));
        };
        row(hosted).relationship(None).unwrap();
        assert!(Relationships::from_json(&own, b"{").is_err());
    }
}
