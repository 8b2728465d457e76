//! Name constraints (RFC 5280 §4.2.1.10, §6.1.3 (b) and (c), §6.1.4 (g)).
//!
//! The permitted subtrees of RFC 5280 §6.1.2 are the intersection of those of every signer. A name lies in an
//! intersection if it lies in each part, so the parts are kept as they are and each is asked.

use std::borrow::Cow;
use std::vec::Vec;

use super::{Budget, PathError};
use crate::x509::der::{Malformed, Reader, SEQUENCE, only, small_integer};
use crate::x509::{
    Certificate, DIRECTORY_NAME, DNS_NAME, GENERAL_NAMES, IP_ADDRESS, RFC822_NAME, URI, attributes, canonical,
};

const PERMITTED: u8 = 0xa0;
const EXCLUDED: u8 = 0xa1;
const MINIMUM: u8 = 0x80;
const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];

/// A name of a certificate: the tag of its `GeneralName` and its content.
type Name<'a> = (u8, &'a [u8]);

/// The reason that a name breaks a constraint.
pub(super) enum Broken {
    /// The name lies outside of what is permitted, inside of what is excluded, or cannot be judged.
    Name,
    /// The extension is not DER.
    Encoding,
    /// Too many comparisons.
    Budget,
}

impl From<Malformed> for Broken {
    fn from(_: Malformed) -> Broken {
        Broken::Encoding
    }
}

/// Checks every name of a certificate against the constraints of one signer above it.
pub(super) fn check(
    constraints: &[u8],
    certificate: &Certificate<'_>,
    budget: &mut Budget,
) -> Result<(), Broken> {
    let mut fields = Reader::new(constraints);
    let permitted = fields.optional(PERMITTED)?;
    let excluded = fields.optional(EXCLUDED)?;
    fields.finish()?;
    // GeneralSubtrees is a sequence of at least one.
    if permitted == Some(&[]) || excluded == Some(&[]) {
        return Err(Broken::Encoding);
    }
    let (permitted, permits_domains) = read_subtrees(permitted.unwrap_or_default(), budget)?;
    let (excluded, excludes_domains) = read_subtrees(excluded.unwrap_or_default(), budget)?;
    let subtrees = Subtrees { permitted, excluded, has_domains: permits_domains & excludes_domains };

    if !certificate.subject.is_empty() {
        check_name((DIRECTORY_NAME, certificate.subject), &subtrees, budget)?;
    }
    match certificate.alternative_names {
        Some((names, _)) => {
            let mut names = Reader::new(names);
            while !names.is_empty() {
                let name = names.element()?;
                let content = match name.tag {
                    DIRECTORY_NAME => only(name.content, SEQUENCE)?,
                    _ => name.content,
                };
                check_name((name.tag, content), &subtrees, budget)?;
            }
        }
        // "When the certificate does not include a subject alternative name, the constraint MUST be applied
        // to the attribute of type emailAddress in the subject distinguished name."
        None => {
            for address in attributes(certificate.subject, EMAIL_ADDRESS) {
                check_name((RFC822_NAME, address), &subtrees, budget)?;
            }
        }
    }
    Ok(())
}

/// The constraints of one signer.
struct Subtrees<'a> {
    permitted: Vec<Base<'a>>,
    excluded: Vec<Base<'a>>,
    /// Whether each base for DNS names is a domain.
    has_domains: bool,
}

/// The base of a subtree.
struct Base<'a> {
    /// The tag of its `GeneralName`.
    form: u8,
    /// The content of the `GeneralName`; the canonical form of a directory name.
    content: Cow<'a, [u8]>,
    /// The position of the last `@` in a base for e-mail addresses.
    at: Option<usize>,
    /// "minimum MUST be zero, and maximum MUST be absent": other values are not processed, and so refuse the
    /// names of this form.
    is_processed: bool,
}

