//! Glob patterns of push rules: `*` is any run of characters, `?` any one; case is ignored.
//!
//! No backtracking: each piece between stars is put at its leftmost place, which leaves the most room for the rest. The time is
//! bounded by the text's length times [`MAX_PATTERN`], whatever the pattern is.

/// The longest pattern that can match, in characters. Longer ones, which no client makes, match nothing.
pub const MAX_PATTERN: usize = 512;

/// Whether the whole text matches.
pub fn matches(pattern: &str, text: &str) -> bool {
    // Nearly all patterns are the plain names of the default rules, held against every event.
    if pattern.is_ascii() && text.is_ascii() && !pattern.contains(['*', '?']) {
        return pattern.len() <= MAX_PATTERN && pattern.eq_ignore_ascii_case(text);
    }
    let (Some(pattern), text) = (Pieces::of(pattern), fold(text)) else {
        return false;
    };
    let end = text.len();
    pattern.find_in(&text, |at| at == 0, |at| at == end)
}

/// Whether a part of the text matches that begins and ends at word boundaries. An empty pattern matches nothing.
pub fn matches_words(pattern: &str, text: &str) -> bool {
    if !pattern.contains(['*', '?']) {
        return contains_words(pattern, text);
    }
    let text = fold(text);
    Pieces::of(pattern).is_some_and(|pieces| pieces.find_words(&text))
}

/// Whether the text has these very words, between word boundaries: no character of them is a wildcard.
///
/// Asked several times of each event that somebody has not read, which may be long: so it looks at bytes.
pub fn contains_words(words: &str, text: &str) -> bool {
    let (words, text) = (lower(words), lower(text));
    let Some(first) = words.chars().next() else {
        return false;
    };
    if words.chars().count() > MAX_PATTERN {
        return false;
    }
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find(&words)) {
        let (start, end) = (from + at, from + at + words.len());
        if is_edge(text.as_bytes(), start) && is_edge(text.as_bytes(), end) {
            return true;
        }
        from = start + first.len_utf8();
    }
    false
}

/// The ends of the text, and the places beside a byte that is of no word character.
fn is_edge(text: &[u8], at: usize) -> bool {
    let is_word = |at: Option<usize>| {
        let byte = at.and_then(|at| text.get(at));
        byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    !is_word(at.checked_sub(1)) || !is_word(Some(at))
}

/// The ends of the text, and the places beside a character that is no word character.
fn boundary(text: &[char], at: usize) -> bool {
    let is_word = |at: Option<usize>| {
        at.and_then(|at| text.get(at))
            .is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_')
    };
    !is_word(at.checked_sub(1)) || !is_word(Some(at))
}

/// As [`fold`], for what is looked for as it is.
fn lower(text: &str) -> String {
    if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        text.chars().flat_map(char::to_lowercase).collect()
    }
}

fn fold(text: &str) -> Vec<char> {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// A pattern cut at its stars; never empty.
struct Pieces(Vec<Vec<char>>);

impl Pieces {
    fn of(pattern: &str) -> Option<Self> {
        let pattern = fold(pattern);
        (pattern.len() <= MAX_PATTERN)
            .then(|| Self(pattern.split(|c| *c == '*').map(<[char]>::to_vec).collect()))
    }

    fn find_words(&self, text: &[char]) -> bool {
        self.find_in(text, |at| boundary(text, at), |at| boundary(text, at))
    }

    fn find_in(
        &self,
        text: &[char],
        begins: impl Fn(usize) -> bool,
        ends: impl Fn(usize) -> bool,
    ) -> bool {
        let last = self.0.len() - 1;
        let mut at = 0;
        for (index, piece) in self.0.iter().enumerate() {
            let found = (at..=text.len()).find(|start| {
                (index != 0 || begins(*start))
                    && (index != last || ends(start + piece.len()))
                    && stands_at(piece, text, *start)
            });
            let Some(start) = found else { return false };
            at = start + piece.len();
        }
        true
    }
}

fn stands_at(piece: &[char], text: &[char], at: usize) -> bool {
    text.get(at..at + piece.len()).is_some_and(|part| {
        piece
            .iter()
            .zip(part)
            .all(|(want, have)| *want == '?' || want == have)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_the_whole_text() {
        let cases = [
            ("m.room.*", "m.room.message", true),
            ("m.room.*", "xm.room.message", false),
            ("M.Room.Message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("STRAẞE", "straße", true),
            ("m.?oom", "m.room", true),
            ("m.?oom", "m.oom", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("a*b*a", "aba", true),
            ("a*a", "a", false),
            ("*b", "abab", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn words_are_found_at_their_boundaries() {
        let cases = [
            ("cake", "Have a Cake!", true),
            ("cake", "cakes", false),
            ("cake", "pancake cake", true),
            ("cak?", "a cake.", true),
            ("ca*", "some cakes", true),
            ("*ake", "some cakes", false),
            ("cake*lie", "the cake is a lie", true),
            ("cake*lie", "the cake is a lier", false),
            ("foo_bar", "foo_bar_baz", false),
            ("Ștefan", "salut, ștefan", true),
            ("", "anything", false),
            ("b", "", false),
            ("aba", "xaba ababa aba", true),
            ("aba", "ababa", false),
            ("a-a", "xa-a-a", true),
            ("ă", "măr ă", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches_words(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_is_done_soon_and_never_panics() {
        let text = "a".repeat(65_000);
        assert!(!contains_words(&"a".repeat(500), &format!("{text}b")));
        assert!(!matches(&format!("{}b", "a*".repeat(200)), &text));
        assert!(!matches_words(&"?".repeat(100_000), &text));
    }
}
