//! What someone searches for, and the cutting of texts for tantivy.

use std::collections::HashSet;

use tantivy::{
    Term,
    query::{PhraseQuery, Query, TermQuery},
    schema::{Field, IndexRecordOption},
    tokenizer::{AsciiFoldingFilter, RawTokenizer, TextAnalyzer, Token, TokenStream, Tokenizer},
};

use crate::script::{Unit, units};

/// The most words that are searched for at once.
const MOST: usize = 32;
/// The most characters of a run without spaces.
const LONGEST_RUN: usize = 64;
/// The most words that [`Terms::found_in`] gives.
const MOST_FOUND: usize = 32;

/// There are more words, or there is a longer run of characters, than are searched for at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "at most {MOST} words, and {LONGEST_RUN} characters without a space, can be searched for at once"
)]
pub struct TooLong;

/// What someone searches for: a text matches if it has all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    all: Vec<One>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum One {
    /// A word as it stands in the index.
    Word(String),
    /// Characters of a script without spaces, in this order.
    Run(String),
}

impl Terms {
    /// Reads what someone has typed. Words that are there twice count once.
    ///
    /// # Errors
    /// [`TooLong`]
    pub fn read(text: &str) -> Result<Self, TooLong> {
        let mut all = Vec::new();
        let mut folder = folder();
        for unit in units(text) {
            let one = match unit {
                Unit::Word { text, .. } => One::Word(folded(&mut folder, &text)),
                Unit::Run(characters) if characters.len() > LONGEST_RUN => return Err(TooLong),
                Unit::Run(characters) => One::Run(characters.iter().map(|it| it.0).collect()),
            };
            if !all.contains(&one) {
                all.push(one);
            }
            if all.len() > MOST {
                return Err(TooLong);
            }
        }
        Ok(Self { all })
    }

    /// Whether there is nothing to search for: then nothing matches.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What of the texts is searched for, as it stands in them and in lower case: to be highlighted there. What stands in none of them
    /// is given as it is searched for.
    pub fn found_in<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        let mut met: HashSet<String> = HashSet::new();
        let mut folder = folder();
        for text in texts {
            for unit in units(text) {
                let Unit::Word {
                    text: word,
                    from,
                    to,
                } = unit
                else {
                    continue;
                };
                let word = folded(&mut folder, &word);
                if !self.all.contains(&One::Word(word.clone())) {
                    continue;
                }
                let there = text.get(from..to).unwrap_or_default().to_lowercase();
                met.insert(word);
                if found.len() < MOST_FOUND && !found.contains(&there) {
                    found.push(there);
                }
            }
        }
        for one in &self.all {
            match one {
                One::Word(word) if met.contains(word) => {}
                One::Word(text) | One::Run(text) => found.push(text.clone()),
            }
        }
        found
    }

    pub(crate) fn queries(&self, field: Field) -> Vec<Box<dyn Query>> {
        self.all.iter().map(|one| one.query(field)).collect()
    }
}

impl One {
    fn query(&self, field: Field) -> Box<dyn Query> {
        let term = |text: &str| Term::from_field_text(field, text);
        let text = match self {
            Self::Word(text) | Self::Run(text) => text,
        };
        let pairs = match self {
            Self::Run(text) => pairs(text),
            Self::Word(_) => Vec::new(),
        };
        if pairs.len() < 2 {
            let option = IndexRecordOption::WithFreqs;
            return Box::new(TermQuery::new(term(text), option));
        }
        Box::new(PhraseQuery::new(
            pairs.iter().map(|pair| term(pair)).collect(),
        ))
    }
}

/// The pairs of neighbours.
fn pairs(text: &str) -> Vec<String> {
    let next = text.chars().skip(1);
    let pairs = text.chars().zip(next);
    pairs
        .map(|(one, two)| String::from_iter([one, two]))
        .collect()
}

/// Takes the accents off Latin letters.
fn folder() -> TextAnalyzer {
    TextAnalyzer::builder(RawTokenizer::default())
        .filter(AsciiFoldingFilter)
        .build()
}

fn folded(folder: &mut TextAnalyzer, word: &str) -> String {
    if word.is_ascii() {
        return word.to_owned();
    }
    let mut stream = folder.token_stream(word);
    match stream.next() {
        Some(token) => token.text.clone(),
        None => word.to_owned(),
    }
}

/// How texts are cut for the index.
pub(crate) fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(EveryScript)
        .filter(AsciiFoldingFilter)
        .build()
}

#[derive(Clone)]
struct EveryScript;

impl Tokenizer for EveryScript {
    type TokenStream<'a> = Tokens;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Tokens {
        let mut tokens = Vec::new();
        let mut position = 0;
        for unit in units(text) {
            match unit {
                Unit::Word { text, from, to } => {
                    tokens.push(token(text, from, to, position));
                    position += 1;
                }
                Unit::Run(characters) => {
                    let mut next = characters.iter().skip(1);
                    for (character, from, to) in &characters {
                        tokens.push(token(character.to_string(), *from, *to, position));
                        if let Some((neighbour, _, to)) = next.next() {
                            let pair = String::from_iter([*character, *neighbour]);
                            tokens.push(token(pair, *from, *to, position));
                        }
                        position += 1;
                    }
                    // What follows the run is no neighbour of it.
                    position += 1;
                }
            }
        }
        Tokens {
            rest: tokens.into_iter(),
            token: Token::default(),
        }
    }
}

fn token(text: String, offset_from: usize, offset_to: usize, position: usize) -> Token {
    Token {
        offset_from,
        offset_to,
        position,
        text,
        position_length: 1,
    }
}

/// The tokens of a text.
struct Tokens {
    rest: std::vec::IntoIter<Token>,
    token: Token,
}

impl TokenStream for Tokens {
    fn advance(&mut self) -> bool {
        match self.rest.next() {
            Some(token) => {
                self.token = token;
                true
            }
            None => false,
        }
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_highlighted_stands_in_the_text() {
        let terms = Terms::read("cafe STRASSE 太郎 missing").unwrap();
        let texts = ["Ein Café in der Straße", "CAFÉ 山田太郎"];
        assert_eq!(terms.found_in(texts), ["café", "straße", "太郎", "missing"],);
    }

    #[test]
    fn too_many_words_are_refused_and_a_repeated_one_counts_once() {
        let many: Vec<String> = (0..=MOST).map(|number| format!("w{number}")).collect();
        assert_eq!(Terms::read(&many.join(" ")), Err(TooLong));
        assert!(Terms::read(&"word ".repeat(1_000)).is_ok());
        assert_eq!(Terms::read(&"本".repeat(LONGEST_RUN + 1)), Err(TooLong));
        assert!(Terms::read("?! 🎉").unwrap().is_empty());
    }
}
