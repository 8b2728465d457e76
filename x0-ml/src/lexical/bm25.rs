//! The inverted index.

use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use super::stem::{Stemming, stem_english};
use super::words::words;
use crate::index::{Filter, Neighbour, VectorId};

/// Settings of a [`LexicalIndex`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LexicalOptions {
    /// How soon more occurrences of a word stop to matter; 1.2 by default.
    pub k1: f32,
    /// How much long texts lose, from 0 to 1; 0.75 by default.
    pub b: f32,
    /// Reduction of words to stems; none by default.
    pub stemming: Stemming,
}

impl Default for LexicalOptions {
    fn default() -> Self {
        Self { k1: 1.2, b: 0.75, stemming: Stemming::None }
    }
}

impl LexicalOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the saturation of occurrences.
    #[must_use]
    pub fn k1(mut self, k1: f32) -> Self {
        self.k1 = k1;
        self
    }

    /// Sets the weight of the length.
    #[must_use]
    pub fn b(mut self, b: f32) -> Self {
        self.b = b;
        self
    }

    /// Sets the stemming.
    #[must_use]
    pub fn stemming(mut self, stemming: Stemming) -> Self {
        self.stemming = stemming;
        self
    }
}

/// Texts by their words, ranked by BM25 (Robertson, Zaragoza 2009; the inverse document frequency of Lucene,
/// which is never negative).
///
/// Removals and updates change the lists of the words in place; nothing of a removed text stays.
#[derive(Debug, Clone)]
pub struct LexicalIndex {
    pub(super) options: LexicalOptions,
    pub(super) terms: HashMap<Arc<str>, usize>,
    /// By term: its word.
    pub(super) words: Vec<Arc<str>>,
    /// By term: texts and occurrences, in the order of slots.
    pub(super) postings: Vec<Vec<(u32, u32)>>,
    /// Terms that no text holds; their places are used again.
    pub(super) free_terms: Vec<usize>,
    /// By slot; `None` is free.
    pub(super) texts: Vec<Option<Text>>,
    /// By slot: words of the text; 0 if the slot is free.
    pub(super) lens: Vec<u32>,
    pub(super) free: BinaryHeap<Reverse<u32>>,
    pub(super) slot_of: HashMap<VectorId, u32>,
    /// Words of all texts.
    pub(super) len_total: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) id: VectorId,
    /// Its place among texts of the same score.
    pub(super) order: u64,
    pub(super) terms: Box<[usize]>,
}

/// A text that holds a word of a query. The better one is the lesser one.
#[derive(Clone, Copy, PartialEq)]
struct Found {
    score: f32,
    order: u64,
    id: VectorId,
}

impl Eq for Found {}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_order = other.score.total_cmp(&self.score).then(self.order.cmp(&other.order));
        by_order.then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Texts that a search rules out together.
const PART: usize = 64;

/// Memory of a search.
#[derive(Debug, Default)]
struct Scratch {
    /// By slot.
    scores: Vec<f32>,
    /// By slot: what the length of the text adds to the occurrences that halve the effect of a word.
    norms: Vec<f32>,
}

