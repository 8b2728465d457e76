//! Chains of which each keeps every rule, or breaks one.

use pki_types::CertificateDer;

use super::forge::{
    ANY_USAGE, CLIENT_AUTH, DIGITAL_SIGNATURE, ECDSA_SHA384, ED25519, Forge, KEY_CERT_SIGN, LEAF_URI, NOW,
    P384, RSA_SHA256, RSA_SHA384, RSA_SHA512, SERVER_AUTH, algorithm_of, extension, extension_of,
    generalized, moment, name, rdn, sequence, tlv, uri,
};

/// A chain, a bundle, a moment, and what a verifier says of them.
pub(crate) struct Vector {
    pub(crate) name: String,
    /// The section that states the rule.
    pub(crate) section: &'static str,
    /// The leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) bundle: Vec<CertificateDer<'static>>,
    pub(crate) now: i64,
    pub(crate) accept: bool,
}

struct Table {
    vectors: Vec<Vector>,
    section: &'static str,
    root: Forge,
    signer: Forge,
}

impl Table {
    fn push(&mut self, name: impl Into<String>, chain: &[&Forge], bundle: &[&Forge], now: i64, accept: bool) {
        let build = |forges: &[&Forge]| forges.iter().map(|forge| forge.build()).collect();
        self.vectors.push(Vector {
            name: name.into(),
            section: self.section,
            chain: build(chain),
            bundle: build(bundle),
            now,
            accept,
        });
    }

    /// A leaf that the root signs.
    fn leaf(&mut self, name: impl Into<String>, accept: bool, change: impl FnOnce(Forge) -> Forge) {
        let root = self.root.clone();
        self.push(name, &[&change(Forge::leaf(&root))], &[&root], NOW, accept);
    }

    /// A signer between an ordinary leaf and the root.
    fn signer(&mut self, name: impl Into<String>, accept: bool, change: impl FnOnce(Forge) -> Forge) {
        let root = self.root.clone();
        let signer = change(self.signer.clone());
        self.push(name, &[&Forge::leaf(&signer), &signer], &[&root], NOW, accept);
    }

    /// Constraints of a signer, and a leaf with a further name under them.
    fn constrained(&mut self, name: impl Into<String>, accept: bool, constraints: &[u8], further: &[u8]) {
        let root = self.root.clone();
        let signer = self.signer.clone().set(30, true, constraints);
        let leaf = Forge::leaf(&signer).names(&[&uri(LEAF_URI), further]);
        self.push(name, &[&leaf, &signer], &[&root], NOW, accept);
    }
}

fn permitted(bases: &[&[u8]]) -> Vec<u8> {
    sequence(&[&tlv(0xa0, &bases.iter().flat_map(|base| tlv(0x30, base)).collect::<Vec<u8>>())])
}

fn excluded(bases: &[&[u8]]) -> Vec<u8> {
    sequence(&[&tlv(0xa1, &bases.iter().flat_map(|base| tlv(0x30, base)).collect::<Vec<u8>>())])
}

pub(crate) fn vectors() -> Vec<Vector> {
    let root = Forge::root("root", 1);
    let signer = Forge::signer("signer", 2, &root);
    let mut table = Table { vectors: Vec::new(), section: "", root, signer };
    ordinary(&mut table);
    spiffe_ids(&mut table);
    leaf_rules(&mut table);
    signer_rules(&mut table);
    validity(&mut table);
    path_len(&mut table);
    names(&mut table);
    name_constraints(&mut table);
    name_constraint_encodings(&mut table);
    domain_syntax(&mut table);
    policies(&mut table);
    extensions(&mut table);
    encodings(&mut table);
    signatures(&mut table);
    key_algorithms(&mut table);
    costly(&mut table);
    table.vectors
}

fn ordinary(table: &mut Table) {
    table.section = "RFC 5280 §6.1";
    table.leaf("a leaf of the root", true, |leaf| leaf);
    table.signer("a leaf of a signer", true, |signer| signer);
    let root = table.root.clone();
    let signers: Vec<Forge> = (0..7).fold(Vec::new(), |mut signers, index| {
        let issuer = signers.last().unwrap_or(&root).clone();
        signers.push(Forge::signer(&format!("signer {index}"), 2 + index, &issuer));
        signers
    });
    for len in 1..=7 {
        let leaf = Forge::leaf(&signers[len - 1]);
        let chain: Vec<&Forge> = [&leaf].into_iter().chain(signers[..len].iter().rev()).collect();
        table.push(format!("{len} signers in order"), &chain, &[&root], NOW, true);
        let chain: Vec<&Forge> = [&leaf].into_iter().chain(&signers[..len]).collect();
        table.push(format!("{len} signers, the highest first"), &chain, &[&root], NOW, true);
        if len > 1 {
            let chain: Vec<&Forge> = [&leaf].into_iter().chain(signers[1..len].iter().rev()).collect();
            table.push(format!("the highest of {len} signers is missing"), &chain, &[&root], NOW, false);
        }
    }
    let leaf = Forge::leaf(&root);
    table.push("the root is presented as well", &[&leaf, &root], &[&root], NOW, true);
    let stranger = Forge::root("stranger", 9);
    table.push("a stranger is presented as well", &[&leaf, &stranger], &[&root], NOW, true);
    table.push("of two authorities the second", &[&leaf], &[&stranger, &root], NOW, true);
    table.push("another authority", &[&leaf], &[&stranger], NOW, false);
    table.push("another authority, the root presented", &[&leaf, &root], &[&stranger], NOW, false);
    table.push("no authority", &[&leaf], &[], NOW, false);
    let same_name = Forge::root("root", 9);
    table.push("another key of the same name", &[&leaf], &[&same_name], NOW, false);
    table.push("two keys of the same name", &[&leaf], &[&same_name, &root], NOW, true);
    let cross = Forge::signer("root", 1, &stranger);
    table.push("a cross certificate", &[&leaf, &cross], &[&stranger], NOW, true);
    let self_issued = Forge::signer("root", 2, &root);
    table.push("a self-issued signer", &[&Forge::leaf(&self_issued), &self_issued], &[&root], NOW, true);
}

fn spiffe_ids(table: &mut Table) {
    table.section = "X509-SVID §2, SPIFFE-ID §2";
    for id in [
        "spiffe://example.org/a",
        "spiffe://example.org/a/b/c",
        "spiffe://example.org/A.b-c_9",
        "spiffe://example.org/...",
        "spiffe://example.org/.a",
    ] {
        table.leaf(format!("the ID {id}"), true, |leaf| leaf.names(&[&uri(id)]));
    }
    for id in [
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org//a",
        "spiffe://example.org/a/",
        "spiffe://example.org/a//b",
        "spiffe://example.org/./a",
        "spiffe://example.org/a/..",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/%61",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a#b",
        "spiffe://example.org/a b",
        "spiffe://example.org/a:b",
        "spiffe://example.org/a@b",
        "spiffe://example.org/a+b",
        "spiffe://example.org/\u{e9}",
        "spiffe://example.org/a\0b",
        "spiffe://Example.org/a",
        "spiffe://example.org:443/a",
        "spiffe://user@example.org/a",
        "spiffe://user:word@example.org/a",
        "spiffe://[::1]/a",
        "spiffe:///a",
        "spiffe://",
        "spiffe:/example.org/a",
        "spiffe:example.org/a",
        "SPIFFE://example.org/a",
        "https://example.org/a",
        "urn:uuid:0",
        "//example.org/a",
        "/a",
        "",
        " spiffe://example.org/a",
        "spiffe://example.org/a ",
        "spiffe://example.com/a",
        "spiffe://sub.example.org/a",
        "spiffe://example.org./a",
    ] {
        table.leaf(format!("the ID {id:?}"), false, |leaf| leaf.names(&[&uri(id)]));
    }
    for len in [2048, 2049] {
        let id = format!("spiffe://example.org/{}", "a".repeat(len - 21));
        table.leaf(format!("an ID of {len} bytes"), len == 2048, |leaf| leaf.names(&[&uri(&id)]));
    }
    let id = uri(LEAF_URI);
    for (name, names) in [
        ("a DNS name and no URI", vec![tlv(0x82, b"example.org")]),
        ("the ID twice", vec![id.clone(), id.clone()]),
        ("two IDs", vec![id.clone(), uri("spiffe://example.org/other")]),
        ("an ID and a URL", vec![id.clone(), uri("https://example.org")]),
        ("a URL and an ID", vec![uri("https://example.org"), id.clone()]),
        ("an ID and an empty URI", vec![id.clone(), uri("")]),
        ("an ID and bytes", vec![id.clone(), tlv(0x86, &[0xff, 0xfe])]),
        ("bytes", vec![tlv(0x86, &[0xff, 0xfe])]),
    ] {
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        table.leaf(name, false, |leaf| leaf.names(&names));
    }
    for (name, further) in [
        ("a DNS name", tlv(0x82, b"example.org")),
        ("an e-mail address", tlv(0x81, b"a@example.org")),
        ("an IPv4 address", tlv(0x87, &[127, 0, 0, 1])),
        ("an IPv6 address", tlv(0x87, &[0; 16])),
        ("a directory name", tlv(0xa4, &name("a"))),
        ("a registered ID", tlv(0x88, &[0x55, 4])),
        ("another name", tlv(0xa0, &[&[6, 3, 0x55, 4, 3][..], &tlv(0xa0, &tlv(0x0c, b"a"))].concat())),
    ] {
        table.leaf(format!("an ID and {name}"), true, |leaf| leaf.names(&[&id, &further]));
    }
    table.leaf("no alternative name", false, |leaf| leaf.without(17));
}

