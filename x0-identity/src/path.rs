//! Path validation: RFC 5280 §6.1 over the certificates that a peer presents.
//!
//! The search goes from the leaf to an authority of the bundle, through presented certificates in any order
//! (RFC 8446 §4.4.2). A path that it finds is validated from the authority down. Signatures come first, so
//! that nothing costly is done for certificates that no authority issued; each is checked once, whatever
//! number of paths it lies on.
//!
//! An authority's own constraints (path length, names, extended key usage, validity) apply to the path, as
//! OpenSSL and Go do it; RFC 5280 §6.1.1 (d) leaves that to the application. Its policies do not: the tree
//! begins below it (§6.1.2).

use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};

use crate::x509::{Certificate, EncodingError, Leaf, Name, Signer, to_system_time};
use crate::{LeafError, RevocationView, TrustBundle};

mod constraints;
mod error;
mod policy;

pub use error::{CertificateAt, PathError};

use policy::Policies;

/// Signature checks of one validation. A chain of 8 takes 8; the rest is for issuers of one name with
/// different keys.
const SIGNATURES_MAX: usize = 24;
/// Comparisons of a name with a name constraint in one validation, which take about 50 ns each. To read a
/// constraint counts as one.
const COMPARISONS_MAX: usize = 20_000;
/// Certificates that the search looks at. A chain in order takes one step per certificate.
const STEPS_MAX: usize = 512;

/// The role of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    Client,
    Server,
}

/// The rest of the budget of one validation.
struct Budget {
    signatures: usize,
    comparisons: usize,
    steps: usize,
}

impl Budget {
    fn compare(&mut self) -> Result<(), constraints::Broken> {
        self.comparisons = self.comparisons.checked_sub(1).ok_or(constraints::Broken::Budget)?;
        Ok(())
    }
}

/// Validates a chain, the leaf first, and returns the last second in which each certificate of the path is
/// valid, that of the authority included, in seconds since 1970.
pub(crate) fn validate(
    leaf: &Certificate<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    revocations: &RevocationView,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    now: UnixTime,
    usage: Usage,
) -> Result<i64, PathError> {
    // One that cannot be read is not on a path; extraneous certificates are allowed (RFC 8446 §4.4.2).
    let intermediates: Vec<_> = intermediates.iter().map(Certificate::parse).collect();
    let certificates =
        [Some(leaf)].into_iter().chain(intermediates.iter().map(|parsed| parsed.as_ref().ok()));
    let presented: Vec<_> = certificates.map(|certificate| certificate.map(Presented::new)).collect();
    let mut search = Search {
        presented: &presented,
        intermediates: &intermediates,
        bundle,
        revocations,
        algorithms,
        now: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        usage,
        budget: Budget { signatures: SIGNATURES_MAX, comparisons: COMPARISONS_MAX, steps: STEPS_MAX },
        issuers: std::vec![None; presented.len()],
        signatures: Vec::new(),
        refusal: None,
    };
    match search.extend(&mut Vec::new()) {
        Ok(Some(not_after)) => Ok(not_after),
        Ok(None) => Err(search.refusal.map_or(PathError::UnknownIssuer { position: 0 }, |(_, error)| error)),
        Err(error) => Err(error),
    }
}

/// How far a path came: the error of the one that came farthest is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    NoAuthority,
    Unsigned,
    Signed,
}

/// A certificate of the peer with its names, whose canonical forms are made once.
struct Presented<'a> {
    certificate: &'a Certificate<'a>,
    issuer: Name<'a>,
    subject: Name<'a>,
}

impl<'a> Presented<'a> {
    fn new(certificate: &'a Certificate<'a>) -> Presented<'a> {
        Presented {
            certificate,
            issuer: Name::new(certificate.issuer),
            subject: Name::new(certificate.subject),
        }
    }

    /// RFC 5280 §3.2: issuer and subject are the same.
    fn is_self_issued(&self) -> bool {
        self.issuer.same(&self.subject)
    }
}

