//! What a text is cut into, in every script.
//!
//! Most scripts put spaces between words: a word is a run of letters, digits and what combines with them, in lower case and without accents.
//! Chinese, Japanese, Korean (whose spaces stand between phrases), Thai, Lao, Khmer and Burmese do not: a run of their characters is cut
//! into single characters and pairs of neighbours, all at their places, so that any part of the run is found.

/// The longest word, in characters; of a longer one only the beginning counts.
const LONGEST: usize = 64;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A word, in lower case and without most accents (those of Latin letters are taken off by a filter of tantivy's).
    Word {
        /// The word.
        text: String,
        /// Where it begins in the text, in bytes.
        from: usize,
        /// Where it ends.
        to: usize,
    },
    /// Characters of a script without spaces: each with where it begins and ends.
    Run(Vec<(char, usize, usize)>),
}

/// Cuts a text.
pub(crate) fn units(text: &str) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut open = Open::None;
    for (from, character) in text.char_indices() {
        let to = from + character.len_utf8();
        match kind(character) {
            Kind::Apart => open.close(&mut units),
            Kind::Letter => open.letter(character, from, to, &mut units),
            Kind::Alone => open.alone(character, from, to, &mut units),
            Kind::Mark => open.mark(to),
        }
    }
    open.close(&mut units);
    units
}

/// What is being gathered.
enum Open {
    None,
    Word {
        text: String,
        length: usize,
        from: usize,
        to: usize,
    },
    Run(Vec<(char, usize, usize)>),
}

impl Open {
    fn close(&mut self, units: &mut Vec<Unit>) {
        match std::mem::replace(self, Self::None) {
            Self::None => {}
            Self::Word { text, from, to, .. } => units.push(Unit::Word { text, from, to }),
            Self::Run(characters) => units.push(Unit::Run(characters)),
        }
    }

    fn letter(&mut self, character: char, start: usize, end: usize, units: &mut Vec<Unit>) {
        if !matches!(self, Self::Word { .. }) {
            self.close(units);
            *self = Self::Word {
                text: String::new(),
                length: 0,
                from: start,
                to: end,
            };
        }
        let Self::Word {
            text, length, to, ..
        } = self
        else {
            return;
        };
        *to = end;
        if *length < LONGEST {
            *length += 1;
            let lower = character.to_lowercase().filter(|it| !is_mark(*it));
            text.extend(lower.map(plain));
        }
    }

    fn alone(&mut self, character: char, from: usize, to: usize, units: &mut Vec<Unit>) {
        if !matches!(self, Self::Run(_)) {
            self.close(units);
            *self = Self::Run(Vec::new());
        }
        if let Self::Run(characters) = self {
            characters.push((character, from, to));
        }
    }

    /// A mark belongs to what is open; it is not part of what is searched for.
    fn mark(&mut self, end: usize) {
        if let Self::Word { to, .. } = self {
            *to = end;
        }
    }
}

enum Kind {
    /// Part of a word.
    Letter,
    /// Of a script without spaces.
    Alone,
    /// Combines with a letter and is passed over.
    Mark,
    /// Between words.
    Apart,
}

fn kind(character: char) -> Kind {
    let code = u32::from(character);
    if character.is_ascii() {
        return if character.is_ascii_alphanumeric() {
            Kind::Letter
        } else {
            Kind::Apart
        };
    }
    if is_mark(character) {
        return Kind::Mark;
    }
    match code {
        // Thai, Lao, Burmese and Khmer: letters, vowels and tones, but not their punctuation.
        0x0E3F | 0x0E4F | 0x0E5A | 0x0E5B | 0x104A..=0x104F | 0x17D4..=0x17DB => Kind::Apart,
        0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF => Kind::Alone,
        // The marks that make kana voiced.
        0x3099 | 0x309A => Kind::Alone,
        // Hangul, radicals, kana, bopomofo, ideographs, half-width kana.
        0x1100..=0x11FF
        | 0x2E80..=0x2FDF
        | 0x3005..=0x3007
        | 0x3021..=0x3029
        | 0x3040..=0x31FF
        | 0x3400..=0x4DBF
        | 0x4E00..=0x9FFF
        | 0xA960..=0xA97F
        | 0xAC00..=0xD7FF
        | 0xF900..=0xFAFF
        | 0xFF66..=0xFF9F
        | 0x2_0000..=0x3_FFFF
            if character.is_alphanumeric() =>
        {
            Kind::Alone
        }
        // Indian scripts: some signs that join letters are none themselves; two are full stops.
        0x0964 | 0x0965 | 0x0970 => Kind::Apart,
        0x0900..=0x0DFF => Kind::Letter,
        _ if character.is_alphanumeric() => Kind::Letter,
        _ => Kind::Apart,
    }
}