fn leaf_rules(table: &mut Table) {
    table.section = "X509-SVID §3.1, RFC 5280 §4.1.2.6";
    let names = sequence(&[&uri(LEAF_URI)]);
    table.leaf("no subject, names not critical", false, |leaf| leaf.set(17, false, &names));
    table.leaf("a subject, names not critical", true, |leaf| {
        leaf.set(17, false, &names).with(|leaf| leaf.subject = name("leaf"))
    });
    table.section = "X509-SVID §4.1";
    table.leaf("cA is TRUE", false, |leaf| leaf.set(19, true, &sequence(&[&[1, 1, 0xff]])));
    table.leaf("empty basic constraints", true, |leaf| leaf.set(19, true, &sequence(&[])));
    table.leaf("cA is FALSE, written out", true, |leaf| leaf.set(19, true, &sequence(&[&[1, 1, 0]])));
    table.section = "X509-SVID §4.3";
    table.leaf("no key usage", false, |leaf| leaf.without(15));
    table.leaf("key usage not critical", false, |leaf| leaf.set(15, false, &tlv(3, DIGITAL_SIGNATURE)));
    for bit in 0..9_u32 {
        let bits = 0x8000_u16 >> bit;
        let one: Vec<u8> = if bit == 8 {
            vec![7, 0, 0x80]
        } else {
            vec![7 - u8::try_from(bit).unwrap(), bits.to_be_bytes()[0]]
        };
        table.leaf(format!("key usage bit {bit} alone"), bit == 0, |leaf| leaf.set(15, true, &tlv(3, &one)));
        if bit > 0 {
            let first = 0x80 | bits.to_be_bytes()[0];
            let both =
                if bit == 8 { vec![7, first, 0x80] } else { vec![7 - u8::try_from(bit).unwrap(), first] };
            let accept = bit != 5 && bit != 6;
            table.leaf(format!("key usage bits 0 and {bit}"), accept, |leaf| {
                leaf.set(15, true, &tlv(3, &both))
            });
        }
    }
    table.leaf("key usage without bits", false, |leaf| leaf.set(15, true, &tlv(3, &[0])));
    table.section = "X509-SVID §4.4";
    table.leaf("no extended key usage", true, |leaf| leaf.without(37));
    for (name, purposes, accept) in [
        ("server", vec![SERVER_AUTH], false),
        ("client", vec![CLIENT_AUTH], false),
        ("any", vec![ANY_USAGE], false),
        ("server and any", vec![SERVER_AUTH, ANY_USAGE], false),
        ("client, any and server", vec![CLIENT_AUTH, ANY_USAGE, SERVER_AUTH], true),
        ("client, server and client again", vec![CLIENT_AUTH, SERVER_AUTH, CLIENT_AUTH], true),
    ] {
        for critical in [false, true] {
            let purposes = sequence(&purposes);
            table.leaf(format!("extended key usage {name}, critical {critical}"), accept, |leaf| {
                leaf.set(37, critical, &purposes)
            });
        }
    }
}

fn signer_rules(table: &mut Table) {
    table.section = "X509-SVID §3.2, §4.1, RFC 5280 §6.1.4 (k)";
    table.signer("a signer without basic constraints", false, |signer| signer.without(19));
    table.signer("a signer with cA FALSE", false, |signer| signer.set(19, true, &sequence(&[])));
    table.signer("basic constraints not critical", true, |signer| {
        signer.set(19, false, &sequence(&[&[1, 1, 0xff]]))
    });
    for (id, accept) in [
        ("spiffe://example.org", true),
        ("spiffe://example.com", true),
        ("https://example.org/ca", true),
        ("spiffe://example.org/", false),
        ("spiffe://example.org/ca", false),
        ("SPIFFE://example.org", false),
        ("spiffe://Example.org", false),
        ("spiffe:", false),
    ] {
        table.signer(format!("a signer named {id}"), accept, |signer| signer.names(&[&uri(id)]));
    }
    table.signer("a signer without a name", true, |signer| signer.without(17));
    table.signer("a signer with an ID and a URL", false, |signer| {
        signer.names(&[&uri("spiffe://example.org"), &uri("https://example.org")])
    });
    table.signer("a signer with two URLs", true, |signer| {
        signer.names(&[&uri("https://example.com"), &uri("https://example.org")])
    });
    table.section = "X509-SVID §4.3, RFC 5280 §6.1.4 (n)";
    table.signer("a signer without key usage", false, |signer| signer.without(15));
    table.signer("a signer with an ID, key usage not critical", false, |signer| {
        signer.set(15, false, &tlv(3, KEY_CERT_SIGN))
    });
    table.signer("a signer without an ID, key usage not critical", true, |signer| {
        signer.without(17).set(15, false, &tlv(3, KEY_CERT_SIGN))
    });
    table.signer("a signer that signs lists too", true, |signer| signer.set(15, true, &tlv(3, &[1, 6])));
    for (name, bits) in [
        ("digitalSignature", &[7, 0x80][..]),
        ("cRLSign", &[1, 2]),
        ("no bit", &[0]),
        ("decipherOnly", &[7, 0, 0x80]),
    ] {
        table.signer(format!("a signer with {name}"), false, |signer| signer.set(15, true, &tlv(3, bits)));
    }
    table.section = "X509-SVID §4.4";
    for (name, purposes, accept) in [
        ("both", vec![SERVER_AUTH, CLIENT_AUTH], true),
        ("any", vec![ANY_USAGE], true),
        ("server", vec![SERVER_AUTH], false),
        ("client", vec![CLIENT_AUTH], false),
        ("code signing", vec![&[6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 3][..]], false),
    ] {
        let purposes = sequence(&purposes);
        table.signer(format!("a signer for {name}"), accept, |signer| signer.set(37, false, &purposes));
        let root = table.root.clone().set(37, false, &purposes);
        table.push(format!("an authority for {name}"), &[&Forge::leaf(&root)], &[&root], NOW, accept);
    }
}

