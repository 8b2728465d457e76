//! Decoders on damaged bytes: each property of `properties.rs` on valid bytes with changes, from a seed, and
//! on every file of `fuzz/seeds`. The targets in `fuzz/` go on from here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers as well"
)]

#[path = "decoders/properties.rs"]
mod properties;

use std::path::Path;
use std::time::{Duration, SystemTime};

use properties::{AUTHORITY, HOLDER, PROOF, SVID, TOKEN, WIT, domain, spiffe_bundle, workload};
use x0_identity::tpm::{TpmAnswer, TpmChallenge};
use x0_identity::{
    BundleMap, Evidence, IssuanceAnswer, IssuanceRefusal, IssuanceRequest, IssuanceResponse, RequestKey,
    RevocationView, Revoked, SignedBundle, SignedRevocations,
};

/// Damaged inputs of a decoder; `X0_DAMAGED` sets another number.
const ROUNDS: u32 = 4_000;

/// A decoder, with valid inputs of every kind that it takes.
struct Decoder {
    /// The name of the target in `fuzz/`, and of the folder in `fuzz/seeds`.
    name: &'static str,
    check: fn(&[u8]),
    seeds: Vec<Vec<u8>>,
}

fn decoders() -> Vec<Decoder> {
    let decoder = |name, check: fn(&[u8]), seeds| Decoder { name, check, seeds };
    let mut map = BundleMap::new();
    map.insert(spiffe_bundle());
    let key = RequestKey::generate().unwrap();
    let request = key.request().to_vec();
    let chain = SVID.chain().to_vec();
    let authorities = AUTHORITY.bundle().authorities().to_vec();
    let evidence = [
        Evidence::JoinToken("token".into()),
        Evidence::CurrentSvid,
        Evidence::Tpm(vec![7; 200]),
        Evidence::Svid { chain: chain.clone(), signature: vec![7; 70] },
    ];
    let requests =
        evidence.map(|evidence| IssuanceRequest::new(workload(), request.clone(), evidence).to_bytes());
    let answers = [
        IssuanceAnswer::Issued { chain: chain.clone(), authorities: authorities.clone() },
        IssuanceAnswer::Challenge(vec![7; 100]),
        IssuanceAnswer::Refused { refusal: IssuanceRefusal::NotAttested, text: "no".into() },
    ];
    let mut view = RevocationView::new();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let revoked = [
        Revoked::SpiffeId(workload()),
        Revoked::Certificate { issuer: vec![0x30, 0], serial_number: vec![1, 2] },
        Revoked::Authority { public_key_info: vec![3; 91] },
    ];
    for revoked in revoked {
        view.insert(revoked, end).unwrap();
    }
    let sized = |parts: &[&[u8]]| {
        let sized = |part: &&[u8]| [&u16::try_from(part.len()).unwrap().to_be_bytes()[..], *part].concat();
        parts.iter().flat_map(sized).collect::<Vec<u8>>()
    };
    let (challenge, answer) =
        (sized(&[&[1; 68], &[2; 68], &[3; 32]]), sized(&[&[1; 32], &[2; 145], &[3; 64]]));
    TpmChallenge::from_bytes(&challenge).unwrap();
    TpmAnswer::from_bytes(&answer).unwrap();
    // A response of TPM2_CreatePrimary that succeeded, cut short.
    let response = [&[0x80, 2, 0, 0, 0, 30][..], &[0; 4], &[0x80, 0, 0, 1], &[0; 12]].concat();
    vec![
        decoder("bundle", properties::bundle, vec![
            spiffe_bundle().to_json().into(),
            map.to_json().into(),
            br#"{"keys":[{"use":"x509-svid","kty":"EC","x5c":["AA=="]},{"use":"jwt-svid","kid":"a"}],"spiffe_sequence":18446744073709551615}"#.to_vec(),
        ]),
        decoder("certificate", properties::certificate, vec![chain[0].to_vec(), authorities[0].to_vec()]),
        decoder("pem", properties::pem, vec![
            SVID.to_pem().into(),
            AUTHORITY.bundle().to_pem().into(),
            AUTHORITY.to_pem().into(),
        ]),
        decoder("certificate_request", properties::certificate_request, vec![request]),
        decoder("issuance", properties::issuance, [
            requests.to_vec(),
            answers.map(|answer| answer.to_bytes()).to_vec(),
            vec![IssuanceResponse { response: vec![7; 100] }.to_bytes()],
        ].concat()),
        decoder("revocations", properties::revocations, vec![
            view.to_bytes(),
            SignedRevocations::new(view, vec![7; 70]).to_bytes(),
            SignedBundle::new(3, AUTHORITY.bundle(), vec![7; 70]).to_bytes(),
        ]),
        decoder("tpm", properties::tpm, vec![challenge, answer, response]),
        decoder("url", properties::url, vec![
            b"https://example.org:8443/bundle.json?a=b".to_vec(),
            b"https://[::1]/".to_vec(),
            b"//example.net/x".to_vec(),
            b"../c".to_vec(),
        ]),
        decoder("jwt_svid", properties::jwt, vec![
            [b"\0", TOKEN.token().as_bytes()].concat(),
            vec![1, 9, 0, b'A', 200, 0, b'B'],
        ]),
        decoder("wit_svid", properties::wit, vec![
            [b"\0", WIT.token().as_bytes()].concat(),
            [b"\0", PROOF.as_bytes()].concat(),
            [b"\0", HOLDER.to_jwk().as_bytes()].concat(),
            vec![1, 9, 0, b'A', 200, 0, b'B'],
            vec![3, 9, 0, b'A', 200, 0, b'B'],
            vec![5, 9, 0, b'A', 120, 0, b'B'],
        ]),
        decoder("names", properties::names, vec![
            workload().to_string().into(),
            domain().to_string().into(),
            b"a/b.c/d-e_F".to_vec(),
            b"0123456789abcdef".to_vec(),
        ]),
    ]
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % (bound.max(1) as u64)).unwrap()
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let position = self.below(bytes.len());
        let byte = [0, 1, 0x7f, 0x80, 0xff, b'/', b'%', b'"', b'.'][self.below(9)];
        match self.below(8) {
            0 => bytes.truncate(position),
            1 => bytes.insert(position, byte),
            2 if !bytes.is_empty() => drop(bytes.remove(position)),
            3 => {
                let end = bytes.len().min(position + 1 + self.below(40));
                let piece = bytes[position..end].to_vec();
                let at = self.below(bytes.len());
                bytes.splice(at..at, piece);
            }
            4 if !bytes.is_empty() => bytes[position] = byte,
            5 if !bytes.is_empty() => bytes[position] ^= 1 << self.below(8),
            6 if !bytes.is_empty() => bytes[position] = bytes[position].wrapping_add(1),
            _ if !bytes.is_empty() => bytes[position] = u8::try_from(self.below(256)).unwrap(),
            _ => bytes.push(byte),
        }
    }
}