struct Search<'a> {
    /// The certificates of the peer by position, the leaf first; `None` for one that cannot be read.
    presented: &'a [Option<Presented<'a>>],
    intermediates: &'a [Result<Certificate<'a>, EncodingError>],
    bundle: &'a TrustBundle,
    revocations: &'a RevocationView,
    algorithms: &'a [&'a dyn SignatureVerificationAlgorithm],
    now: i64,
    usage: Usage,
    budget: Budget,
    /// The certificates that have the name of the issuer of the certificate at this position, once they were
    /// looked for: two names are compared once, whatever number of paths they lie on.
    issuers: Vec<Option<Rc<[CertificateAt]>>>,
    /// The signatures that were checked: position of the certificate, its issuer, and whether it verified.
    signatures: Vec<(usize, CertificateAt, bool)>,
    refusal: Option<(Stage, PathError)>,
}

impl<'a> Search<'a> {
    fn refuse(&mut self, stage: Stage, error: PathError) {
        if self.refusal.as_ref().is_none_or(|(earlier, _)| *earlier < stage) {
            self.refusal = Some((stage, error));
        }
    }

    /// The certificate at a position of the chain as presented. Positions come from the search, which passes
    /// only readable ones.
    fn presented(&self, position: usize) -> Option<&'a Presented<'a>> {
        self.presented.get(position)?.as_ref()
    }

    /// The certificates that have the name of an issuer, in the order in which they are tried: those whose
    /// key identifiers fit come first (RFC 5280 §4.2.1.1), and authorities before presented certificates.
    fn issuers(&mut self, position: usize, of: &Presented<'_>) -> Rc<[CertificateAt]> {
        if let Some(Some(issuers)) = self.issuers.get(position) {
            return Rc::clone(issuers);
        }
        let bundle = self.bundle;
        let named = bundle.subjects().iter().zip(bundle.authorities()).enumerate();
        let authorities =
            named.filter(|(_, (subject, _))| subject.same(&of.issuer)).filter_map(|(index, (_, der))| {
                Some((CertificateAt::Bundle(index), fits(of.certificate, &Certificate::parse(der).ok()?)))
            });
        // The leaf issues nothing.
        let others = self.presented.iter().enumerate().skip(1);
        let others = others.filter_map(|(index, other)| Some((index, other.as_ref()?)));
        let presented = others
            .filter(|(_, other)| other.subject.same(&of.issuer))
            .map(|(index, other)| (CertificateAt::Chain(index), fits(of.certificate, other.certificate)));
        let mut issuers: Vec<_> = authorities.chain(presented).collect();
        issuers.sort_by_key(|(_, fits)| !fits);
        let issuers: Rc<[CertificateAt]> = issuers.into_iter().map(|(at, _)| at).collect();
        if let Some(known) = self.issuers.get_mut(position) {
            *known = Some(Rc::clone(&issuers));
        }
        issuers
    }

    /// Looks for issuers of the path's last certificate. `path` holds the positions of the intermediates, the
    /// leaf's issuer first. Returns the end of a valid path.
    fn extend(&mut self, path: &mut Vec<usize>) -> Result<Option<i64>, PathError> {
        self.budget.steps = self.budget.steps.checked_sub(1).ok_or(PathError::Steps)?;
        let last = path.last().copied().unwrap_or(0);
        let Some(certificate) = self.presented(last) else { return Ok(None) };
        let bundle = self.bundle;
        let mut found = false;
        for &issuer in &*self.issuers(last, certificate) {
            match issuer {
                CertificateAt::Bundle(index) => {
                    let Ok(issuer) = Certificate::parse(&bundle.authorities()[index]) else { continue };
                    found = true;
                    match self.validate(path, index, &issuer) {
                        Ok(not_after) => return Ok(Some(not_after)),
                        Err((_, error @ (PathError::Signatures | PathError::Comparisons))) => {
                            return Err(error);
                        }
                        Err((stage, error)) => self.refuse(stage, error),
                    }
                }
                CertificateAt::Chain(position) if path.contains(&position) => {}
                CertificateAt::Chain(position) => {
                    found = true;
                    path.push(position);
                    let valid = self.extend(path);
                    path.pop();
                    if let Some(not_after) = valid? {
                        return Ok(Some(not_after));
                    }
                }
            }
        }
        if !found {
            // A certificate that cannot be read may be the one that is missing.
            let unreadable = self.intermediates.iter().enumerate().find_map(|(index, certificate)| {
                let encoding = *certificate.as_ref().err()?;
                Some(PathError::Signer { at: CertificateAt::Chain(index + 1), source: encoding.into() })
            });
            self.refuse(
                Stage::NoAuthority,
                unreadable.unwrap_or(PathError::UnknownIssuer { position: last }),
            );
        }
        Ok(None)
    }