fn validity(table: &mut Table) {
    table.section = "RFC 5280 §4.1.2.5, §6.1.3 (a) (2)";
    for (name, from, to, accept) in [
        ("from this second", NOW, NOW + 60, true),
        ("from the next second", NOW + 1, NOW + 60, false),
        ("to this second", NOW - 60, NOW, true),
        ("to the last second", NOW - 60, NOW - 1, false),
        ("this second alone", NOW, NOW, true),
        ("backwards", NOW + 60, NOW - 60, false),
        ("1950 to 2049", -631_152_000, 2_524_607_999, true),
        ("to 2050", NOW, 2_524_608_000, true),
        ("to 9999", NOW, 253_402_300_799, true),
    ] {
        table.leaf(format!("a leaf valid {name}"), accept, |leaf| leaf.valid(from, to));
        table.signer(format!("a signer valid {name}"), accept, |signer| signer.valid(from, to));
        let root = table.root.clone().valid(from, to);
        table.push(format!("an authority valid {name}"), &[&Forge::leaf(&root)], &[&root], NOW, accept);
    }
    table.leaf("GeneralizedTime before 2050", true, |leaf| {
        leaf.with(|leaf| (leaf.not_before, leaf.not_after) = (generalized(NOW), generalized(NOW + 60)))
    });
    for text in [
        "3305180333Z",
        "330518033320+0000",
        "330518033320",
        "331318033320Z",
        "330532033320Z",
        "330518243320Z",
    ] {
        let end = tlv(0x17, text.as_bytes());
        table.leaf(format!("UTCTime {text}"), false, |leaf| leaf.with(|leaf| leaf.not_before = end));
    }
    for text in ["20330518033320.5Z", "203305180333Z", "20330518033320", "20330518033320+0100"] {
        let end = tlv(0x18, text.as_bytes());
        table.leaf(format!("GeneralizedTime {text}"), false, |leaf| leaf.with(|leaf| leaf.not_before = end));
    }
}

fn path_len(table: &mut Table) {
    table.section = "RFC 5280 §4.2.1.9, §6.1.4 (l) and (m)";
    for below in 0..=3_usize {
        for limit in 0..=3_u8 {
            let accept = below <= usize::from(limit);
            // The authority limits, or the first of one more signers.
            for by_authority in [true, false] {
                let root = table.root.clone();
                let limiting = if by_authority {
                    root.clone().path_len(limit)
                } else {
                    Forge::signer("limiting", 9, &root).path_len(limit)
                };
                let mut signers = vec![];
                for index in 0..below {
                    let issuer = signers.last().unwrap_or(&limiting).clone();
                    signers.push(Forge::signer(&format!("signer {index}"), 2 + index, &issuer));
                }
                let leaf = Forge::leaf(signers.last().unwrap_or(&limiting));
                let mut chain: Vec<&Forge> = [&leaf].into_iter().chain(signers.iter().rev()).collect();
                let bundle = if by_authority {
                    &limiting
                } else {
                    chain.push(&limiting);
                    &root
                };
                let by = if by_authority { "an authority" } else { "a signer" };
                let name = format!("{below} signers below {by} that allows {limit}");
                table.push(name, &chain, &[bundle], NOW, accept);
            }
        }
    }
    let root = table.root.clone();
    let limiting = Forge::signer("limiting", 2, &root).path_len(0);
    let again = Forge::signer("limiting", 3, &limiting);
    let chain = [&Forge::leaf(&again), &again, &limiting];
    table.push("a self-issued signer is not counted", &chain, &[&root], NOW, true);
    let below = Forge::signer("below", 4, &again);
    let chain = [&Forge::leaf(&below), &below, &again, &limiting];
    table.push("the limit lasts below a self-issued signer", &chain, &[&root], NOW, false);
    let limiting = Forge::signer("limiting", 2, &root).path_len(0);
    let raising = Forge::signer("raising", 3, &limiting).path_len(9);
    let chain = [&Forge::leaf(&raising), &raising, &limiting];
    table.push("a signer does not raise the limit", &chain, &[&root], NOW, false);
    table.leaf("a leaf with a path length", true, |leaf| leaf.set(19, true, &sequence(&[&[2, 1, 0]])));
    for (name, value) in
        [("negative", &[2, 1, 0xff][..]), ("with a superfluous zero", &[2, 2, 0, 1]), ("empty", &[2, 0])]
    {
        table.signer(format!("a path length that is {name}"), false, |signer| {
            signer.set(19, true, &sequence(&[&[1, 1, 0xff], value]))
        });
    }
    table.signer("a path length of 2^40", true, |signer| {
        signer.set(19, true, &sequence(&[&[1, 1, 0xff], &[2, 6, 1, 0, 0, 0, 0, 0]]))
    });
}

/// Whether issuer and subject are the same name.
fn names(table: &mut Table) {
    table.section = "RFC 5280 §6.1.3 (a) (4), §7.1";
    for (issuer, accept) in [
        (tlv(0x30, &rdn(0x0c, b"root")), true),
        (tlv(0x30, &rdn(0x13, b"root")), true),
        (tlv(0x30, &rdn(0x0c, b"ROOT")), true),
        (tlv(0x30, &rdn(0x0c, b" root ")), true),
        (tlv(0x30, &rdn(0x0c, b"ro ot")), false),
        (tlv(0x30, &rdn(0x0c, b"roo")), false),
        (tlv(0x30, &rdn(0x1e, b"\0r\0o\0o\0t")), false),
        (tlv(0x30, &[rdn(0x0c, b"root"), rdn(0x0c, b"root")].concat()), false),
        (tlv(0x30, &[]), false),
    ] {
        table.leaf(format!("the issuer {issuer:?}"), accept, |leaf| leaf.with(|leaf| leaf.issuer = issuer));
    }
    table.section = "RFC 5280 §4.1.2.4";
    for (name, subject) in [
        ("of an empty set", tlv(0x30, &tlv(0x31, &[]))),
        (
            "of a sequence for a set",
            tlv(0x30, &tlv(0x30, &sequence(&[&[6, 3, 0x55, 4, 3], &tlv(0x0c, b"a")]))),
        ),
        ("without a value", tlv(0x30, &tlv(0x31, &sequence(&[&[6, 3, 0x55, 4, 3]])))),
        ("without a type", tlv(0x30, &tlv(0x31, &sequence(&[&tlv(0x0c, b"a")])))),
    ] {
        table.leaf(format!("a subject {name}"), false, |leaf| leaf.with(|leaf| leaf.subject = subject));
    }
    table.section = "X.690 §11.6";
    let attribute = |text: &[u8]| sequence(&[&[6, 3, 0x55, 4, 3], &tlv(0x0c, text)]);
    for (order, texts, accept) in [
        ("ascending", [&b"a"[..], b"b"], true),
        ("descending", [b"b", b"a"], false),
        ("the longer before the shorter", [b"aa", b"b"], false),
        ("the shorter before the longer", [b"b", b"aa"], true),
    ] {
        let of = |texts: [&[u8]; 2]| tlv(0x30, &tlv(0x31, &texts.map(attribute).concat()));
        table.leaf(format!("attributes of the subject: {order}"), accept, |leaf| {
            leaf.with(|leaf| leaf.subject = of(texts))
        });
        table.leaf(format!("attributes of a directory name: {order}"), accept, |leaf| {
            leaf.names(&[&uri(LEAF_URI), &tlv(0xa4, &of(texts))])
        });
        let root = table.root.clone();
        let signer = table.signer.clone().with(|signer| signer.subject = of(texts));
        let chain = [&Forge::leaf(&signer), &signer];
        table.push(format!("attributes of the issuer: {order}"), &chain, &[&root], NOW, accept);
    }
    // One order of the canonical texts, and two of the encodings.
    let of = |texts: [&[u8]; 2]| tlv(0x30, &tlv(0x31, &texts.map(attribute).concat()));
    let root = table.root.clone();
    let signer = table.signer.clone().with(|signer| signer.subject = of([b"B", b"a"]));
    let leaf = Forge::leaf(&signer).with(|leaf| leaf.issuer = of([b"A", b"b"]));
    table.section = "RFC 5280 §6.1.3 (a) (4), §7.1";
    table.push("the issuer in another order", &[&leaf, &signer], &[&root], NOW, true);
    let leaf = Forge::leaf(&signer).with(|leaf| leaf.issuer = of([b"b", b"b"]));
    table.push("the issuer with one attribute twice", &[&leaf, &signer], &[&root], NOW, false);
    table.section = "RFC 5280 §4.1.2.4, §4.1.2.6, no name";
    let nameless = Forge::root("", 1);
    table.push("an authority without a subject", &[&Forge::leaf(&nameless)], &[&nameless], NOW, false);
    let signer = Forge::signer("", 2, &root);
    table.push("a signer without a subject", &[&Forge::leaf(&signer), &signer], &[&root], NOW, false);
    table.leaf("a leaf without an issuer", false, |leaf| leaf.with(|leaf| leaf.issuer = tlv(0x30, &[])));
}

