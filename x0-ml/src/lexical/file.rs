//! The index as a file.

use std::collections::{BTreeMap, HashMap};

use super::bm25::{LexicalIndex, LexicalOptions};
use super::stem::Stemming;
use crate::file::{Damage, SectionWriter, Sections, count32};
use crate::index::{RestoreError, VectorId};

const KIND: [u8; 8] = *b"X0MLLEX\0";
const VERSION: u32 = 1;
const SETTINGS: u32 = 1;
const WORDS: u32 = 2;
const TEXTS: u32 = 3;

impl LexicalIndex {
    /// The index as the bytes of a file. Equal texts give equal bytes, whatever the order of changes was.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut sorted: Vec<usize> = self.terms.values().copied().collect();
        sorted.sort_unstable_by(|a, b| self.words[*a].cmp(&self.words[*b]));
        let (mut words, mut number_of) = (Vec::new(), HashMap::with_capacity(sorted.len()));
        for (place, term) in sorted.iter().enumerate() {
            number_of.insert(*term, count32(place));
            words.extend(count32(self.words[*term].len()).to_le_bytes());
            words.extend(self.words[*term].as_bytes());
        }
        let mut texts = Vec::new();
        let mut slots: Vec<_> = self.slot_of.iter().collect();
        slots.sort_unstable();
        for (id, slot) in slots {
            let Some(text) = &self.texts[*slot as usize] else { continue };
            let mut counts: Vec<(u32, u32)> = Vec::with_capacity(text.terms.len());
            for term in &text.terms {
                let list = &self.postings[*term];
                if let Ok(place) = list.binary_search_by_key(slot, |(slot, _)| *slot) {
                    counts.push((number_of[term], list[place].1));
                }
            }
            counts.sort_unstable();
            texts.extend(id.0.to_le_bytes());
            texts.extend(count32(counts.len()).to_le_bytes());
            for (word, count) in counts {
                texts.extend(word.to_le_bytes());
                texts.extend(count.to_le_bytes());
            }
        }
        let mut file = SectionWriter::new(KIND, VERSION);
        file.section(SETTINGS, u32::from(self.options.stemming == Stemming::English).to_le_bytes().to_vec());
        file.section(WORDS, words);
        file.section(TEXTS, texts);
        file.finish()
    }

    /// The index that [`save`](Self::save) wrote. Equal scores are in the order of numbers again, until
    /// [`set_order`](Self::set_order).
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(file: &[u8], options: LexicalOptions) -> Result<Self, RestoreError> {
        let sections = Sections::parse(file, KIND, VERSION)?;
        let mut settings = sections.section(SETTINGS)?;
        settings.expect(1, 4)?;
        if settings.u32()? != u32::from(options.stemming == Stemming::English) {
            return Err(RestoreError::Options { setting: "stemming" });
        }
        let mut bytes = sections.section(WORDS)?;
        let mut words: Vec<&str> = Vec::new();
        while bytes.len() > 0 {
            let damage = bytes.damage("a word is no text, or is out of order");
            let len = bytes.u32()? as usize;
            let word = std::str::from_utf8(bytes.bytes(len)?).map_err(|_| damage.clone())?;
            if words.last().is_some_and(|last| *last >= word) {
                return Err(damage.into());
            }
            words.push(word);
        }
        let mut index = Self::new(options);
        let mut texts = sections.section(TEXTS)?;
        let mut used = vec![false; words.len()];
        let mut last = None;
        while texts.len() > 0 {
            let damage = texts.damage("a text is out of order");
            let id = texts.u64()?;
            if last >= Some(id) {
                return Err(damage.into());
            }
            last = Some(id);
            let (mut counts, mut len, mut before) = (BTreeMap::new(), 0_u32, None);
            for _ in 0..texts.u32()? {
                let damage: Damage = texts.damage("a word of a text is unknown, out of order or not counted");
                let (word, count) = (texts.u32()?, texts.u32()?);
                let content = words.get(word as usize).filter(|_| count > 0 && before < Some(word));
                let content = content.ok_or_else(|| damage.clone())?;
                len = len.checked_add(count).ok_or(damage)?;
                used[word as usize] = true;
                before = Some(word);
                counts.insert((*content).to_owned(), count);
            }
            index.insert_counts(VectorId(id), id, len, counts);
        }
        if used.contains(&false) {
            return Err(texts.damage("a word stands in no text").into());
        }
        Ok(index)
    }
}