    /// Validates the path from an authority down to the leaf, and returns its end.
    fn validate(
        &mut self,
        path: &[usize],
        anchor: usize,
        authority: &Certificate<'_>,
    ) -> Result<i64, (Stage, PathError)> {
        // From the authority's side: each certificate with its issuer.
        let positions: Vec<usize> = path.iter().rev().copied().chain([0]).collect();
        let mut not_after = authority.validity.not_after;
        let mut issuer =
            (CertificateAt::Bundle(anchor), authority.public_key_algorithm, authority.public_key);
        for &position in &positions {
            let Some(Presented { certificate, .. }) = self.presented(position) else { continue };
            self.check_signature(certificate, position, issuer).map_err(|error| (Stage::Unsigned, error))?;
            not_after = not_after.min(certificate.validity.not_after);
            issuer =
                (CertificateAt::Chain(position), certificate.public_key_algorithm, certificate.public_key);
        }
        self.check_rules(&positions, anchor, authority).map_err(|error| (Stage::Signed, error))?;
        Ok(not_after)
    }

    /// §6.1.3 (a) (1).
    fn check_signature(
        &mut self,
        certificate: &Certificate<'_>,
        position: usize,
        (issuer, key_algorithm, key): (CertificateAt, &[u8], &[u8]),
    ) -> Result<(), PathError> {
        let at = CertificateAt::Chain(position);
        let known = self.signatures.iter().find(|(of, by, _)| (*of, *by) == (position, issuer));
        if let Some((_, _, valid)) = known {
            return if *valid { Ok(()) } else { Err(PathError::Signature { at, issuer }) };
        }
        let mut supported = self
            .algorithms
            .iter()
            .filter(|algorithm| {
                &*algorithm.signature_alg_id() == certificate.signature_algorithm
                    && &*algorithm.public_key_alg_id() == key_algorithm
            })
            .peekable();
        if supported.peek().is_none() {
            return Err(PathError::SignatureAlgorithm { at, issuer });
        }
        self.budget.signatures = self.budget.signatures.checked_sub(1).ok_or(PathError::Signatures)?;
        let valid = supported.any(|algorithm| {
            algorithm.verify_signature(key, certificate.signed, certificate.signature).is_ok()
        });
        self.signatures.push((position, issuer, valid));
        if valid { Ok(()) } else { Err(PathError::Signature { at, issuer }) }
    }

    /// §6.1.3 but for signatures, §6.1.4 and §6.1.5.
    fn check_rules(
        &mut self,
        positions: &[usize],
        anchor: usize,
        authority: &Certificate<'_>,
    ) -> Result<(), PathError> {
        let authority_at = CertificateAt::Bundle(anchor);
        self.check_validity(authority, authority_at)?;
        self.check_revocation(authority, authority_at)?;
        check_critical(authority, authority_at)?;
        self.check_extended_key_usage(authority, authority_at)?;
        // §6.1.2 (k): the number of intermediates that may follow, self-issued ones not counted.
        let mut path_len = authority.path_len.map(|len| (len, authority_at));
        let mut constraining: Vec<(CertificateAt, &[u8])> = Vec::new();
        constraining.extend(authority.name_constraints.map(|constraints| (authority_at, constraints)));
        let mut policies = Policies::new(positions.len());

        for (index, &position) in positions.iter().enumerate() {
            let Some(presented) = self.presented(position) else { continue };
            let certificate = presented.certificate;
            let at = CertificateAt::Chain(position);
            let last = index + 1 == positions.len();
            let self_issued = presented.is_self_issued();
            // §6.1.3 (a) (2) and (3). The verifier has looked at the leaf.
            self.check_validity(certificate, at)?;
            if !last {
                self.check_revocation(certificate, at)?;
            }
            // §6.1.3 (b), (c).
            if last || !self_issued {
                for &(signer, constraints) in &constraining {
                    constraints::check(constraints, certificate, &mut self.budget)
                        .map_err(|broken| broken.error(at, signer))?;
                }
            }
            // §6.1.3 (d), (e), (f).
            let extension = |name| move |_| PathError::Extension { at, extension: name };
            let valid =
                policies.process(certificate, self_issued, last).map_err(extension("CertificatePolicies"))?;
            if !valid {
                return Err(PathError::Policy { at });
            }
            // §6.1.4 (o), §6.1.5 (f).
            check_critical(certificate, at)?;
            if last {
                if policies.wrap_up(certificate) {
                    break;
                }
                return Err(PathError::Policy { at });
            }

            // §6.1.4 (a), (b), (h), (i), (j).
            policies.prepare(certificate, self_issued).map_err(extension("PolicyMappings"))?;
            // (g).
            constraining.extend(certificate.name_constraints.map(|constraints| (at, constraints)));
            // (k), (n), and the rules of X509-SVID.
            Signer::check(certificate).map_err(|source| PathError::Signer { at, source })?;
            self.check_extended_key_usage(certificate, at)?;
            // (l), (m).
            if let (false, Some((len, signer))) = (self_issued, &mut path_len) {
                *len = len.checked_sub(1).ok_or(PathError::PathLen { at, signer: *signer })?;
            }
            if let Some(len) = certificate.path_len
                && path_len.is_none_or(|(earlier, _)| len < earlier)
            {
                path_len = Some((len, at));
            }
        }
        Ok(())
    }