fn name_constraints(table: &mut Table) {
    const DNS: u8 = 0x82;
    const EMAIL: u8 = 0x81;
    const URI: u8 = 0x86;
    const IP: u8 = 0x87;
    table.section = "X509-SVID §4.2, RFC 5280 §4.2.1.10";
    // Form, name, base, whether the name lies inside; a name that cannot be judged lies neither inside nor
    // outside.
    let cases: &[(u8, &str, &str, Option<bool>)] = &[
        (URI, "https://example.net/a", "example.net", Some(true)),
        (URI, "https://example.net:443/a", "example.net", Some(true)),
        (URI, "https://user@example.net", "example.net", Some(true)),
        (URI, "https://example.net?a", "example.net", Some(true)),
        (URI, "https://a.example.net", "example.net", Some(false)),
        (URI, "https://a.example.net", ".example.net", Some(true)),
        (URI, "https://a.b.example.net", ".example.net", Some(true)),
        (URI, "https://example.net", ".example.net", Some(false)),
        (URI, "https://EXAMPLE.net", "example.NET", Some(true)),
        (URI, "https://notexample.net", "example.net", Some(false)),
        (URI, "https://127.0.0.1/", "example.net", None),
        (URI, "https://[::1]/", "example.net", None),
        (URI, "urn:uuid:0", "example.net", None),
        (URI, "https:///a", "example.net", None),
        (DNS, "example.net", "example.net", Some(true)),
        (DNS, "a.example.net", "example.net", Some(true)),
        (DNS, "A.EXAMPLE.net", "example.NET", Some(true)),
        (DNS, "notexample.net", "example.net", Some(false)),
        (DNS, "net", "example.net", Some(false)),
        (DNS, "example.com", "example.net", Some(false)),
        (DNS, "a.example.net", ".example.net", Some(true)),
        (DNS, "example.net", ".example.net", Some(false)),
        (DNS, "a.example.net", "", Some(true)),
        (DNS, "*.example.net", "example.net", Some(true)),
        (EMAIL, "a@example.net", "example.net", Some(true)),
        (EMAIL, "a@EXAMPLE.net", "example.net", Some(true)),
        (EMAIL, "a@b.example.net", "example.net", Some(false)),
        (EMAIL, "a@b.example.net", ".example.net", Some(true)),
        (EMAIL, "a@example.net", ".example.net", Some(false)),
        (EMAIL, "a@example.net", "a@example.net", Some(true)),
        (EMAIL, "a@example.net", "a@EXAMPLE.net", Some(true)),
        (EMAIL, "A@example.net", "a@example.net", Some(false)),
        (EMAIL, "b@example.net", "a@example.net", Some(false)),
        (EMAIL, "example.net", "example.net", None),
        (EMAIL, "@example.net", "example.net", None),
    ];
    for (form, name, base, inside) in cases {
        // The leaf's own URI is constrained as well: it is permitted beside, and no exclusion concerns it.
        let base_der = tlv(*form, base.as_bytes());
        let own = tlv(URI, b"example.org");
        let further = tlv(*form, name.as_bytes());
        // A second URI breaks X509-SVID §2, so URIs are tried as the names of a signer below.
        if *form == URI {
            let root = table.root.clone();
            for (kind, constraints, accept) in [
                ("permits", permitted(&[&base_der, &own]), *inside == Some(true)),
                ("excludes", excluded(&[&base_der]), *inside == Some(false)),
            ] {
                let signer = table.signer.clone().set(30, true, &constraints);
                let below = Forge::signer("below", 3, &signer).names(&[&further]);
                let chain = [&Forge::leaf(&below), &below, &signer];
                table.push(format!("{name}: a signer {kind} the host {base}"), &chain, &[&root], NOW, accept);
            }
        } else {
            let accept = *inside == Some(true);
            table.constrained(
                format!("{name} [{}]: a signer permits {base:?}", form & 0x1f),
                accept,
                &permitted(&[&base_der]),
                &further,
            );
            let accept = *inside == Some(false);
            table.constrained(
                format!("{name} [{}]: a signer excludes {base:?}", form & 0x1f),
                accept,
                &excluded(&[&base_der]),
                &further,
            );
        }
    }
    for (base, accept) in [
        ("example.org", true),
        ("Example.Org", true),
        ("example.com", false),
        (".example.org", false),
        ("org", false),
    ] {
        let constraints = permitted(&[&uri(base)]);
        table.signer(format!("a signer permits the host {base}"), accept, |signer| {
            signer.set(30, true, &constraints)
        });
        table
            .signer(format!("and not critical {base}"), accept, |signer| signer.set(30, false, &constraints));
        let root = table.root.clone().set(30, true, &constraints);
        table.push(
            format!("an authority permits the host {base}"),
            &[&Forge::leaf(&root)],
            &[&root],
            NOW,
            accept,
        );
        let constraints = excluded(&[&uri(base)]);
        let accept = base.len() != 11 || !base.eq_ignore_ascii_case("example.org");
        table.signer(format!("a signer excludes the host {base}"), accept, |signer| {
            signer.set(30, true, &constraints)
        });
    }
    // Wildcards: all of the names that one stands for are permitted, or one of them is excluded.
    let wildcard = tlv(DNS, b"*.example.net");
    for (base, permits, excludes) in [
        ("example.net", true, true),
        (".example.net", true, true),
        ("net", true, true),
        ("a.example.net", false, true),
        ("b.a.example.net", false, false),
        ("example.com", false, false),
    ] {
        let base_der = tlv(DNS, base.as_bytes());
        table.constrained(
            format!("a wildcard: permits {base}"),
            permits,
            &permitted(&[&base_der]),
            &wildcard,
        );
        table.constrained(
            format!("a wildcard: excludes {base}"),
            !excludes,
            &excluded(&[&base_der]),
            &wildcard,
        );
    }
    for (address, base, inside) in [
        (&[10, 1, 2, 3][..], &[10, 0, 0, 0, 255, 0, 0, 0][..], Some(true)),
        (&[11, 1, 2, 3], &[10, 0, 0, 0, 255, 0, 0, 0], Some(false)),
        (&[10, 1, 2, 3], &[10, 1, 2, 2, 255, 255, 255, 254], Some(true)),
        (&[10, 1, 2, 4], &[10, 1, 2, 2, 255, 255, 255, 254], Some(false)),
        (&[10, 1, 2, 3], &[0; 8], Some(true)),
        (&[0; 16], &[0; 32], Some(true)),
        (&[0; 16], &[10, 0, 0, 0, 255, 0, 0, 0], Some(false)),
        (&[10, 1, 2, 3], &[10, 0, 0, 0, 255, 0, 255, 0], None),
        (&[10, 1, 2, 3], &[10, 0, 0, 0, 0, 255, 0, 0], None),
        (&[10, 1, 2, 3], &[10, 0, 0, 0], None),
        (&[10, 1, 2, 3], &[10, 0, 0, 0, 255, 0, 0], None),
    ] {
        let further = tlv(IP, address);
        let base_der = tlv(IP, base);
        table.constrained(
            format!("{address:?}: permits {base:?}"),
            inside == Some(true),
            &permitted(&[&base_der]),
            &further,
        );
        table.constrained(
            format!("{address:?}: excludes {base:?}"),
            inside == Some(false),
            &excluded(&[&base_der]),
            &further,
        );
    }
    let directory = |names: &[&[u8]]| tlv(0xa4, &tlv(0x30, &names.concat()));
    let (one, two, upper) = (rdn(0x0c, b"one"), rdn(0x0c, b"two"), rdn(0x13, b" ONE"));
    for (base, inside) in [
        (directory(&[&one]), true),
        (directory(&[&one, &two]), true),
        (directory(&[&upper]), true),
        (directory(&[]), true),
        (directory(&[&two]), false),
        (directory(&[&one, &two, &two]), false),
    ] {
        let further = directory(&[&one, &two]);
        table.constrained(
            format!("a directory name: permits {base:?}"),
            inside,
            &permitted(&[&base]),
            &further,
        );
        table.constrained(
            format!("a directory name: excludes {base:?}"),
            !inside,
            &excluded(&[&base]),
            &further,
        );
        // The subject is such a name as well.
        let root = table.root.clone();
        let signer = table.signer.clone().set(30, true, &permitted(&[&base]));
        let leaf =
            Forge::leaf(&signer).with(|leaf| leaf.subject = tlv(0x30, &[one.clone(), two.clone()].concat()));
        table.push(format!("a subject: permits {base:?}"), &[&leaf, &signer], &[&root], NOW, inside);
    }
    for (name, form) in [
        ("another name", tlv(0xa0, &[6, 3, 0x55, 4, 3, 0xa0, 3, 0x0c, 1, b'a'])),
        ("a registered ID", tlv(0x88, &[0x55, 4])),
    ] {
        table.constrained(
            format!("{name}: a form that is not processed"),
            false,
            &permitted(&[&form]),
            &form,
        );
        table.constrained(format!("{name}: excluded"), false, &excluded(&[&form]), &form);
        table.constrained(
            format!("{name}: constraints on another form"),
            true,
            &permitted(&[&tlv(DNS, b"a")]),
            &form,
        );
    }
    // Every signer's constraints hold, and further signers only narrow them.
    let root = table.root.clone();
    let outer = Forge::signer("outer", 2, &root).set(30, true, &permitted(&[&tlv(DNS, b"example.net")]));
    for (base, accept) in [("a.example.net", true), ("net", true), ("b.example.net", false)] {
        let inner =
            Forge::signer("inner", 3, &outer).set(30, true, &permitted(&[&tlv(DNS, base.as_bytes())]));
        let leaf = Forge::leaf(&inner).names(&[&uri(LEAF_URI), &tlv(DNS, b"a.example.net")]);
        table.push(
            format!("two signers, the inner permits {base}"),
            &[&leaf, &inner, &outer],
            &[&root],
            NOW,
            accept,
        );
    }
    let inner = Forge::signer("inner", 3, &outer).set(30, true, &permitted(&[&tlv(DNS, b"com")]));
    let leaf = Forge::leaf(&inner).names(&[&uri(LEAF_URI), &tlv(DNS, b"example.com")]);
    table.push("the inner signer permits more", &[&leaf, &inner, &outer], &[&root], NOW, false);
    table.section = "RFC 5280 §6.1.3 (b)";
    let outer = Forge::signer("outer", 2, &root).set(30, true, &permitted(&[&tlv(DNS, b"example.net")]));
    let again = Forge::signer("outer", 3, &outer).names(&[&tlv(DNS, b"example.com")]);
    let leaf = Forge::leaf(&again);
    table.push("a self-issued signer is not constrained", &[&leaf, &again, &outer], &[&root], NOW, true);
    let leaf = Forge::leaf(&again).names(&[&uri(LEAF_URI), &tlv(DNS, b"example.com")]);
    table.push("the leaf below it is", &[&leaf, &again, &outer], &[&root], NOW, false);
    let leaf = Forge::leaf(&outer)
        .names(&[&uri(LEAF_URI), &tlv(DNS, b"example.com")])
        .with(|leaf| leaf.subject.clone_from(&leaf.issuer));
    table.push("a self-issued leaf is constrained", &[&leaf, &outer], &[&root], NOW, false);
}

