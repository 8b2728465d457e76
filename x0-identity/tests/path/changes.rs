//! Changes of single certificates, and the differences that other verifiers are known for.

use super::forge::{
    ANY_USAGE, CLIENT_AUTH, DIGITAL_SIGNATURE, ECDSA_SHA384, Forge, LEAF_URI, NOW, SERVER_AUTH, extension_of,
    generalized, name, rdn, sequence, tlv, uri,
};
use super::generator::Random;

/// Whose certificates a change applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Leaf,
    Signer,
    /// A leaf or a signer.
    Presented,
    Authority,
}

/// A difference that a peer is known for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Nothing: in both directions.
    pub(crate) peer_accepts: Option<bool>,
    pub(crate) reason: &'static str,
}

pub(crate) const fn accepts(reason: &'static str) -> Option<Known> {
    Some(Known { peer_accepts: Some(true), reason })
}

pub(crate) const fn refuses(reason: &'static str) -> Option<Known> {
    Some(Known { peer_accepts: Some(false), reason })
}

const fn differs(reason: &'static str) -> Option<Known> {
    Some(Known { peer_accepts: None, reason })
}

/// What is special about a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    pub(crate) webpki: Option<Known>,
    pub(crate) openssl: Option<Known>,
}

/// A feature of one certificate, which breaks a rule or varies what it allows.
pub(crate) struct Change {
    pub(crate) feature: Feature,
    pub(crate) whose: Whose,
    pub(crate) apply: fn(&mut Random, Forge) -> Forge,
}

const fn change(name: &'static str, whose: Whose, apply: fn(&mut Random, Forge) -> Forge) -> Change {
    Change { feature: Feature { name, webpki: None, openssl: None }, whose, apply }
}

impl Change {
    const fn webpki(mut self, known: Option<Known>) -> Change {
        self.feature.webpki = known;
        self
    }

    const fn openssl(mut self, known: Option<Known>) -> Change {
        self.feature.openssl = known;
        self
    }
}

const LEFT_OUT: &str = "keeps name, key and name constraints of an anchor, and nothing else";

