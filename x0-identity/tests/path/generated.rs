//! Random chains of the rules that other verifiers and we process: no difference but those that [`CHANGES`]
//! and [`SHAPES`] name.
//!
//! 10,000 chains in the suite; `X0_CHAINS=1000000` sets another number, and `X0_OPENSSL_CHAINS` that for
//! OpenSSL.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::{fs, thread};

use pki_types::SignatureVerificationAlgorithm;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use x0_identity::{SpiffeId, TrustBundle, TrustBundleSet, TrustDomain, Verifier, VerifyError};

use super::changes::{CHANGES, Feature, Known, refuses};
use super::forge::{ANY_USAGE, Hashed, Scheme};
use super::generator::{Generated, SHAPES, generate};
use super::oracles::{openssl_verify, pem, webpki_accepts_with};
use super::unix;
use super::vectors::Vector;

static ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 1] = [&Hashed];

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let signature_verification_algorithms = WebPkiSupportedAlgorithms { all: &ALGORITHMS, mapping: &[] };
    Arc::new(CryptoProvider { signature_verification_algorithms, ..rustls::crypto::ring::default_provider() })
});

fn ours(vector: &Vector, scheme: Scheme) -> Result<SpiffeId, VerifyError> {
    let domain = TrustDomain::parse("example.org").unwrap();
    let bundle = TrustBundle::new(domain, vector.bundle.clone()).unwrap();
    let bundles = Arc::new(TrustBundleSet::from(bundle));
    let verifier = match scheme {
        Scheme::Ecdsa => Verifier::with_source(bundles),
        Scheme::Hashed => Verifier::with_provider(bundles, Arc::clone(&PROVIDER)),
    };
    let (leaf, signers) = vector.chain.split_first().unwrap();
    verifier.verify_client(leaf, signers, unix(vector.now))?;
    verifier.verify_server(leaf, signers, unix(vector.now))
}

/// What became of the chains with one feature, or of all.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    chains: u64,
    accepted: u64,
    differences: u64,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.chains += other.chains;
        self.accepted += other.accepted;
        self.differences += other.differences;
    }
}

#[derive(Default)]
struct Comparison {
    all: Tally,
    by_feature: BTreeMap<&'static str, Tally>,
    by_reason: BTreeMap<&'static str, u64>,
    unexplained: Vec<String>,
}

impl Comparison {
    fn add(
        &mut self,
        seed: u64,
        generated: &Generated,
        own: &Result<SpiffeId, VerifyError>,
        peer: bool,
        known: fn(&Feature) -> Option<Known>,
    ) {
        let differs = own.is_ok() != peer;
        let one = Tally { chains: 1, accepted: own.is_ok().into(), differences: differs.into() };
        self.all.add(one);
        for feature in &generated.features {
            self.by_feature.entry(feature.name).or_default().add(one);
        }
        if !differs {
            return;
        }
        let reasons = generated.features.iter().filter_map(known).chain(by_content(&generated.vector));
        if let Some(known) =
            reasons.into_iter().find(|known| known.peer_accepts.is_none_or(|accepts| accepts == peer))
        {
            *self.by_reason.entry(known.reason).or_default() += 1;
        } else {
            let names: Vec<&str> = generated.features.iter().map(|feature| feature.name).collect();
            let verb = if peer { "accepts" } else { "refuses" };
            self.unexplained.push(format!("seed {seed}: the peer {verb}, {names:?}: {own:?}"));
        }
    }

    fn merge(&mut self, other: Comparison) {
        self.all.add(other.all);
        for (name, tally) in other.by_feature {
            self.by_feature.entry(name).or_default().add(tally);
        }
        for (reason, count) in other.by_reason {
            *self.by_reason.entry(reason).or_default() += count;
        }
        self.unexplained.extend(other.unexplained);
    }

    fn check(&self, peer: &str) {
        let Tally { chains, accepted, differences } = self.all;
        println!("{chains} chains, {accepted} accepted, {differences} judged otherwise by {peer}");
        for (name, tally) in &self.by_feature {
            println!("  {:>8} with {name}: {} accepted", tally.chains, tally.accepted);
        }
        for (reason, count) in &self.by_reason {
            println!("  {count:>8} differences: {peer} {reason}");
        }
        let shown = &self.unexplained[..self.unexplained.len().min(20)];
        let count = self.unexplained.len();
        assert!(count == 0, "{count} unexplained differences from {peer}:\n{}", shown.join("\n"));
        // Neither everything nor nothing, or the comparison says little.
        assert!(accepted > chains / 5 && accepted < chains * 4 / 5, "{accepted} of {chains}");
        assert_eq!(self.by_feature.len(), CHANGES.len() + SHAPES.len(), "each feature occurs");
    }
}