/// The bases of a list, ordered by form so that a name is compared with those of its form only, and whether
/// each base for DNS names is a domain. Each base is a `GeneralName`, also one of a form that constrains
/// nothing here.
fn read_subtrees<'a>(subtrees: &'a [u8], budget: &mut Budget) -> Result<(Vec<Base<'a>>, bool), Broken> {
    let (mut subtrees, mut bases, mut has_domains) = (Reader::new(subtrees), Vec::new(), true);
    while !subtrees.is_empty() {
        budget.compare()?;
        let mut subtree = Reader::new(subtrees.expect(SEQUENCE)?);
        let base = subtree.element()?;
        if !GENERAL_NAMES.contains(&base.tag) {
            return Err(Broken::Encoding);
        }
        if base.tag == DNS_NAME && !base.content.is_empty() {
            has_domains &= is_domain(base.content.strip_prefix(b".").unwrap_or(base.content));
        }
        let content = match base.tag {
            DIRECTORY_NAME => canonical(only(base.content, SEQUENCE)?)?.into(),
            _ => base.content.into(),
        };
        let at = if base.tag == RFC822_NAME { position_of_at(base.content) } else { None };
        let minimum = subtree.optional(MINIMUM)?.map(small_integer).transpose()?;
        let is_processed = minimum.unwrap_or(0) == 0 && subtree.is_empty();
        bases.push(Base { form: base.tag, content, at, is_processed });
    }
    bases.sort_by_key(|base| base.form);
    Ok((bases, has_domains))
}

/// The bases of a form.
fn of_form<'a, 'b>(bases: &'b [Base<'a>], form: u8) -> &'b [Base<'a>] {
    let begin = bases.partition_point(|base| base.form < form);
    let end = bases.partition_point(|base| base.form <= form);
    &bases[begin..end]
}