pub(crate) const CHANGES: &[Change] = &[
    change("validity", Whose::Presented, validity)
        .openssl(refuses("excludes the last second (§4.1.2.5: inclusive)")),
    change("an encoding of time", Whose::Presented, time_encoding),
    change("a signature of another key", Whose::Presented, |random, forge| {
        forge.with(|forge| forge.signer = random.below(10))
    }),
    change("a damaged signature", Whose::Presented, damaged_signature),
    change("the signature algorithm", Whose::Presented, |random, forge| {
        let md5 = sequence(&[&[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4], &[5, 0]]);
        let algorithm = if random.once_in(2) { md5 } else { ECDSA_SHA384.to_vec() };
        let outside_only = random.once_in(2);
        forge.with(|forge| {
            if outside_only { forge.outer_algorithm = Some(algorithm) } else { forge.algorithm = algorithm }
        })
    }),
    change("the name of the issuer", Whose::Presented, |random, forge| {
        let issuer = random.pick(&["nobody", "root", "signer 0", "signer 1"]);
        forge.with(|forge| forge.issuer = name(issuer))
    }),
    change("an unknown extension", Whose::Presented, |random, forge| {
        forge.set(99, random.once_in(2), &[5, 0])
    }),
    change("a private extension", Whose::Presented, |random, forge| {
        // Another one for each, since twice the same is another feature.
        let number = u8::try_from(forge.extensions.len()).unwrap();
        forge.more(extension_of(&[0x2b, 6, 1, 4, 1, 2, number], random.once_in(2), &[5, 0]))
    }),
    change("a key identifier, critical or not", Whose::Presented, |random, forge| {
        let critical = random.once_in(2);
        if random.once_in(2) {
            forge.set(14, critical, &tlv(4, &[1, 2, 3]))
        } else {
            forge.set(35, critical, &sequence(&[&tlv(0x80, &[1, 2, 3])]))
        }
    })
    .openssl(accepts("processes key identifiers (§4.2.1.1: MUST be not critical)")),
    change("a known extension twice", Whose::Presented, |random, forge| {
        let read = forge.extensions.iter().filter(|(number, _)| matches!(number, 15 | 17 | 19 | 30 | 37));
        let read: Vec<&Vec<u8>> = read.map(|(_, whole)| whole).collect();
        let again = random.pick(&read).clone();
        forge.more(again)
    }),
    change("an unknown extension twice", Whose::Presented, |_, forge| {
        let unknown = extension_of(&[0x2b, 6, 1, 4, 1, 1], false, &[5, 0]);
        forge.more(unknown.clone()).more(unknown)
    })
    .webpki(accepts("looks for duplicates among known extensions only"))
    .openssl(accepts("looks for duplicates among known extensions only")),
    change("the version", Whose::Presented, |random, forge| {
        let version = random.pick(&[&[][..], &[0xa0, 3, 2, 1, 0], &[0xa0, 3, 2, 1, 1], &[0xa0, 3, 2, 1, 3]]);
        forge.with(|forge| forge.version = version.to_vec())
    })
    .openssl(accepts("accepts extensions in any version (§4.1.2.1: MUST be 3)")),
    change("the serial number", Whose::Presented, |random, forge| {
        let serial = random.pick(&[&[0][..], &[0x7f; 20], &[0x80], &[1; 9]]);
        forge.with(|forge| forge.serial = tlv(2, serial))
    }),
    change("unique identifiers", Whose::Presented, |_, forge| {
        forge.with(|forge| forge.unique = [tlv(0x81, &[0, 1]), tlv(0x82, &[0, 1])].concat())
    })
    .webpki(refuses("refuses unique identifiers (§4.1.2.8: should be able to parse)")),
    change("a field that there is not", Whose::Presented, |_, forge| {
        forge.with(|forge| forge.unique = tlv(0x84, &[0]))
    }),
    change("purposes", Whose::Presented, |random, forge| {
        let purposes: &[&[u8]] = match random.below(6) {
            0 => &[SERVER_AUTH],
            1 => &[CLIENT_AUTH],
            2 => &[CLIENT_AUTH, SERVER_AUTH],
            3 => &[SERVER_AUTH, CLIENT_AUTH, ANY_USAGE],
            4 => &[&[6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 3]],
            _ => return forge.without(37),
        };
        forge.set(37, random.once_in(2), &sequence(purposes))
    }),
    change("no purpose", Whose::Presented, |_, forge| forge.set(37, false, &sequence(&[]))),
    change("any purpose", Whose::Signer, |_, forge| forge.set(37, false, &sequence(&[ANY_USAGE])))
        .webpki(refuses("does not know anyExtendedKeyUsage (§4.2.1.12)"))
        .openssl(refuses("does not take anyExtendedKeyUsage for TLS (§4.2.1.12: MAY reject)")),
    change("a critical policy", Whose::Presented, |random, forge| {
        let policy = random.pick(&[&[6, 3, 0x55, 4, 1][..], &[6, 3, 0x55, 4, 2]]);
        forge.set(32, true, &sequence(&[&sequence(&[policy])]))
    })
    .webpki(refuses("refuses critical policies, which it does not process")),
    change("a policy", Whose::Presented, |_, forge| {
        forge.set(32, false, &sequence(&[&sequence(&[&[6, 3, 0x55, 4, 1]])]))
    }),
    change("basic constraints of a leaf", Whose::Leaf, |random, forge| {
        let constraints: &[&[u8]] = match random.below(4) {
            0 => &[],
            1 => &[&[1, 1, 0]],
            2 => &[&[1, 1, 0xff]],
            _ => &[&[1, 1, 0xff], &[2, 1, 0]],
        };
        forge.set(19, random.once_in(2), &sequence(constraints))
    })
    .openssl(accepts("accepts an authority for a leaf (X509-SVID §4.1: MUST be false)")),
    change("basic constraints of a signer", Whose::Signer, |random, forge| {
        let constraints: &[&[u8]] = match random.below(8) {
            0 => return forge.without(19),
            1 => &[],
            2 => &[&[1, 1, 0]],
            3 => &[&[1, 1, 1]],
            4 => &[&[1, 1, 0xff], &[2, 2, 0, 1]],
            5 => &[&[1, 1, 0xff], &[2, 1, 0xff]],
            6 => &[&[1, 1, 0xff], &[2, 1, 9], &[2, 1, 9]],
            _ => &[&[1, 1, 0xff]],
        };
        forge.set(19, random.once_in(2), &sequence(constraints))
    })
    .openssl(accepts("reads BER")),
    change("a path length", Whose::Signer, |random, forge| {
        forge.path_len(u8::try_from(random.below(4)).unwrap())
    }),
    change("no keyCertSign", Whose::Signer, |random, forge| {
        if random.once_in(2) { forge.without(15) } else { forge.set(15, true, &tlv(3, DIGITAL_SIGNATURE)) }
    })
    .webpki(accepts("reads no key usage"))
    .openssl(accepts("allows every use without the extension (X509-SVID §4.3: MUST be set)")),
    change("a self-issued signer", Whose::Signer, |_, forge| {
        forge.with(|forge| forge.subject = forge.issuer.clone())
    })
    .webpki(refuses("counts self-issued signers (§6.1.4 (l) does not) and constrains them (§6.1.3 (b))"))
    .openssl(refuses("takes the certificate itself for its issuer and does not go back")),
    change("another type of text in the issuer", Whose::Presented, |_, forge| {
        forge.with(|forge| {
            let text = forge.issuer.get(13..).unwrap_or_default().to_vec();
            forge.issuer = tlv(0x30, &rdn(0x13, &text));
        })
    })
    .webpki(refuses("compares names byte by byte (§7.1 does not)")),
    change("name constraints", Whose::Signer, |random, forge| {
        let constraints = constraints(random);
        forge.set(30, true, &constraints)
    }),
    change("name constraints that cannot be read", Whose::Signer, |random, forge| {
        let dns = tlv(0x82, b"org");
        let broken = match random.below(4) {
            0 => tlv(0x30, &tlv(0xa1, &dns)),
            1 => tlv(0x30, &tlv(0xa2, &tlv(0x30, &dns))),
            2 => tlv(0x30, &tlv(0xa1, &tlv(0x30, &tlv(0x87, &[0; 5])))),
            _ => tlv(0x30, &[tlv(0xa1, &tlv(0x30, &dns)), vec![5, 0]].concat()),
        };
        forge.set(30, true, &broken)
    }),
    change("further names of a signer", Whose::Signer, |random, forge| {
        let further = further_names(random);
        forge.set(17, false, &tlv(0x30, &[uri("spiffe://example.org"), further].concat()))
    }),
    change("an encoding of the names", Whose::Leaf, |random, forge| {
        let id = LEAF_URI.as_bytes();
        let names = match random.below(4) {
            0 => tlv(0x30, &tlv(0xa6, &tlv(0x16, id))),
            1 => tlv(0x30, &[&[0x86, 0x81, u8::try_from(id.len()).unwrap()][..], id].concat()),
            2 => [tlv(0x30, &uri(LEAF_URI)), vec![5, 0]].concat(),
            _ => tlv(0x31, &uri(LEAF_URI)),
        };
        forge.set(17, true, &names)
    })
    .webpki(accepts("reads alternative names only under constraints"))
    .openssl(accepts("reads BER, and no names but those it looks for")),
    change("a byte of the signed part", Whose::Presented, |random, forge| {
        let (position, byte) = (random.below(usize::MAX), u8::try_from(random.below(256)).unwrap());
        forge.with(|forge| forge.mutation = Some((position, byte)))
    })
    .webpki(accepts("reads less of a certificate: no key usage, no alternative names without constraints"))
    .openssl(differs("reads BER, and the public key of a leaf, which others leave to the handshake")),
    change("a byte after the certificate", Whose::Presented, |_, forge| {
        forge.with(|forge| forge.trailing = vec![0])
    })
    .openssl(accepts("reads PEM blocks, of which it ignores the rest")),
    change("a path length of an authority", Whose::Authority, |random, forge| {
        forge.path_len(u8::try_from(random.below(4)).unwrap())
    })
    .webpki(accepts(LEFT_OUT)),
    change("the validity of an authority", Whose::Authority, validity)
        .webpki(accepts(LEFT_OUT))
        .openssl(refuses("excludes the last second (§4.1.2.5: inclusive)")),
    change("the purposes of an authority", Whose::Authority, |random, forge| {
        let purposes: &[&[u8]] = if random.once_in(2) { &[SERVER_AUTH] } else { &[CLIENT_AUTH, SERVER_AUTH] };
        forge.set(37, false, &sequence(purposes))
    })
    .webpki(accepts(LEFT_OUT)),
    change("an unknown extension of an authority", Whose::Authority, |random, forge| {
        forge.set(99, random.once_in(2), &[5, 0])
    })
    .webpki(accepts(LEFT_OUT)),
    change("name constraints of an authority", Whose::Authority, |random, forge| {
        let constraints = constraints(random);
        forge.set(30, true, &constraints)
    }),
    change("further names of an authority", Whose::Authority, |random, forge| {
        let further = further_names(random);
        forge.set(17, false, &tlv(0x30, &[uri("spiffe://example.org"), further].concat()))
    }),
];

