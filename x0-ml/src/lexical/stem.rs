//! English stems by Porter's algorithm (M. F. Porter, "An algorithm for suffix stripping", 1980).

/// Whether and how words are reduced to stems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Stemming {
    /// Words stay as they are.
    #[default]
    None,
    /// English words are reduced by [`stem_english`].
    English,
}

/// Cuts the suffixes of an English word in lower case. Words with other characters than `a` to `z` stay as
/// they are.
pub fn stem_english(word: &mut String) {
    if word.len() < 3 || !word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return;
    }
    plurals(word);
    past_and_progressive(word);
    if ends(word, "y").is_some_and(has_vowel) {
        replace(word, "y", "i");
    }
    first_of(word, 0, STEP_2);
    first_of(word, 0, STEP_3);
    step_4(word);
    step_5(word);
}

const STEP_2: &[(&str, &str)] = &[
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("abli", "able"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
];
const STEP_3: &[(&str, &str)] = &[
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];
const STEP_4: &[&str] = &[
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism",
    "ate", "iti", "ous", "ive", "ize",
];

/// Steps 1a.
fn plurals(word: &mut String) {
    for (suffix, by) in [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")] {
        if ends(word, suffix).is_some() {
            return replace(word, suffix, by);
        }
    }
}

/// Step 1b.
fn past_and_progressive(word: &mut String) {
    if let Some(stem) = ends(word, "eed") {
        if measure(stem) > 0 {
            replace(word, "eed", "ee");
        }
        return;
    }
    let Some(suffix) = ["ed", "ing"].into_iter().find(|suffix| ends(word, suffix).is_some()) else { return };
    if !ends(word, suffix).is_some_and(has_vowel) {
        return;
    }
    replace(word, suffix, "");
    if ["at", "bl", "iz"].iter().any(|suffix| word.ends_with(suffix)) {
        word.push('e');
    } else if is_double(word) && !word.ends_with(['l', 's', 'z']) {
        word.pop();
    } else if measure(word) == 1 && ends_with_short_syllable(word) {
        word.push('e');
    }
}

/// Replaces the longest suffix of the list that the word has, if more than `above` measures stand before it.
fn first_of(word: &mut String, above: usize, suffixes: &[(&str, &str)]) {
    let longest =
        suffixes.iter().filter(|(suffix, _)| word.ends_with(suffix)).max_by_key(|(suffix, _)| suffix.len());
    if let Some((suffix, by)) = longest
        && ends(word, suffix).is_some_and(|stem| measure(stem) > above)
    {
        replace(word, suffix, by);
    }
}

fn step_4(word: &mut String) {
    let Some(suffix) =
        STEP_4.iter().filter(|suffix| word.ends_with(**suffix)).max_by_key(|suffix| suffix.len())
    else {
        return;
    };
    let cut = ends(word, suffix)
        .is_some_and(|stem| measure(stem) > 1 && (*suffix != "ion" || stem.ends_with(['s', 't'])));
    if cut {
        replace(word, suffix, "");
    }
}

fn step_5(word: &mut String) {
    if let Some(stem) = ends(word, "e")
        && (measure(stem) > 1 || (measure(stem) == 1 && !ends_with_short_syllable(stem)))
    {
        replace(word, "e", "");
    }
    if word.ends_with("ll") && measure(word) > 1 {
        word.pop();
    }
}

/// The part before the suffix.
fn ends<'a>(word: &'a str, suffix: &str) -> Option<&'a str> {
    word.strip_suffix(suffix)
}

fn replace(word: &mut String, suffix: &str, by: &str) {
    word.truncate(word.len() - suffix.len());
    word.push_str(by);
}

fn is_consonant(word: &[u8], at: usize) -> bool {
    match word[at] {
        b'a' | b'e' | b'i' | b'o' | b'u' => false,
        b'y' => at == 0 || !is_consonant(word, at - 1),
        _ => true,
    }
}

/// Sequences of vowels that consonants follow: Porter's m.
fn measure(stem: &str) -> usize {
    let word = stem.as_bytes();
    (1..word.len()).filter(|at| !is_consonant(word, at - 1) && is_consonant(word, *at)).count()
}

fn has_vowel(stem: &str) -> bool {
    (0..stem.len()).any(|at| !is_consonant(stem.as_bytes(), at))
}

fn is_double(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() > 1
        && bytes[bytes.len() - 1] == bytes[bytes.len() - 2]
        && is_consonant(bytes, bytes.len() - 1)
}

/// Consonant, vowel, consonant, and the last is not w, x or y: Porter's *o.
fn ends_with_short_syllable(word: &str) -> bool {
    let bytes = word.as_bytes();
    let len = bytes.len();
    len > 2
        && is_consonant(bytes, len - 3)
        && !is_consonant(bytes, len - 2)
        && is_consonant(bytes, len - 1)
        && !matches!(bytes[len - 1], b'w' | b'x' | b'y')
}
