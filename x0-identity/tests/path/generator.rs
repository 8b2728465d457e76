//! Random chains: changes of single certificates, and the shape of the chain around them.

use super::changes::{CHANGES, Change, Feature, Known, Whose, accepts, constraints, further_names, refuses};
use super::forge::{Forge, LEAF_URI, NOW, Scheme, tlv, uri};
use super::vectors::Vector;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// A feature of the certificates that are presented, or of the bundle.
const fn shape(name: &'static str, openssl: Option<Known>) -> Feature {
    Feature { name, webpki: None, openssl }
}

const FIRST: Option<Known> = refuses("takes the first certificate of a name and does not go back");

const MISSING: Feature = shape("one missing", None);
const STRANGER: Feature = shape("a stranger presented as well", None);
const ROOT: Feature = shape("the root presented as well", None);
const SAME_NAME: Feature = shape("a signer of the same name with another key", FIRST);
const CROSS: Feature = shape("a signer certified by a stranger as well", FIRST);
const LOOP: Feature = shape("a loop", FIRST);
const TWICE: Feature = shape("a certificate presented twice", None);
const ORDER: Feature = shape("another order", None);
const WILDCARD: Feature = shape("a wildcard", accepts("compares a wildcard as a label"));
const SAME_AUTHORITY: Feature = shape("two authorities of the same name", FIRST);
const OTHER_AUTHORITY: Feature = shape("two authorities", None);
/// Features that are no changes.
pub(crate) const SHAPES: [Feature; 11] = [
    MISSING,
    STRANGER,
    ROOT,
    SAME_NAME,
    CROSS,
    LOOP,
    TWICE,
    ORDER,
    WILDCARD,
    SAME_AUTHORITY,
    OTHER_AUTHORITY,
];

/// A chain with the changes that were made to it.
pub(crate) struct Generated {
    pub(crate) vector: Vector,
    pub(crate) features: Vec<Feature>,
}

/// The certificates of a chain before they are signed, from the root down.
struct Chain {
    root: Forge,
    signers: Vec<Forge>,
    leaf: Forge,
}

impl Chain {
    /// Up to 6 signers: webpki stops at 7 certificates. `mark` distinguishes the names of several chains.
    fn new(random: &mut Random, mark: &str) -> Chain {
        let mut root = Forge::root(&format!("root{mark}"), 1);
        if random.once_in(8) {
            root = root.set(30, true, &constraints(random));
        }
        let mut signers: Vec<Forge> = Vec::new();
        for index in 0..random.below(7) {
            let issuer = signers.last().unwrap_or(&root);
            let mut signer = Forge::signer(&format!("signer {index}{mark}"), 2 + index, issuer);
            if random.once_in(10) {
                signer = signer.set(30, true, &constraints(random));
            }
            // Long enough more often than not.
            if random.once_in(5) {
                signer = signer.path_len(u8::try_from(random.below(7)).unwrap());
            }
            signers.push(signer);
        }
        let leaf = Forge::leaf(signers.last().unwrap_or(&root));
        let names = [uri(LEAF_URI), further_names(random)].concat();
        Chain { root, signers, leaf: leaf.set(17, true, &tlv(0x30, &names)) }
    }

    /// Makes a change to one of the certificates, and renames the issuer below it accordingly.
    fn change(&mut self, random: &mut Random, change: &Change) -> bool {
        let position = match change.whose {
            Whose::Authority => {
                self.root = (change.apply)(random, self.root.clone());
                return true;
            }
            Whose::Signer if self.signers.is_empty() => return false,
            Whose::Signer => random.below(self.signers.len()),
            Whose::Presented if !random.once_in(3) && !self.signers.is_empty() => {
                random.below(self.signers.len())
            }
            Whose::Leaf | Whose::Presented => {
                self.leaf = (change.apply)(random, self.leaf.clone());
                return true;
            }
        };
        let changed = (change.apply)(random, self.signers[position].clone());
        let renamed = changed.subject != self.signers[position].subject;
        self.signers[position] = changed;
        if renamed {
            let subject = self.signers[position].subject.clone();
            self.signers.get_mut(position + 1).unwrap_or(&mut self.leaf).issuer = subject;
        }
        true
    }

    /// The certificates beside the leaf as presented.
    fn presented(&self, random: &mut Random, mark: &str, features: &mut Vec<Feature>) -> Vec<Forge> {
        let mut presented = self.signers.clone();
        let stranger = Forge::root(&format!("stranger{mark}"), 10);
        let (first, last) = (self.signers.first(), self.signers.last());
        let feature = match (random.below(16), first, last) {
            (0, ..) => {
                presented.pop();
                MISSING
            }
            (1, ..) => {
                presented.push(stranger);
                STRANGER
            }
            (2, ..) => {
                presented.push(self.root.clone());
                ROOT
            }
            (3, Some(first), _) => {
                presented.insert(0, first.clone().with(|first| first.key = 9));
                SAME_NAME
            }
            (4, _, Some(last)) => {
                let certified = last.clone().with(|last| last.issuer.clone_from(&stranger.subject));
                presented.insert(0, certified.with(|last| last.signer = stranger.key));
                CROSS
            }
            (5, Some(first), Some(last)) if self.signers.len() > 1 => {
                let certified = first.clone().with(|first| first.issuer.clone_from(&last.subject));
                presented.insert(0, certified.with(|first| first.signer = last.key));
                LOOP
            }
            (6, Some(first), _) => {
                presented.push(first.clone());
                TWICE
            }
            _ => ORDER,
        };
        for position in (1..presented.len()).rev() {
            if random.once_in(3) {
                presented.swap(position, random.below(position + 1));
            }
        }
        features.push(feature);
        presented.truncate(6);
        presented
    }
}

pub(crate) fn generate(seed: u64, mark: &str, scheme: Scheme) -> Generated {
    let mut random = Random(seed);
    let mut chain = Chain::new(&mut random, mark);
    let mut features = Vec::new();
    for _ in 0..[0, 0, 1, 1, 1, 1, 1, 2, 2, 3][random.below(10)] {
        let change = &CHANGES[random.below(CHANGES.len())];
        if chain.change(&mut random, change) {
            features.push(change.feature);
        }
    }
    let presented = chain.presented(&mut random, mark, &mut features);
    let mut extensions = chain.signers.iter().chain([&chain.leaf]).flat_map(|forge| &forge.extensions);
    if extensions.any(|(_, whole)| whole.windows(2).any(|pair| pair == b"*.")) {
        features.push(WILDCARD);
    }
    let mut bundle = vec![chain.root.build_with(scheme)];
    if random.once_in(6) {
        let (name, feature) =
            if random.once_in(2) { ("root", SAME_AUTHORITY) } else { ("other root", OTHER_AUTHORITY) };
        bundle.insert(random.below(2), Forge::root(&format!("{name}{mark}"), 11).build_with(scheme));
        features.push(feature);
    }
    let chain = [&chain.leaf].into_iter().chain(&presented).map(|forge| forge.build_with(scheme)).collect();
    Generated {
        vector: Vector { name: String::new(), section: "", chain, bundle, now: NOW, accept: false },
        features,
    }
}