fn validity(random: &mut Random, forge: Forge) -> Forge {
    let ends = [NOW - 60, NOW - 1, NOW, NOW + 1, NOW + 60, 2_524_607_999, 2_524_608_000, 253_402_300_799];
    let from = ends[random.below(5)];
    forge.valid(from, ends[random.below(ends.len())])
}

fn time_encoding(random: &mut Random, forge: Forge) -> Forge {
    if random.once_in(3) {
        return forge.with(|forge| forge.not_before = generalized(NOW));
    }
    let (tag, text) = [
        (0x17, "3305180333Z"),
        (0x17, "330518033320+0000"),
        (0x17, "331318033320Z"),
        (0x17, "330532033320Z"),
        (0x17, "330518243320Z"),
        (0x18, "20330518033320.5Z"),
        (0x18, "203305180333Z"),
        (0x18, "20330229000000Z"),
        (0x18, "20320229000000Z"),
        (0x04, "330518033320Z"),
    ][random.below(10)];
    forge.with(|forge| forge.not_before = tlv(tag, text.as_bytes()))
}

fn damaged_signature(random: &mut Random, forge: Forge) -> Forge {
    let damage: fn(Vec<u8>) -> Vec<u8> = match random.below(4) {
        0 => |mut signature| {
            let last = signature.len() - 1;
            signature[last] ^= 1;
            signature
        },
        1 => |signature| [signature, vec![0]].concat(),
        2 => |mut signature| {
            signature.pop();
            signature
        },
        _ => |_| Vec::new(),
    };
    forge.with(|forge| forge.signature = damage)
}

