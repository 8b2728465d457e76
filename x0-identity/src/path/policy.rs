//! Certificate policies (RFC 5280 §6.1.3 (d) to (f), §6.1.4 (a), (b), (h) to (j), §6.1.5 (a), (b), (g)).
//!
//! No initial policy is demanded, so what the valid policy tree decides is only whether it is empty. The tree
//! grows exponentially (RFC 9618 §3); whether it is empty follows from the policies that its last level
//! expects, a set.

use std::collections::BTreeSet;

use crate::x509::der::{Malformed, OBJECT_IDENTIFIER, Reader, SEQUENCE, check_oid};
use crate::x509::{Certificate, Criticality};

const ANY_POLICY: &[u8] = &[0x55, 0x1d, 32, 0];
/// `id-qt-cps` and `id-qt-unotice`, the qualifiers that RFC 5280 §4.2.1.4 defines.
const QUALIFIERS: [&[u8]; 2] = [&[0x2b, 6, 1, 5, 5, 7, 2, 1], &[0x2b, 6, 1, 5, 5, 7, 2, 2]];

/// The policies that a path may still use, and what the rest of it must do.
pub(super) struct Policies<'a> {
    /// The expected policies of the last level; empty when the tree is NULL.
    expected: BTreeSet<&'a [u8]>,
    /// Certificates after which a valid policy is demanded, after which mapping ends, and after which
    /// `anyPolicy` ends.
    explicit_policy: u32,
    policy_mapping: u32,
    inhibit_any: u32,
}

impl<'a> Policies<'a> {
    /// §6.1.2 (a), (d), (e), (f) for a path of `len` certificates.
    pub(super) fn new(len: usize) -> Policies<'a> {
        let skip = u32::try_from(len).unwrap_or(u32::MAX).saturating_add(1);
        Policies {
            expected: BTreeSet::from([ANY_POLICY]),
            explicit_policy: skip,
            policy_mapping: skip,
            inhibit_any: skip,
        }
    }

    /// §6.1.3 (d), (e) and (f). Says whether the path may go on.
    pub(super) fn process(
        &mut self,
        certificate: &Certificate<'a>,
        self_issued: bool,
        last: bool,
    ) -> Result<bool, Malformed> {
        let mut asserted = BTreeSet::new();
        if let Some((content, criticality)) = certificate.policies {
            read_policies(content, criticality, &mut asserted)?;
        }
        let any_allowed = self.inhibit_any > 0 || (!last && self_issued);
        let any = asserted.contains(ANY_POLICY) && any_allowed;
        self.expected = if self.expected.contains(ANY_POLICY) {
            // (d) (1) (ii) and (2): under an any-policy node every policy is valid.
            asserted.into_iter().filter(|policy| *policy != ANY_POLICY || any).collect()
        } else if any {
            // (d) (2): every expected policy goes on.
            core::mem::take(&mut self.expected)
        } else {
            self.expected.intersection(&asserted).copied().collect()
        };
        Ok(self.explicit_policy > 0 || !self.expected.is_empty())
    }

    /// §6.1.4 (a), (b), (h), (i) and (j).
    pub(super) fn prepare(
        &mut self,
        certificate: &Certificate<'a>,
        self_issued: bool,
    ) -> Result<(), Malformed> {
        if let Some(content) = certificate.policy_mappings {
            self.map(content)?;
        }
        if !self_issued {
            self.explicit_policy = self.explicit_policy.saturating_sub(1);
            self.policy_mapping = self.policy_mapping.saturating_sub(1);
            self.inhibit_any = self.inhibit_any.saturating_sub(1);
        }
        let constraints = certificate.policy_constraints;
        self.explicit_policy = self.explicit_policy.min(constraints.require_explicit.unwrap_or(u32::MAX));
        self.policy_mapping = self.policy_mapping.min(constraints.inhibit_mapping.unwrap_or(u32::MAX));
        self.inhibit_any = self.inhibit_any.min(certificate.inhibit_any_policy.unwrap_or(u32::MAX));
        Ok(())
    }

    /// §6.1.5 (a), (b) and (g). Says whether the path is valid.
    pub(super) fn wrap_up(&mut self, certificate: &Certificate<'_>) -> bool {
        self.explicit_policy = self.explicit_policy.saturating_sub(1);
        if certificate.policy_constraints.require_explicit == Some(0) {
            self.explicit_policy = 0;
        }
        self.explicit_policy > 0 || !self.expected.is_empty()
    }

    fn map(&mut self, content: &'a [u8]) -> Result<(), Malformed> {
        let mut mappings = Reader::new(content);
        if mappings.is_empty() {
            return Err(Malformed);
        }
        let mut added = BTreeSet::new();
        let mut removed = BTreeSet::new();
        let any = self.expected.contains(ANY_POLICY);
        while !mappings.is_empty() {
            let mut mapping = Reader::new(mappings.expect(SEQUENCE)?);
            let (issuer, subject) = (mapping.expect(OBJECT_IDENTIFIER)?, mapping.expect(OBJECT_IDENTIFIER)?);
            mapping.finish()?;
            check_oid(issuer)?;
            check_oid(subject)?;
            // (a): "anyPolicy does not appear".
            if issuer == ANY_POLICY || subject == ANY_POLICY {
                return Err(Malformed);
            }
            if any || self.expected.contains(issuer) {
                removed.insert(issuer);
                // (b) (1) maps, (b) (2) deletes.
                if self.policy_mapping > 0 {
                    added.insert(subject);
                }
            }
        }
        self.expected.retain(|policy| !removed.contains(policy));
        self.expected.extend(added);
        Ok(())
    }
}

fn read_policies<'a>(
    content: &'a [u8],
    criticality: Criticality,
    asserted: &mut BTreeSet<&'a [u8]>,
) -> Result<(), Malformed> {
    let mut policies = Reader::new(content);
    if policies.is_empty() {
        return Err(Malformed);
    }
    while !policies.is_empty() {
        let mut policy = Reader::new(policies.expect(SEQUENCE)?);
        let oid = policy.expect(OBJECT_IDENTIFIER)?;
        check_oid(oid)?;
        if let Some(content) = policy.optional(SEQUENCE)? {
            let mut qualifiers = Reader::new(content);
            while !qualifiers.is_empty() {
                let mut qualifier = Reader::new(qualifiers.expect(SEQUENCE)?);
                let kind = qualifier.expect(OBJECT_IDENTIFIER)?;
                qualifier.element()?;
                qualifier.finish()?;
                // "If this extension is critical, the path validation software MUST be able to interpret this
                // extension (including the optional qualifier), or MUST reject the certificate."
                if criticality == Criticality::Critical && !QUALIFIERS.contains(&kind) {
                    return Err(Malformed);
                }
            }
        }
        policy.finish()?;
        // "A certificate policy OID MUST NOT appear more than once."
        if !asserted.insert(oid) {
            return Err(Malformed);
        }
    }
    Ok(())
}