thread_local! {
    /// Memory of the searches in this thread, as large as the largest index.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl LexicalIndex {
    /// An empty index.
    #[must_use]
    pub fn new(options: LexicalOptions) -> Self {
        Self {
            options,
            terms: HashMap::new(),
            words: Vec::new(),
            postings: Vec::new(),
            free_terms: Vec::new(),
            texts: Vec::new(),
            lens: Vec::new(),
            free: BinaryHeap::new(),
            slot_of: HashMap::new(),
            len_total: 0,
        }
    }

    /// Texts held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slot_of.len()
    }

    /// Whether no text is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slot_of.is_empty()
    }

    /// Whether a text of this number is held.
    #[must_use]
    pub fn contains(&self, id: VectorId) -> bool {
        self.slot_of.contains_key(&id)
    }

    /// Different words held.
    #[must_use]
    pub fn terms_len(&self) -> usize {
        self.terms.len()
    }

    /// Adds a text, or replaces the one of this number.
    pub fn insert(&mut self, id: VectorId, text: &str) {
        self.insert_ordered(id, text, id.0);
    }

    /// Adds a text, or replaces the one of this number. Texts of equal score stand in the ascending order of
    /// `order`, which is the number itself by default. A file does not hold it: see
    /// [`set_order`](Self::set_order).
    pub fn insert_ordered(&mut self, id: VectorId, text: &str, order: u64) {
        let (mut counts, mut len) = (BTreeMap::<String, u32>::new(), 0_u32);
        self.each_word(text, &mut |word| {
            len = len.saturating_add(1);
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => _ = counts.insert(word.to_owned(), 1),
            }
        });
        self.insert_counts(id, order, len, counts);
    }

    /// Sets the place of a text among those of equal score, after the index was restored. `false`: the text
    /// is not held.
    pub fn set_order(&mut self, id: VectorId, order: u64) -> bool {
        let text = self.slot_of.get(&id).and_then(|slot| self.texts[*slot as usize].as_mut());
        text.map(|text| text.order = order).is_some()
    }

    pub(super) fn insert_counts(
        &mut self,
        id: VectorId,
        order: u64,
        len: u32,
        counts: BTreeMap<String, u32>,
    ) {
        self.remove(id);
        let slot = self.free.pop().map_or_else(
            || {
                self.texts.push(None);
                self.lens.push(0);
                // A text has at least an id in memory: there are fewer than 2^32.
                u32::try_from(self.texts.len() - 1).unwrap_or(u32::MAX)
            },
            |Reverse(slot)| slot,
        );
        let mut terms = Vec::with_capacity(counts.len());
        for (word, count) in counts {
            let term = self.term(&word);
            let list = &mut self.postings[term];
            let place = list.partition_point(|(other, _)| *other < slot);
            list.insert(place, (slot, count));
            terms.push(term);
        }
        self.texts[slot as usize] = Some(Text { id, order, terms: terms.into() });
        self.lens[slot as usize] = len;
        self.slot_of.insert(id, slot);
        self.len_total += u64::from(len);
    }

    /// Removes a text; `false` if there was none.
    pub fn remove(&mut self, id: VectorId) -> bool {
        let Some(slot) = self.slot_of.remove(&id) else { return false };
        let Some(text) = self.texts[slot as usize].take() else { return false };
        for term in &text.terms {
            let list = &mut self.postings[*term];
            if let Ok(place) = list.binary_search_by_key(&slot, |(slot, _)| *slot) {
                list.remove(place);
            }
            if list.is_empty() {
                *list = Vec::new();
                self.free_terms.push(*term);
                self.terms.remove(&std::mem::take(&mut self.words[*term]));
            }
        }
        self.len_total -= u64::from(std::mem::take(&mut self.lens[slot as usize]));
        self.free.push(Reverse(slot));
        true
    }

    /// The `k` best texts for a query that pass the filter, the best first; equal scores in the order that
    /// [`insert_ordered`](Self::insert_ordered) gave them, and then in that of their numbers.
    ///
    /// The score of a word that stands twice in the query counts twice. Each thread that has searched keeps 8
    /// bytes for each text of the largest index that it has searched, until it ends.
    #[must_use]
    pub fn search(&self, query: &str, k: usize, filter: Option<Filter<'_>>) -> Vec<Neighbour> {
        // In the order of the words: floating-point sums depend on their order, and the numbers of terms
        // depend on the history of the index, which the scores must not.
        let mut terms = BTreeMap::<String, (usize, f32)>::new();
        self.each_word(query, &mut |word| {
            if let Some(term) = self.terms.get(word) {
                terms.entry(word.to_owned()).or_insert((*term, 0.0)).1 += 1.0;
            }
        });
        // A filter may itself search another index in this thread: such a search has memory of its own.
        SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => self.best(terms.values(), k, filter, &mut scratch),
            Err(_) => self.best(terms.values(), k, filter, &mut Scratch::default()),
        })
    }

    /// The `k` best texts for terms with their weights.
    fn best<'a>(
        &self,
        terms: impl Iterator<Item = &'a (usize, f32)>,
        k: usize,
        filter: Option<Filter<'_>>,
        scratch: &mut Scratch,
    ) -> Vec<Neighbour> {
        let Scratch { scores, norms } = scratch;
        let LexicalOptions { k1, b, .. } = self.options;
        let mean = self.len_total as f32 / self.len().max(1) as f32;
        norms.clear();
        norms.extend(self.lens.iter().map(|len| k1 * (1.0 - b + b * *len as f32 / mean)));
        scores.clear();
        scores.resize(self.texts.len(), 0.0);
        for (term, weight) in terms {
            let list = &self.postings[*term];
            let (all, having) = (self.len() as f32, list.len() as f32);
            let rarity = (1.0 + (all - having + 0.5) / (having + 0.5)).ln();
            let factor = weight * rarity;
            for (slot, count) in list {
                let (slot, count) = (*slot as usize, *count as f32);
                scores[slot] += factor * count / (count + norms[slot]);
            }
        }
        let mut best: BinaryHeap<Found> = BinaryHeap::with_capacity(k.min(self.len()) + 1);
        // A text with a lower score is not among the best, nor is one without a word of the query.
        let mut least = f32::MIN_POSITIVE;
        for (scores, texts) in scores.chunks(PART).zip(self.texts.chunks(PART)) {
            // Most parts hold no text that is good enough: processors compare their scores side by side.
            if !scores.iter().fold(false, |any, score| any | (*score >= least)) {
                continue;
            }
            for (score, text) in scores.iter().zip(texts) {
                let Some(text) = text.as_ref().filter(|_| *score >= least) else { continue };
                let found = Found { score: *score, order: text.order, id: text.id };
                let is_full = best.len() >= k;
                if is_full && best.peek().is_none_or(|worst| found > *worst)
                    || filter.is_some_and(|passes| !passes(text.id))
                {
                    continue;
                }
                best.push(found);
                if is_full {
                    best.pop();
                }
                if let Some(worst) = best.peek().filter(|_| best.len() >= k) {
                    least = worst.score;
                }
            }
        }
        let found = best.into_sorted_vec();
        found.into_iter().map(|found| Neighbour { id: found.id, score: found.score }).collect()
    }

    /// How alike two texts are: the share of their different words that both hold (Jaccard 1901), from 0 to
    /// 1; `None` unless both are held.
    #[must_use]
    pub fn likeness(&self, a: VectorId, b: VectorId) -> Option<f32> {
        let terms = |id: VectorId| {
            let text = self.texts[*self.slot_of.get(&id)? as usize].as_ref()?;
            Some(&text.terms)
        };
        let (a, b) = (terms(a)?, terms(b)?);
        let (fewer, more) = (a.len().min(b.len()), a.len().max(b.len()));
        if more == 0 {
            return Some(1.0);
        }
        // Both lists are in the order of their words.
        let (mut a, mut b, mut common) = (a.iter().peekable(), b.iter().peekable(), 0);
        while let (Some(first), Some(second)) = (a.peek(), b.peek()) {
            match self.words[**first].cmp(&self.words[**second]) {
                Ordering::Less => _ = a.next(),
                Ordering::Greater => _ = b.next(),
                Ordering::Equal => {
                    common += 1;
                    a.next();
                    b.next();
                }
            }
        }
        Some(common as f32 / (fewer + more - common) as f32)
    }

    fn each_word(&self, text: &str, each: &mut dyn FnMut(&str)) {
        let mut stem = String::new();
        words(text, &mut |word| match self.options.stemming {
            Stemming::None => each(word),
            Stemming::English => {
                stem.clear();
                stem.push_str(word);
                stem_english(&mut stem);
                each(&stem);
            }
        });
    }

    fn term(&mut self, word: &str) -> usize {
        if let Some(term) = self.terms.get(word) {
            return *term;
        }
        let term = self.free_terms.pop().unwrap_or_else(|| {
            self.postings.push(Vec::new());
            self.words.push(Arc::default());
            self.postings.len() - 1
        });
        let word: Arc<str> = word.into();
        self.words[term] = Arc::clone(&word);
        self.terms.insert(word, term);
        term
    }
}