fn check_name((form, name): Name<'_>, of: &Subtrees<'_>, budget: &mut Budget) -> Result<(), Broken> {
    let (permitted, excluded) = (of_form(&of.permitted, form), of_form(&of.excluded, form));
    if permitted.is_empty() && excluded.is_empty() {
        return Ok(());
    }
    if form == DNS_NAME {
        if !of.has_domains {
            return Err(Broken::Encoding);
        }
        // A text that is no domain name lies in no domain, and another reader may see one in it.
        if !is_domain(name.strip_prefix(b"*.").unwrap_or(name)) {
            return Err(Broken::Name);
        }
    }
    // What takes time in proportion to the length of the name is done once, not for each base.
    let mut at = 0;
    let name = match form {
        DIRECTORY_NAME => Cow::from(canonical(name)?),
        URI => Cow::from(uri_host(name).ok_or(Broken::Name)?),
        RFC822_NAME => {
            at = position_of_at(name).ok_or(Broken::Name)?;
            if at == 0 || at + 1 == name.len() {
                return Err(Broken::Name);
            }
            Cow::from(name)
        }
        _ => Cow::from(name),
    };
    let mut inside = permitted.is_empty();
    for base in permitted {
        budget.compare()?;
        inside |= base.matches(&name, at, Subtree::Permitted)?;
    }
    if !inside {
        return Err(Broken::Name);
    }
    for base in excluded {
        budget.compare()?;
        if base.matches(&name, at, Subtree::Excluded)? {
            return Err(Broken::Name);
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subtree {
    Permitted,
    Excluded,
}

impl Base<'_> {
    /// Whether the base covers a name: the canonical form of a directory name, the host of a URI, an e-mail
    /// address with its `@` at a position.
    fn matches(&self, name: &[u8], at: usize, subtree: Subtree) -> Result<bool, Broken> {
        if !self.is_processed {
            return Err(Broken::Name);
        }
        let base: &[u8] = &self.content;
        match self.form {
            DIRECTORY_NAME => Ok(name.starts_with(base)),
            DNS_NAME => Ok(dns_matches(name, base, subtree)),
            URI => Ok(host_matches(name, base)),
            // A mailbox, all mailboxes of a host, or all of the hosts below a domain. §7.5: the local part
            // has case, the host has none.
            RFC822_NAME => Ok(match self.at {
                Some(base_at) => {
                    name[..at] == base[..base_at] && name[at + 1..].eq_ignore_ascii_case(&base[base_at + 1..])
                }
                None => base.is_empty() || host_matches(&name[at + 1..], base),
            }),
            IP_ADDRESS => ip_matches(name, base),
            // "MUST either process the constraint or reject the certificate."
            _ => Err(Broken::Name),
        }
    }
}

fn ends_with(name: &[u8], end: &[u8]) -> bool {
    name.len() >= end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end)
}

/// The "preferred name syntax" that RFC 5280 §4.2.1.6 demands (RFC 1034 §3.5, RFC 1123 §2.1), with
/// underscores, which names of services have. A last label of digits is that of an address.
fn is_domain(name: &[u8]) -> bool {
    let is_label = |label: &[u8]| {
        matches!(label.len(), 1..=63)
            && label[0] != b'-'
            && label[label.len() - 1] != b'-'
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let mut labels = name.rsplit(|byte| *byte == b'.');
    let is_number = labels.next().is_some_and(|last| last.iter().all(u8::is_ascii_digit));
    name.len() <= 253 && !is_number && name.split(|byte| *byte == b'.').all(is_label)
}

/// "Any DNS name that can be constructed by simply adding zero or more labels to the left-hand side of the
/// name satisfies the name constraint." A leading dot demands at least one label, as OpenSSL, Go and webpki
/// read it.
fn within_domain(name: &[u8], base: &[u8]) -> bool {
    if base.is_empty() || name.eq_ignore_ascii_case(base) {
        return true;
    }
    let boundary = base[0] == b'.' || name.len() > base.len() && name[name.len() - base.len() - 1] == b'.';
    boundary && name.len() > base.len() && ends_with(name, base)
}

/// A wildcard stands for every name of one more label: it is permitted if all of them are, and excluded if
/// one of them is.
fn dns_matches(name: &[u8], base: &[u8], subtree: Subtree) -> bool {
    match name.strip_prefix(b"*.") {
        Some(parent) if subtree == Subtree::Excluded => {
            let base_parent = base.iter().position(|byte| *byte == b'.').map(|dot| &base[dot + 1..]);
            within_domain(parent, base) || base_parent.is_some_and(|base| parent.eq_ignore_ascii_case(base))
        }
        Some(parent) => within_domain(parent, base.strip_prefix(b".").unwrap_or(base)),
        None => within_domain(name, base),
    }
}

/// "The constraint MUST be specified as a fully qualified domain name and MAY specify a host or a domain":
/// with a leading dot it covers the hosts below a domain, without one a single host.
fn host_matches(host: &[u8], base: &[u8]) -> bool {
    if base.first() == Some(&b'.') {
        host.len() > base.len() && ends_with(host, base)
    } else {
        host.eq_ignore_ascii_case(base)
    }
}

/// The host of a URI, `None` if it has none that is a domain name: "the application MUST reject the
/// certificate".
fn uri_host(uri: &[u8]) -> Option<&[u8]> {
    let uri = core::str::from_utf8(uri).ok()?;
    let (scheme, rest) = uri.split_once("://")?;
    if scheme.contains(['/', '?', '#']) {
        return None;
    }
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.starts_with('[') {
        return None;
    }
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    let address = host.parse::<std::net::Ipv4Addr>().is_ok();
    (!host.is_empty() && !address).then_some(host.as_bytes())
}

fn position_of_at(text: &[u8]) -> Option<usize> {
    text.iter().rposition(|byte| *byte == b'@')
}

/// An address and a mask of the same length, "in the style of RFC 4632 (CIDR)": the mask is contiguous.
fn ip_matches(address: &[u8], base: &[u8]) -> Result<bool, Broken> {
    if !matches!(base.len(), 8 | 32) {
        return Err(Broken::Encoding);
    }
    let (network, mask) = base.split_at(base.len() / 2);
    let ones = mask.iter().map(|byte| byte.leading_ones()).take_while(|ones| *ones == 8).count();
    let contiguous = mask.get(ones).is_none_or(|byte| byte.leading_ones() + byte.trailing_zeros() == 8)
        && mask.iter().skip(ones + 1).all(|byte| *byte == 0);
    if !contiguous {
        return Err(Broken::Encoding);
    }
    let mut bytes = address.iter().zip(network).zip(mask);
    Ok(address.len() == network.len()
        && bytes.all(|((address, network), mask)| (address ^ network) & mask == 0))
}

impl Broken {
    /// The error for a certificate under the constraints of a signer.
    pub(super) fn error(&self, at: super::CertificateAt, signer: super::CertificateAt) -> PathError {
        match self {
            Broken::Name => PathError::NameConstraints { at, signer },
            Broken::Encoding => PathError::NameConstraintsEncoding { signer },
            Broken::Budget => PathError::Comparisons,
        }
    }
}
