//! Words of a text.

/// Characters that join the parts of an identifier, as in `xdp_filter`, `node.toml` or `x0-ml`.
fn is_joint(character: char) -> bool {
    matches!(character, '_' | '-' | '.' | ':' | '/')
}

/// Scripts that are written without spaces: each of their characters is a word.
fn is_ideograph(character: char) -> bool {
    matches!(character, '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{323AF}')
}

/// Calls `each` with every word, in lower case.
///
/// A word is a run of letters and digits. An identifier (runs with `_`, `-`, `.`, `:` or `/` between them, or
/// hyphens before the first) is a word as a whole, and its runs are words too.
pub fn words(text: &str, each: &mut dyn FnMut(&str)) {
    let mut lower = String::new();
    let mut done = 0;
    while let Some((start, first)) = text[done..].char_indices().find(|(_, c)| c.is_alphanumeric()) {
        let start = done + start;
        if is_ideograph(first) {
            put(&text[start..start + first.len_utf8()], &mut lower, each);
            done = start + first.len_utf8();
            continue;
        }
        let end = start + identifier_len(&text[start..]);
        let from = start - option_hyphens(&text[..start]);
        let identifier = &text[from..end];
        if identifier.contains(is_joint) {
            put(identifier, &mut lower, each);
        }
        for part in identifier.split(is_joint).filter(|part| !part.is_empty()) {
            put(part, &mut lower, each);
        }
        done = end;
    }
}

/// The one or two hyphens of an option, as in `--ef`, before which nothing stands.
fn option_hyphens(before: &str) -> usize {
    let rest = before.trim_end_matches('-');
    let hyphens = before.len() - rest.len();
    if hyphens <= 2 && rest.chars().next_back().is_none_or(char::is_whitespace) { hyphens } else { 0 }
}

fn put(word: &str, lower: &mut String, each: &mut dyn FnMut(&str)) {
    lower.clear();
    lower.extend(word.chars().flat_map(char::to_lowercase));
    each(lower);
}

/// Bytes of the identifier at the start of the text: runs of letters and digits with single joints between
/// them.
fn identifier_len(text: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric() && !is_ideograph(c);
    let mut end = 0;
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if is_part(character) {
            end = at + character.len_utf8();
        } else if !is_joint(character) || !characters.peek().is_some_and(|(_, next)| is_part(*next)) {
            break;
        }
    }
    end
}