fn name_constraint_encodings(table: &mut Table) {
    table.section = "RFC 5280 §4.2.1.10";
    let dns = tlv(0x82, b"example.net");
    let subtree = |rest: &[u8]| sequence(&[&tlv(0xa0, &tlv(0x30, &[&dns[..], rest].concat()))]);
    table.constrained("a minimum of zero, written out", true, &subtree(&[0x80, 1, 0]), &dns);
    table.constrained("a minimum of one", false, &subtree(&[0x80, 1, 1]), &dns);
    table.constrained("a maximum", false, &subtree(&[0x81, 1, 9]), &dns);
    table.constrained("bytes after a subtree", false, &subtree(&[5, 0]), &dns);
    table.constrained("no subtrees in a list", false, &sequence(&[&tlv(0xa0, &[])]), &dns);
    table.constrained("another list", false, &sequence(&[&tlv(0xa2, &[])]), &dns);
    table.constrained("no list", true, &sequence(&[]), &dns);
    table.constrained("not a sequence", false, &tlv(0x31, &[]), &dns);
}

/// A text that is no domain name cannot be judged by a constraint on domain names. Without constraints
/// nothing reads it.
fn domain_syntax(table: &mut Table) {
    table.section = "RFC 5280 §4.2.1.6, §4.2.1.10";
    const DNS: u8 = 0x82;
    let long = |len: usize| [&vec![b'a'; len][..], b".example.net"].concat();
    let names: [(&str, Vec<u8>, bool); 15] = [
        ("a space", b"exam ple.net".to_vec(), false),
        ("a parenthesis", b"exam(ple.net".to_vec(), false),
        ("a byte above 127", b"exam\xe9ple.net".to_vec(), false),
        ("an empty label", b"a..example.net".to_vec(), false),
        ("a dot at the end", b"a.example.net.".to_vec(), false),
        ("a dot at the beginning", b".example.net".to_vec(), false),
        ("a hyphen at the beginning of a label", b"-a.example.net".to_vec(), false),
        ("a hyphen at the end of a label", b"a-.example.net".to_vec(), false),
        ("a label of 64 letters", long(64), false),
        ("an address", b"192.0.2.1".to_vec(), false),
        ("nothing", Vec::new(), false),
        ("a label of 63 letters", long(63), true),
        ("an underscore", b"_a.example.net".to_vec(), true),
        ("digits", b"1.2.example.net".to_vec(), true),
        ("a hyphen", b"xn--a.example.net".to_vec(), true),
    ];
    for (what, name, accept) in names {
        // Everything is permitted.
        let verb = if accept { "a domain name with" } else { "no domain name:" };
        table.constrained(format!("{verb} {what}"), accept, &permitted(&[&tlv(DNS, b"")]), &tlv(DNS, &name));
    }
    table.leaf("no domain name, without constraints", true, |leaf| {
        leaf.names(&[&uri(LEAF_URI), &tlv(DNS, b"exam(ple.net")])
    });
    let dns = tlv(DNS, b"a.example.net");
    for base in [&b"exam(ple.org"[..], b"exam\xe9ple.org", b"a..example.org", b"example.org."] {
        let what = base.escape_ascii();
        table.constrained(
            format!("no domain to exclude: {what}"),
            false,
            &excluded(&[&tlv(DNS, base)]),
            &dns,
        );
    }
    // Tags that GeneralName does not have.
    for tag in [0x93, 0xf8, 0x30] {
        let what = format!("a base of the unknown form {tag:#x}");
        table.constrained(what, false, &excluded(&[&tlv(tag, &[])]), &dns);
    }
}