    fn check_validity(&self, certificate: &Certificate<'_>, at: CertificateAt) -> Result<(), PathError> {
        let now = || to_system_time(self.now);
        if self.now < certificate.validity.not_before {
            let not_before = to_system_time(certificate.validity.not_before);
            return Err(PathError::NotYetValid { at, not_before, now: now() });
        }
        if self.now > certificate.validity.not_after {
            return Err(PathError::Expired {
                at,
                not_after: to_system_time(certificate.validity.not_after),
                now: now(),
            });
        }
        Ok(())
    }

    fn check_revocation(&self, certificate: &Certificate<'_>, at: CertificateAt) -> Result<(), PathError> {
        match self.revocations.signer(certificate) {
            Some(_) => Err(PathError::Revoked { at }),
            None => Ok(()),
        }
    }

    /// RFC 5280 §4.2.1.12 says nothing of signers; X509-SVID §4.4 states that libraries differ. As Go,
    /// OpenSSL and webpki do, the purposes of a signer bound those of the certificates below it.
    fn check_extended_key_usage(
        &self,
        certificate: &Certificate<'_>,
        at: CertificateAt,
    ) -> Result<(), PathError> {
        let allowed = certificate.extended_key_usage.is_none_or(|usage| {
            usage.any
                || match self.usage {
                    Usage::Client => usage.client_auth,
                    Usage::Server => usage.server_auth,
                }
        });
        if allowed { Ok(()) } else { Err(PathError::ExtendedKeyUsage { at }) }
    }
}

/// Whether the key identifiers speak for this issuer, or do not speak.
fn fits(certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> bool {
    match (certificate.authority_key_id, issuer.subject_key_id) {
        (Some(wanted), Some(offered)) => wanted == offered,
        _ => true,
    }
}

fn check_critical(certificate: &Certificate<'_>, at: CertificateAt) -> Result<(), PathError> {
    match certificate.unknown_critical {
        Some(oid) => Err(PathError::CriticalExtension { at, oid: dotted(oid) }),
        None => Ok(()),
    }
}

/// An object identifier as text, shortened to 64 bytes of it.
fn dotted(oid: &[u8]) -> String {
    let mut text = String::new();
    let mut arc = 0_u64;
    for byte in oid.iter().take(64) {
        arc = arc.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if text.is_empty() {
            let first = (arc / 40).min(2);
            text = std::format!("{first}.{}", arc - 40 * first);
        } else {
            text.push_str(&std::format!(".{arc}"));
        }
        arc = 0;
    }
    text
}

/// The rules of the leaf and its path, whose trust domain the caller has looked at.
pub(crate) fn read_leaf<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<(Certificate<'a>, Leaf), LeafError> {
    let parsed = Certificate::parse(certificate)?;
    let leaf = Leaf::check(&parsed)?;
    Ok((parsed, leaf))
}
