//! Randomness as a parameter, like time: tokens, ids and nonces come from a [`Random`] that is handed in.

use std::sync::Arc;

/// A source of unpredictable bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills the slice.
    fn fill(&self, bytes: &mut [u8]);
}

/// A shared source.
pub type SharedRandom = Arc<dyn Random>;

/// The operating system's generator, by way of a cryptographic generator of each thread.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemRandom;

impl Random for SystemRandom {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where randomness comes from"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        rand::fill(bytes);
    }
}

/// `N` characters of `A-Z a-z 0-9`, 5.9 bits each: 22 hold 131 bits.
pub fn token(random: &dyn Random, characters: usize) -> String {
    pick(
        random,
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        characters,
    )
}

/// Lower case letters and digits, for names that people see.
pub fn name(random: &dyn Random, characters: usize) -> String {
    pick(random, b"abcdefghijklmnopqrstuvwxyz0123456789", characters)
}

/// Capitals, for device ids.
pub fn device_id(random: &dyn Random) -> String {
    pick(random, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 10)
}

/// Rejection sampling: every character is equally likely.
fn pick(random: &dyn Random, alphabet: &[u8], characters: usize) -> String {
    let size = u8::try_from(alphabet.len()).unwrap_or(u8::MAX);
    let fair = u8::MAX - u8::MAX % size;
    let mut out = String::with_capacity(characters);
    let mut bytes = [0_u8; 32];
    while out.len() < characters {
        random.fill(&mut bytes);
        let fair_bytes = bytes.iter().filter(|byte| **byte < fair);
        let picked = fair_bytes.filter_map(|byte| alphabet.get(usize::from(byte % size)));
        let missing = characters - out.len();
        out.extend(picked.take(missing).map(|byte| char::from(*byte)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_differ() {
        let (one, two) = (token(&SystemRandom, 43), token(&SystemRandom, 43));
        assert_eq!(one.len(), 43);
        assert_ne!(one, two);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