fn policies(table: &mut Table) {
    table.section = "RFC 5280 §6.1.3 (d) to (f), §6.1.4 (a) to (j), §6.1.5";
    const ONE: &[u8] = &[6, 3, 0x2a, 3, 1];
    const TWO: &[u8] = &[6, 3, 0x2a, 3, 2];
    const ANY: &[u8] = &[6, 4, 0x55, 0x1d, 32, 0];
    let of = |policies: &[&[u8]]| {
        tlv(0x30, &policies.iter().flat_map(|policy| tlv(0x30, policy)).collect::<Vec<u8>>())
    };
    let require = |skip: u8| sequence(&[&[0x80, 1, skip]]);
    let mapping = |from: &[u8], to: &[u8]| sequence(&[&sequence(&[from, to])]);
    type Change = Box<dyn Fn(Forge) -> Forge>;
    let mut case = |name: &str, accept: bool, outer: Change, inner: Change, leaf: Change| {
        let root = table.root.clone();
        let outer = outer(Forge::signer("outer", 2, &root));
        let inner = inner(Forge::signer("inner", 3, &outer));
        let leaf = leaf(Forge::leaf(&inner));
        table.push(name, &[&leaf, &inner, &outer], &[&root], NOW, accept);
    };
    let none = || -> Change { Box::new(|forge| forge) };
    let with = |policies: &[&[u8]]| -> Change {
        let policies = of(policies);
        Box::new(move |forge| forge.set(32, false, &policies))
    };
    let requiring = |policies: &[&[u8]], skip: u8| -> Change {
        let (policies, require) = (of(policies), require(skip));
        Box::new(move |forge| forge.set(32, false, &policies).set(36, true, &require))
    };
    let mapped = |policies: &[&[u8]], from: &'static [u8], to: &'static [u8]| -> Change {
        let (policies, mapping) = (of(policies), mapping(from, to));
        Box::new(move |forge| forge.set(32, false, &policies).set(33, true, &mapping))
    };
    case("policies and nothing demanded", true, with(&[ONE]), with(&[TWO]), none());
    case("no policies and nothing demanded", true, none(), none(), none());
    case("one policy all the way", true, requiring(&[ONE], 0), with(&[ONE]), with(&[ONE]));
    case("of two policies one all the way", true, requiring(&[ONE, TWO], 0), with(&[TWO]), with(&[TWO, ONE]));
    case("demanded, and the leaf has none", false, requiring(&[ONE], 0), with(&[ONE]), none());
    case("demanded, and the leaf has another", false, requiring(&[ONE], 0), with(&[ONE]), with(&[TWO]));
    case("demanded, and a signer has none", false, requiring(&[ONE], 0), none(), with(&[ONE]));
    case(
        "demanded, and it has none itself",
        false,
        Box::new({
            let require = require(0);
            move |forge| forge.set(36, true, &require)
        }),
        with(&[ONE]),
        with(&[ONE]),
    );
    case("any policy at the top", true, requiring(&[ANY], 0), with(&[ONE]), with(&[ONE]));
    case("any policy in the middle", true, requiring(&[ONE], 0), with(&[ANY]), with(&[ONE]));
    case(
        "any policy in the middle does not add one",
        false,
        requiring(&[ONE], 0),
        with(&[ANY]),
        with(&[TWO]),
    );
    case("any policy in the leaf", true, requiring(&[ONE], 0), with(&[ONE]), with(&[ANY]));
    case("any policy everywhere", true, requiring(&[ANY], 0), with(&[ANY]), with(&[ANY]));
    case("demanded after one more", false, requiring(&[ONE], 1), with(&[ONE]), none());
    case("demanded after more than there are", true, requiring(&[ONE], 9), with(&[TWO]), none());
    case("demanded of the leaf by itself", false, with(&[ONE]), with(&[ONE]), requiring(&[TWO], 0));
    case("demanded by the leaf and kept", true, with(&[ONE]), with(&[ONE]), requiring(&[ONE], 0));
    case("demanded by the inner signer", false, with(&[ONE]), requiring(&[TWO], 0), with(&[TWO]));
    let inhibit = |skip: u8| -> Change {
        let (policies, require) = (of(&[ONE]), require(0));
        Box::new(move |forge| {
            forge.set(32, false, &policies).set(36, true, &require).set(54, true, &[2, 1, skip])
        })
    };
    case("any policy is inhibited", false, inhibit(0), with(&[ANY]), with(&[ONE]));
    case("any policy is inhibited after one", false, inhibit(1), with(&[ONE]), with(&[ANY]));
    case("any policy is inhibited after two", true, inhibit(2), with(&[ONE]), with(&[ANY]));
    case("any policy inhibited, and not used", true, inhibit(0), with(&[ONE]), with(&[ONE]));
    let require_mapped = |from: &'static [u8], to: &'static [u8], inhibit_mapping: Option<u8>| -> Change {
        let (policies, mapping) = (of(&[from]), mapping(from, to));
        let constraints = match inhibit_mapping {
            None => sequence(&[&[0x80, 1, 0]]),
            Some(skip) => sequence(&[&[0x80, 1, 0], &[0x81, 1, skip]]),
        };
        Box::new(move |forge| {
            forge.set(32, false, &policies).set(33, true, &mapping).set(36, true, &constraints)
        })
    };
    case("a policy is mapped", true, require_mapped(ONE, TWO, None), with(&[TWO]), with(&[TWO]));
    case(
        "a mapped policy is not the old one",
        false,
        require_mapped(ONE, TWO, None),
        with(&[ONE]),
        with(&[ONE]),
    );
    case(
        "mapping is inhibited below",
        false,
        require_mapped(ONE, TWO, Some(0)),
        mapped(&[TWO], TWO, ONE),
        with(&[ONE]),
    );
    case(
        "mapping is inhibited after one",
        true,
        require_mapped(ONE, TWO, Some(1)),
        mapped(&[TWO], TWO, ONE),
        with(&[ONE]),
    );
    case("any policy is mapped from", false, mapped(&[ANY], ANY, ONE), none(), none());
    case("any policy is mapped to", false, mapped(&[ANY], ONE, ANY), none(), none());
    case("mapping under any policy", true, requiring(&[ANY], 0), mapped(&[ANY], ONE, TWO), with(&[TWO]));
    case("the same policy twice", false, with(&[ONE, ONE]), none(), none());
    case("no policy in the list", false, with(&[]), none(), none());
    let empty: Change = Box::new(|forge| forge.set(36, true, &sequence(&[])));
    case("policy constraints of nothing", false, empty, none(), none());
    for (name, kind, critical, accept) in [
        ("a CPS qualifier", 1, true, true),
        ("an unknown qualifier", 9, true, false),
        ("an unknown qualifier, not critical", 9, false, true),
    ] {
        let qualifier = sequence(&[&[6, 8, 0x2b, 6, 1, 5, 5, 7, 2, kind], &tlv(0x16, b"https://a")]);
        let policies = sequence(&[&sequence(&[ONE, &sequence(&[&qualifier])])]);
        case(name, accept, Box::new(move |forge| forge.set(32, critical, &policies)), none(), none());
    }
}

fn extensions(table: &mut Table) {
    table.section = "RFC 5280 §4.2, §6.1.4 (o), §6.1.5 (f)";
    let key_id = tlv(4, &[1, 2, 3]);
    let authority_key_id = sequence(&[&tlv(0x80, &[1, 2, 3])]);
    for (number, value) in [
        (9, sequence(&[])),
        (14, key_id),
        (18, sequence(&[&uri("https://a")])),
        (31, sequence(&[&sequence(&[&tlv(0xa0, &tlv(0xa0, &uri("https://a")))])])),
        (35, authority_key_id.clone()),
        (46, sequence(&[&sequence(&[&tlv(0xa0, &tlv(0xa0, &uri("https://a")))])])),
        (99, vec![5, 0]),
    ] {
        for critical in [false, true] {
            let name = |whose| format!("extension {number} of {whose}, critical {critical}");
            table.leaf(name("a leaf"), !critical, |leaf| leaf.set(number, critical, &value));
            table.signer(name("a signer"), !critical, |signer| signer.set(number, critical, &value));
            let root = table.root.clone().set(number, critical, &value);
            table.push(name("an authority"), &[&Forge::leaf(&root)], &[&root], NOW, !critical);
        }
    }
    for critical in [false, true] {
        let unknown = extension_of(&[0x2b, 6, 1, 4, 1, 1], critical, &[5, 0]);
        table.leaf(format!("a private extension, critical {critical}"), !critical, |leaf| leaf.more(unknown));
    }
    table.leaf("key identifiers that do not fit", true, |leaf| leaf.set(35, false, &authority_key_id));
    for number in [15, 17, 19, 37] {
        table.leaf(format!("extension {number} twice"), false, |leaf| {
            let again = leaf
                .extensions
                .iter()
                .find(|(present, _)| *present == number)
                .map_or_else(|| extension(19, true, &sequence(&[])), |(_, whole)| whole.clone());
            leaf.set(19, true, &sequence(&[])).more(again)
        });
    }
    table.leaf("an unknown extension twice", false, |leaf| {
        let unknown = extension_of(&[0x2b, 6, 1, 4, 1, 1], false, &[5, 0]);
        leaf.more(unknown.clone()).more(unknown)
    });
    table.leaf("500 extensions", true, |leaf| {
        (0..500_u16).fold(leaf, |leaf, number| {
            let [high, low] = number.to_be_bytes();
            leaf.more(extension_of(&[0x2b, 6, 1, 4, 1 + high, low & 0x7f, low >> 7], false, &[5, 0]))
        })
    });
}