const DNS: [&str; 7] =
    ["example.net", "a.example.net", "b.example.net", "example.com", "*.example.net", "net", "A.EXAMPLE.net"];
const ADDRESSES: [&[u8]; 5] = [
    &[10, 0, 0, 1],
    &[10, 1, 0, 1],
    &[192, 168, 0, 1],
    &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    &[0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
];

/// Permitted and excluded subtrees of DNS names and addresses.
pub(crate) fn constraints(random: &mut Random) -> Vec<u8> {
    let mut lists = Vec::new();
    for list in [0xa0, 0xa1] {
        if random.once_in(2) {
            continue;
        }
        let mut bases = Vec::new();
        for _ in 0..=random.below(3) {
            let base = if random.once_in(3) {
                let address = random.pick(&ADDRESSES);
                let prefix = random.below(5) * address.len() * 2;
                let mask = (0..address.len()).map(|byte| match prefix.saturating_sub(byte * 8) {
                    bits @ 0..8 => 0xff_u8.checked_shl(8 - u32::try_from(bits).unwrap()).unwrap_or(0),
                    _ => 0xff,
                });
                tlv(0x87, &address.iter().copied().chain(mask).collect::<Vec<u8>>())
            } else {
                let bases = ["example.net", "a.example.net", ".example.net", "net", "com", "", "EXAMPLE.net"];
                tlv(0x82, random.pick(&bases).as_bytes())
            };
            bases.extend(tlv(0x30, &base));
        }
        lists.extend(tlv(list, &bases));
    }
    if lists.is_empty() { sequence(&[&tlv(0xa1, &tlv(0x30, &tlv(0x82, b"org")))]) } else { tlv(0x30, &lists) }
}

pub(crate) fn further_names(random: &mut Random) -> Vec<u8> {
    let mut names = Vec::new();
    for _ in 0..random.below(3) {
        names.extend(match random.below(9) {
            0..6 => tlv(0x82, random.pick(&DNS).as_bytes()),
            6..8 => tlv(0x87, random.pick(&ADDRESSES)),
            _ => tlv(0x88, &[0x55, 4]),
        });
    }
    names
}