/// Differences for which the features do not tell: a changed byte makes another purpose, or another spelling
/// of a name.
fn by_content(vector: &Vector) -> Vec<Known> {
    let mut known = Vec::new();
    if vector.chain.iter().any(|der| der.windows(ANY_USAGE.len()).any(|bytes| bytes == ANY_USAGE)) {
        known.extend(refuses("does not know anyExtendedKeyUsage (§4.2.1.12)"));
    }
    let certificates = vector.chain.iter().chain(&vector.bundle);
    let names: Vec<[Vec<u8>; 2]> = certificates.filter_map(|der| names_of(der)).collect();
    let folded = |name: &[u8]| {
        let words = name.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.map(<[u8]>::to_ascii_lowercase).collect::<Vec<_>>()
    };
    let subjects = || names.iter().map(|[_, subject]| subject);
    if names.iter().any(|[issuer, _]| {
        !subjects().any(|subject| subject == issuer)
            && subjects().any(|subject| folded(subject) == folded(issuer))
    }) {
        known.extend(refuses("compares names byte by byte (§7.1 does not)"));
    }
    known
}

/// The issuer and the subject of a certificate, whole.
fn names_of(der: &[u8]) -> Option<[Vec<u8>; 2]> {
    let (certificate, _) = element(der)?;
    let (mut rest, _) = element(certificate)?;
    let mut fields = Vec::new();
    // Version, serial number, algorithm, issuer, validity, subject.
    for _ in 0..6 {
        let (_, after) = element(rest)?;
        fields.push(rest[..rest.len() - after.len()].to_vec());
        rest = after;
    }
    Some([fields[3].clone(), fields[5].clone()])
}

/// The content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, head) = match *der.get(1)? {
        len @ 0..=0x7f => (usize::from(len), 2),
        0x81 => (usize::from(*der.get(2)?), 3),
        0x82 => (usize::from(u16::from_be_bytes([*der.get(2)?, *der.get(3)?])), 4),
        _ => return None,
    };
    der.get(head..)?.split_at_checked(len)
}

fn count_of(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |count| count.parse().unwrap())
}

#[test]
fn webpki_and_we_agree_on_generated_chains() {
    let count = count_of("X0_CHAINS", 10_000);
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let mut comparison = Comparison::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    let mut comparison = Comparison::default();
                    for seed in (worker..count).step_by(usize::try_from(threads).unwrap()) {
                        let generated = generate(seed, "", Scheme::Hashed);
                        let own = ours(&generated.vector, Scheme::Hashed);
                        let peer = webpki_accepts_with(&generated.vector, &ALGORITHMS);
                        comparison.add(seed, &generated, &own, peer, |feature| feature.webpki);
                    }
                    comparison
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| comparison.merge(worker.join().unwrap()));
    });
    comparison.check("webpki");
}

/// Chains of one process of OpenSSL: it looks for each issuer among all of theirs.
const BATCH: u64 = 250;

/// OpenSSL on a part of them. Names differ from chain to chain, so that one process verifies many.
#[test]
fn openssl_and_we_agree_on_generated_chains() {
    if super::oracles::openssl_is_missing() {
        return;
    }
    let count = count_of("X0_OPENSSL_CHAINS", 1_000);
    let folder = tempfile::tempdir().unwrap();
    let mut comparison = Comparison::default();
    for begin in (0..count).step_by(usize::try_from(BATCH).unwrap()) {
        let batch: Vec<(u64, Generated)> = (begin..count.min(begin + BATCH))
            .map(|seed| (seed, generate(seed, &format!(" of {seed}"), Scheme::Ecdsa)))
            .collect();
        let accepted = openssl_batch(folder.path(), &batch);
        for (position, (seed, generated)) in batch.iter().enumerate() {
            let own = ours(&generated.vector, Scheme::Ecdsa);
            comparison.add(*seed, generated, &own, accepted[position], |feature| feature.openssl);
        }
    }
    comparison.check("OpenSSL");
}

/// Whether OpenSSL accepts each chain, as client and as server.
fn openssl_batch(folder: &Path, batch: &[(u64, Generated)]) -> Vec<bool> {
    let (mut untrusted, mut trusted) = (String::new(), String::new());
    let mut files = Vec::new();
    for (position, (_, generated)) in batch.iter().enumerate() {
        let file = format!("{position}.pem");
        fs::write(folder.join(&file), pem(&generated.vector.chain[..1])).unwrap();
        files.push(file);
        untrusted += &pem(&generated.vector.chain[1..]);
        trusted += &pem(&generated.vector.bundle);
    }
    fs::write(folder.join("chain.pem"), untrusted).unwrap();
    fs::write(folder.join("bundle.pem"), trusted).unwrap();
    let now = batch.first().map_or(0, |(_, generated)| generated.vector.now);
    let verdicts = ["sslclient", "sslserver"].map(|purpose| {
        let mut command = openssl_verify(folder, purpose, now);
        let output = command.args(["-untrusted", "chain.pem"]).args(&files).output().unwrap();
        let valid = String::from_utf8_lossy(&output.stdout);
        files.iter().map(|file| valid.lines().any(|line| line == format!("{file}: OK"))).collect::<Vec<_>>()
    });
    verdicts[0].iter().zip(&verdicts[1]).map(|(client, server)| *client && *server).collect()
}