/// DER oddities (X.690 §10 and §11) and broken fields (RFC 5280 §4.1).
fn encodings(table: &mut Table) {
    table.section = "X.690 §8, §10, §11";
    let id = LEAF_URI.as_bytes();
    let long_tag = [&[0x9f, 6, u8::try_from(id.len()).unwrap()][..], id].concat();
    let long_len = [&[0x86, 0x81, u8::try_from(id.len()).unwrap()][..], id].concat();
    let longer_len = [&[0x86, 0x82, 0, u8::try_from(id.len()).unwrap()][..], id].concat();
    let indefinite = [&[0xa6, 0x80][..], &tlv(0x16, id), &[0, 0]].concat();
    for (name, value) in [
        ("[6] constructed", sequence(&[&tlv(0xa6, &tlv(0x16, id))])),
        ("[6] with its tag in the long form", sequence(&[&long_tag])),
        ("[6] with its length in two bytes", sequence(&[&long_len])),
        ("[6] with its length in three bytes", sequence(&[&longer_len])),
        ("[6] of indefinite length", sequence(&[&indefinite])),
        ("[9]", sequence(&[&uri(LEAF_URI), &tlv(0x89, b"a")])),
        ("a universal tag", sequence(&[&uri(LEAF_URI), &tlv(0x16, b"a")])),
        ("a set for a sequence", tlv(0x31, &uri(LEAF_URI))),
        ("bytes after the sequence", [sequence(&[&uri(LEAF_URI)]), vec![5, 0]].concat()),
        ("a name cut short", tlv(0x30, &uri(LEAF_URI)[..20])),
        ("no names", sequence(&[])),
        ("an IP address of five bytes", sequence(&[&uri(LEAF_URI), &tlv(0x87, &[0; 5])])),
    ] {
        table.leaf(format!("names: {name}"), false, |leaf| leaf.set(17, true, &value));
    }
    for (name, value) in [
        ("octets", tlv(4, DIGITAL_SIGNATURE)),
        ("nine unused bits", tlv(3, &[9, 0x80])),
        ("unused bits that are set", tlv(3, &[7, 0x81])),
        ("trailing zero bits", tlv(3, &[0, 0x80])),
        ("a trailing zero byte", tlv(3, &[0, 0x80, 0])),
        ("nothing", tlv(3, &[])),
        ("bytes behind", [tlv(3, DIGITAL_SIGNATURE), vec![0]].concat()),
    ] {
        table.leaf(format!("key usage: {name}"), false, |leaf| leaf.set(15, true, &value));
    }
    for (name, value) in [
        ("TRUE is 1", sequence(&[&[1, 1, 1]])),
        ("a boolean of two bytes", sequence(&[&[1, 2, 0xff, 0xff]])),
        ("nothing", Vec::new()),
        ("a set", tlv(0x31, &[1, 1, 0xff])),
        ("a third field", sequence(&[&[1, 1, 0xff], &[2, 1, 0], &[2, 1, 0]])),
        ("the fields swapped", sequence(&[&[2, 1, 0], &[1, 1, 0xff]])),
    ] {
        table.signer(format!("basic constraints: {name}"), false, |signer| signer.set(19, true, &value));
    }
    for (name, value) in [
        ("no purpose", sequence(&[])),
        ("a set", tlv(0x31, &[SERVER_AUTH, CLIENT_AUTH].concat())),
        ("a text among them", sequence(&[SERVER_AUTH, CLIENT_AUTH, &tlv(0x0c, b"a")])),
        ("a padded identifier", sequence(&[SERVER_AUTH, CLIENT_AUTH, &[6, 2, 0x80, 1]])),
    ] {
        table.leaf(format!("extended key usage: {name}"), false, |leaf| leaf.set(37, false, &value));
    }
    let critical = |byte: u8| sequence(&[&[6, 3, 0x55, 0x1d, 99], &[1, 1, byte], &tlv(4, &[5, 0])]);
    table.leaf("critical FALSE, written out", true, |leaf| leaf.more(critical(0)));
    table.leaf("critical is 1", false, |leaf| leaf.more(critical(1)));
    table.section = "RFC 5280 §4.1";
    for (name, version, accept) in [
        ("3", tlv(0xa0, &[2, 1, 2]), true),
        ("1, written out", tlv(0xa0, &[2, 1, 0]), false),
        ("1", Vec::new(), false),
        ("2", tlv(0xa0, &[2, 1, 1]), false),
        ("4", tlv(0xa0, &[2, 1, 3]), false),
        ("3 in two bytes", tlv(0xa0, &[2, 2, 0, 2]), false),
    ] {
        table.leaf(format!("version {name}"), accept, |leaf| leaf.with(|leaf| leaf.version = version));
    }
    for (name, serial, accept) in [
        ("0", tlv(2, &[0]), true),
        ("of 20 bytes", tlv(2, &[0x7f; 20]), true),
        ("negative", tlv(2, &[0x80]), true),
        ("with a superfluous zero", tlv(2, &[0, 1]), false),
        ("of no bytes", tlv(2, &[]), false),
    ] {
        table.leaf(format!("a serial number {name}"), accept, |leaf| leaf.with(|leaf| leaf.serial = serial));
    }
    for (name, unique, accept) in [
        ("unique identifiers", [tlv(0x81, &[0, 1]), tlv(0x82, &[0, 1])].concat(), true),
        ("one unique identifier", tlv(0x82, &[0, 1]), true),
        ("unique identifiers swapped", [tlv(0x82, &[0, 1]), tlv(0x81, &[0, 1])].concat(), false),
        ("a field that there is not", tlv(0x84, &[0]), false),
    ] {
        table.leaf(name, accept, |leaf| leaf.with(|leaf| leaf.unique = unique));
    }
    let start = moment(NOW - 60);
    table.leaf("validity of integers", false, |leaf| leaf.with(|leaf| leaf.not_before = tlv(2, &start[2..])));
}

fn signatures(table: &mut Table) {
    table.section = "RFC 5280 §6.1.3 (a) (1), §4.1.1.2, RFC 3279 §2.2.3";
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let damages: [(&str, Damage); 10] = [
        ("a changed bit", |mut signature| {
            *signature.last_mut().unwrap() ^= 1;
            signature
        }),
        ("a byte behind", |signature| [signature, vec![0]].concat()),
        ("cut short", |mut signature| {
            signature.pop();
            signature
        }),
        ("nothing", |_| Vec::new()),
        ("r and s are zero", |_| vec![0x30, 6, 2, 1, 0, 2, 1, 0]),
        ("r and s are one", |_| vec![0x30, 6, 2, 1, 1, 2, 1, 1]),
        ("r is negative", |_| vec![0x30, 6, 2, 1, 0x80, 2, 1, 1]),
        ("r and s are raw", |_| vec![1; 64]),
        ("a superfluous zero", |signature| {
            // The first integer grows by a byte, and the sequence with it.
            let mut changed = signature;
            changed[1] += 1;
            changed[3] += 1;
            changed.insert(4, 0);
            changed
        }),
        ("a length in two bytes", |signature| [&[0x30, 0x81, signature[1]][..], &signature[2..]].concat()),
    ];
    for (name, damage) in damages {
        table.leaf(format!("signature: {name}"), false, |leaf| leaf.with(|leaf| leaf.signature = damage));
        table.signer(format!("signature of a signer: {name}"), false, |signer| {
            signer.with(|signer| signer.signature = damage)
        });
    }
    table.leaf("another key signed", false, |leaf| leaf.with(|leaf| leaf.signer = 5));
    table.leaf("another hash is named", false, |leaf| {
        leaf.with(|leaf| leaf.algorithm = ECDSA_SHA384.to_vec())
    });
    table.leaf("two algorithms are named", false, |leaf| {
        leaf.with(|leaf| leaf.outer_algorithm = Some(ECDSA_SHA384.to_vec()))
    });
    let parameters = sequence(&[&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2], &[5, 0]]);
    table.leaf("ECDSA with parameters", false, |leaf| leaf.with(|leaf| leaf.algorithm = parameters));
    let md5 = sequence(&[&[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4], &[5, 0]]);
    table.leaf("MD5 with RSA", false, |leaf| leaf.with(|leaf| leaf.algorithm = md5));
    table.leaf("no algorithm", false, |leaf| leaf.with(|leaf| leaf.algorithm = sequence(&[])));
}