/// What combines with a letter: accents, vowel points of Hebrew and Arabic, joiners, the stroke that stretches Arabic words.
fn is_mark(character: char) -> bool {
    matches!(
        u32::from(character),
        0x00AD
            | 0x0300..=0x036F
            | 0x0483..=0x0489
            | 0x0591..=0x05BD
            | 0x05BF
            | 0x05C1
            | 0x05C2
            | 0x05C4
            | 0x05C5
            | 0x05C7
            | 0x0610..=0x061A
            | 0x0640
            | 0x064B..=0x065F
            | 0x0670
            | 0x06D6..=0x06DC
            | 0x06DF..=0x06E4
            | 0x1AB0..=0x1AFF
            | 0x1DC0..=0x1DFF
            | 0x200B..=0x200D
            | 0x20D0..=0x20FF
            | 0xFE00..=0xFE0F
            | 0xFE20..=0xFE2F
    )
}

/// A lower-case letter without its accent, of scripts other than Latin.
fn plain(character: char) -> char {
    match character {
        'ά' => 'α',
        'έ' => 'ε',
        'ή' => 'η',
        'ί' | 'ϊ' | 'ΐ' => 'ι',
        'ό' => 'ο',
        'ύ' | 'ϋ' | 'ΰ' => 'υ',
        'ώ' => 'ω',
        'ς' => 'σ',
        'ё' | 'ѐ' => 'е',
        'ѝ' => 'и',
        'أ' | 'إ' | 'آ' | 'ٱ' => 'ا',
        'ى' => 'ي',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::string_slice)]
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let shown = units(text).into_iter().map(|unit| match unit {
            Unit::Word { text, .. } => text,
            Unit::Run(characters) => {
                let characters: String = characters.into_iter().map(|it| it.0).collect();
                format!("[{characters}]")
            }
        });
        shown.collect()
    }

    #[test]
    fn every_script_is_cut_into_what_people_search_for() {
        for (text, expected) in [
            ("Hello, World!", vec!["hello", "world"]),
            ("e\u{301}tude", vec!["etude"]),
            ("room_id 42", vec!["room", "id", "42"]),
            ("Άνοιξη ΣΟΦΟΣ σοφός", vec!["ανοιξη", "σοφοσ", "σοφοσ"]),
            ("Ещё ёж", vec!["еще", "еж"]),
            ("مُحَمَّد أحمد", vec!["محمد", "احمد"]),
            ("שָׁלוֹם", vec!["שלום"]),
            ("हिन्दी में।", vec!["हिन्दी", "में"]),
            ("山田太郎です。", vec!["[山田太郎です]"]),
            ("Rustの本", vec!["rust", "[の本]"]),
            ("학교에서 공부", vec!["[학교에서]", "[공부]"]),
            ("สวัสดีครับ", vec!["[สวัสดีครับ]"]),
            ("İstanbul", vec!["istanbul"]),
            ("… — 🎉", vec![]),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn the_places_of_words_are_those_in_the_text() {
        let text = "a Café e\u{301}t 本";
        let places: Vec<&str> = units(text)
            .into_iter()
            .map(|unit| match unit {
                Unit::Word { from, to, .. } => &text[from..to],
                Unit::Run(characters) => &text[characters[0].1..characters[0].2],
            })
            .collect();
        assert_eq!(places, ["a", "Café", "e\u{301}t", "本"]);
    }

    #[test]
    fn a_word_without_end_is_cut() {
        let long = "x".repeat(60_000);
        assert_eq!(shown(&long), [long[..LONGEST].to_owned()]);
    }
}