#[test]
fn damaged_inputs() {
    let rounds = std::env::var("X0_DAMAGED").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    for decoder in decoders() {
        let mut random = Random(0x5eed);
        for round in 0..rounds {
            let mut bytes = decoder.seeds[random.below(decoder.seeds.len())].clone();
            // The first rounds change nothing.
            for _ in 0..random.below(5).min(round as usize / 8) {
                random.damage(&mut bytes);
            }
            (decoder.check)(&bytes);
        }
    }
}

/// The inputs from which `cargo fuzz` begins, and those that it once found. `X0_FUZZ_SEEDS=FOLDER` writes the
/// valid ones there, without private keys.
#[test]
fn kept_inputs() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for decoder in decoders() {
        if let Some(folder) = std::env::var_os("X0_FUZZ_SEEDS") {
            let folder = Path::new(&folder).join(decoder.name);
            std::fs::create_dir_all(&folder).unwrap();
            for (number, seed) in decoder.seeds.iter().enumerate() {
                if seed.windows(11).any(|text| text == b"PRIVATE KEY")
                    || seed.windows(5).any(|text| text == b"\"d\":\"")
                {
                    continue;
                }
                std::fs::write(folder.join(format!("valid-{number}")), seed).unwrap();
            }
        }
        // A published package has no `fuzz`.
        let Ok(files) = std::fs::read_dir(kept.join(decoder.name)) else { continue };
        for file in files {
            (decoder.check)(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}