/// Keys and signatures of every algorithm: of authorities, signers and leaves.
fn key_algorithms(table: &mut Table) {
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let damages: [(&str, Damage); 5] = [
        ("a changed bit", |mut signature| {
            signature[7] ^= 1;
            signature
        }),
        ("a byte behind", |signature| [signature, vec![0]].concat()),
        ("cut short", |mut signature| {
            signature.pop();
            signature
        }),
        ("nothing", |_| Vec::new()),
        ("zeros", |signature| vec![0; signature.len()]),
    ];
    let root = table.root.clone();
    for (name, key) in [
        ("P-384", P384),
        ("Ed25519", ED25519),
        ("RSA with SHA-256", RSA_SHA256),
        ("RSA with SHA-384", RSA_SHA384),
        ("RSA with SHA-512", RSA_SHA512),
    ] {
        table.section = "RFC 5480 §2, RFC 8410 §3, RFC 4055 §5";
        let authority = Forge::root("root", key);
        let leaf = Forge::leaf(&authority);
        table.push(format!("an authority of {name}"), &[&leaf], &[&authority], NOW, true);
        let signer = Forge::signer("signer", key, &root);
        table.push(format!("a signer of {name}"), &[&Forge::leaf(&signer), &signer], &[&root], NOW, true);
        table.leaf(format!("a leaf of {name}"), true, |leaf| leaf.key(key));
        let all = [&Forge::leaf(&signer).key(key), &signer];
        table.push(format!("a leaf and a signer of {name}"), &all, &[&root], NOW, true);
        let below = Forge::signer("signer", 2, &authority);
        let chain = [&Forge::leaf(&below), &below];
        table.push(format!("a signer below an authority of {name}"), &chain, &[&authority], NOW, true);

        table.section = "RFC 5280 §6.1.3 (a) (1), RFC 5480 §2, RFC 8410 §6, RFC 4055 §5";
        for (damage, change) in damages {
            let leaf = leaf.clone().with(|leaf| leaf.signature = change);
            table.push(format!("a signature of {name}: {damage}"), &[&leaf], &[&authority], NOW, false);
            let signer = Forge::signer("signer", 2, &authority).with(|signer| signer.signature = change);
            let chain = [&Forge::leaf(&signer), &signer];
            table.push(format!("a signer signed by {name}: {damage}"), &chain, &[&authority], NOW, false);
        }
        // A signature of another key under the name of this one, and of this one under another name.
        for (other, named) in [("P-256", 1), ("P-384", P384), ("Ed25519", ED25519), ("RSA", RSA_SHA256)] {
            let is_same = named == key || (named == RSA_SHA256 && key > RSA_SHA256);
            if !is_same {
                let signed = leaf.clone().with(|leaf| leaf.signer = named);
                table.push(
                    format!("{other} signed in the name of {name}"),
                    &[&signed],
                    &[&authority],
                    NOW,
                    false,
                );
                let named = leaf.clone().with(|leaf| leaf.algorithm = algorithm_of(named).to_vec());
                table.push(format!("{name} under the name of {other}"), &[&named], &[&authority], NOW, false);
            }
        }
    }
    // The hash that is named is the hash that was signed.
    let authority = Forge::root("root", RSA_SHA256);
    for (name, key) in [("SHA-384", RSA_SHA384), ("SHA-512", RSA_SHA512)] {
        let leaf = Forge::leaf(&authority).with(|leaf| leaf.algorithm = algorithm_of(key).to_vec());
        table.push(format!("RSA with SHA-256 under the name of {name}"), &[&leaf], &[&authority], NOW, false);
    }
    // An authority of each kind above a leaf, over signers of the others.
    table.section = "RFC 5280 §6.1";
    let kinds = [P384, ED25519, RSA_SHA256, 2];
    for turn in 0..kinds.len() {
        let key = |place: usize| kinds[(turn + place) % kinds.len()];
        let authority = Forge::root("root", key(0));
        let upper = Forge::signer("upper", key(1), &authority);
        let lower = Forge::signer("lower", key(2), &upper);
        let leaf = Forge::leaf(&lower).key(key(3));
        table.push(format!("four kinds of keys, {turn}"), &[&leaf, &lower, &upper], &[&authority], NOW, true);
    }
    // RFC 8410 §3: no parameters. RFC 4055 §5: absent ones are accepted as well.
    table.section = "RFC 8410 §3";
    let authority = Forge::root("root", ED25519);
    let leaf =
        Forge::leaf(&authority).with(|leaf| leaf.algorithm = sequence(&[&[6, 3, 0x2b, 0x65, 0x70], &[5, 0]]));
    table.push("Ed25519 with parameters", &[&leaf], &[&authority], NOW, false);
    table.section = "RFC 4055 §5";
    let authority = Forge::root("root", RSA_SHA256);
    let absent = sequence(&[&[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11]]);
    let leaf = Forge::leaf(&authority).with(|leaf| leaf.algorithm = absent);
    table.push("RSA with absent parameters", &[&leaf], &[&authority], NOW, true);
}

/// Names and constraints that take long to compare. The signatures come after the names, so that nobody has
/// to have signed anything.
fn costly(table: &mut Table) {
    table.section = "RFC 5280 §7.1";
    let stranger = costly_chain(&table.root, 6);
    let chain: Vec<&Forge> = stranger.iter().collect();
    let root = table.root.clone();
    table.push("a chain of long names that no authority issued", &chain, &[&root], NOW, false);
    let issued = costly_chain(&table.root, 1);
    let chain: Vec<&Forge> = issued.iter().collect();
    table.push("a chain of long names", &chain, &[&root], NOW, true);
    table.section = "RFC 5280 §4.2.1.10, §7.1";
    let subject = long_name(16, 800, 1);
    let base = tlv(0xa4, &long_name(16, 800, 2));
    for (name, accept) in [("permits", true), ("excludes", false)] {
        let constraints = if accept { permitted(&[&base]) } else { excluded(&[&base]) };
        let signer = table.signer.clone().set(30, true, &constraints);
        let leaf = Forge::leaf(&signer).with(|leaf| leaf.subject.clone_from(&subject));
        table.push(format!("a long name: {name}"), &[&leaf, &signer], &[&root], NOW, accept);
    }
}

/// A name of one set of attributes of the same length, which differ at their ends: comparing each with each
/// reads everything. Names with other `case` are the same name.
pub(crate) fn long_name(attributes: u8, len: usize, case: u8) -> Vec<u8> {
    let attribute = |number: u8| {
        let letter = if case.is_multiple_of(2) { b'a' } else { b'A' };
        let value = [&vec![letter; len][..], &[b'a' + number]].concat();
        sequence(&[&[6, 3, 0x55, 4, 3], &tlv(0x0c, &value)])
    };
    tlv(0x30, &tlv(0x31, &(0..attributes).map(attribute).collect::<Vec<_>>().concat()))
}

/// A leaf and seven signers whose names are all one but for the case of letters, in one set of 16 attributes.
/// Any signer may have issued any other. The key that signed the highest is that of the root if `signer`
/// is 1.
pub(crate) fn costly_chain(root: &Forge, signer: usize) -> Vec<Forge> {
    let mut chain = vec![Forge::leaf(root).with(|leaf| leaf.issuer = long_name(16, 440, 1))];
    for index in 0..7_u8 {
        let mut forge = Forge::signer("", 2 + usize::from(index), root);
        forge.subject = long_name(16, 440, index);
        // The subject of the next one in other letters.
        forge.issuer = long_name(16, 440, index);
        forge.signer = 3 + usize::from(index);
        chain.push(forge);
    }
    chain[0].signer = 2;
    chain[7].issuer.clone_from(&root.subject);
    chain[7].signer = signer;
    chain
}
