//! Which names a service cares for: regular expressions, each of which must match the whole name.

use regex::{Regex, RegexBuilder};

/// The longest expression, in bytes.
pub const MAX_REGEX: usize = 1_000;
/// The most expressions of one kind.
pub const MAX_REGEXES: usize = 100;
/// How much memory a compiled expression may take, in bytes.
const MAX_COMPILED: usize = 1 << 20;

/// The names of one kind: users, aliases or rooms.
#[derive(Debug, Default)]
pub struct Namespace {
    regexes: Vec<(Regex, bool)>,
}

impl Namespace {
    /// Adds what an expression matches; `exclusive` if nobody else may take or give up such names.
    ///
    /// # Errors
    /// What is wrong with the expression, for people.
    pub fn add(&mut self, regex: &str, exclusive: bool) -> Result<(), String> {
        if regex.len() > MAX_REGEX {
            return Err(format!("it is longer than {MAX_REGEX} bytes"));
        }
        if self.regexes.len() >= MAX_REGEXES {
            return Err(format!("there are more than {MAX_REGEXES}"));
        }
        // Alone first: brackets that do not pair must not pair with ours.
        let compiled = RegexBuilder::new(regex)
            .size_limit(MAX_COMPILED)
            .build()
            .and_then(|_| {
                let whole = format!("^(?:{regex})$");
                RegexBuilder::new(&whole).size_limit(MAX_COMPILED).build()
            });
        match compiled {
            Ok(regex) => {
                self.regexes.push((regex, exclusive));
                Ok(())
            }
            Err(regex::Error::CompiledTooBig(_)) => Err("it is too complex".to_owned()),
            // The last line says what is wrong, those above point at it.
            Err(error) => {
                let text = error.to_string();
                Err(text.lines().last().unwrap_or_default().to_owned())
            }
        }
    }

    /// Whether no name is in it.
    pub fn is_empty(&self) -> bool {
        self.regexes.is_empty()
    }

    /// Whether a name is in it. Takes time in proportion to the name's length.
    pub fn holds(&self, name: &str) -> bool {
        self.regexes.iter().any(|(regex, _)| regex.is_match(name))
    }

    /// Whether a name is in it and nobody else may take it.
    pub fn holds_alone(&self, name: &str) -> bool {
        let mut alone = self.regexes.iter().filter(|(_, exclusive)| *exclusive);
        alone.any(|(regex, _)| regex.is_match(name))
    }
}
