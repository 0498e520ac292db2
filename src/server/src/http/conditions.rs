//! Conditional requests and ranges, for files: which part of one a request wants, and whether it has it already. Pure.
//!
//! One range is answered with that part. Several are answered with the whole file, which RFC 9110 allows: no client of Matrix asks
//! for several, and parts that overlap would let a small request cost much. <https://www.rfc-editor.org/rfc/rfc9110#section-14>

use std::ops::Range;

use http::{HeaderMap, HeaderValue, header};

/// What a request says.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    has: Vec<HeaderValue>,
    range: Option<HeaderValue>,
    only_of: Option<HeaderValue>,
}

/// What is to be sent of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// These bytes, which it has.
    Some(Range<u64>),
    /// The client has it.
    Nothing,
    /// It has no such bytes.
    Missing,
}

impl Conditions {
    /// What these headers say.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let has = headers.get_all(header::IF_NONE_MATCH);
        Self {
            has: has.iter().cloned().collect(),
            range: headers.get(header::RANGE).cloned(),
            only_of: headers.get(header::IF_RANGE).cloned(),
        }
    }

    /// What is to be sent of a file of `size` bytes whose entity tag is `tag`, with its quotes.
    pub(crate) fn judge(&self, tag: &str, size: u64) -> Part {
        let mut known = self.has.iter().filter_map(|value| value.to_str().ok());
        if known.any(|tags| names(tags, tag)) {
            return Part::Nothing;
        }
        // A part of what the client knows is no good to it when it is another file by now. A date is no tag.
        if self.only_of.as_ref().is_some_and(|only| *only != *tag) {
            return Part::Whole;
        }
        let range = self.range.as_ref().and_then(|value| value.to_str().ok());
        range.map_or(Part::Whole, |range| {
            part(range, size).unwrap_or(Part::Whole)
        })
    }
}

/// Whether a list of tags has this one. A weak tag of the same file names it too.
fn names(tags: &str, tag: &str) -> bool {
    tags.trim() == "*"
        || tags
            .split(',')
            .any(|one| one.trim().trim_start_matches("W/") == tag)
}

/// The part that a `Range` names; `None` if it is to be passed over: not understood, or several.
fn part(range: &str, size: u64) -> Option<Part> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let part = match (number(first)?, number(last)?) {
        (Some(first), Some(last)) if last < first => return None,
        (Some(first), last) => {
            let end = last.map_or(size, |last| last.saturating_add(1).min(size));
            first..end
        }
        (None, Some(length)) => size.saturating_sub(length)..size,
        (None, None) => return None,
    };
    Some(match part.is_empty() {
        true => Part::Missing,
        false => Part::Some(part),
    })
}

/// A number, or nothing at all; `None` if it is neither. One that is too large is as good as the largest.
fn number(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| (!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(header::HeaderName, &'static str)], size: u64) -> Part {
        let pairs = headers.iter().cloned();
        let pairs = pairs.map(|(name, value)| (name, HeaderValue::from_static(value)));
        Conditions::of(&pairs.collect()).judge("\"tag\"", size)
    }

    #[test]
    fn one_range_is_a_part_and_what_is_no_range_is_passed_over() {
        let table = [
            ("bytes=0-0", Part::Some(0..1)),
            ("bytes=2-5", Part::Some(2..6)),
            ("Bytes = 2 - 5 ", Part::Some(2..6)),
            ("bytes=7-", Part::Some(7..10)),
            ("bytes=7-99999999999999999999999", Part::Some(7..10)),
            ("bytes=-3", Part::Some(7..10)),
            ("bytes=-99", Part::Some(0..10)),
            ("bytes=10-", Part::Missing),
            ("bytes=99999999999999999999999-", Part::Missing),
            ("bytes=-0", Part::Missing),
            ("bytes=5-2", Part::Whole),
            ("bytes=0-1,4-5", Part::Whole),
            ("bytes=0-1, -2", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("", Part::Whole),
        ];
        for (range, wanted) in table {
            assert_eq!(asked(&[(header::RANGE, range)], 10), wanted, "{range}");
        }
        assert_eq!(asked(&[(header::RANGE, "bytes=0-")], 0), Part::Missing);
    }

    #[test]
    fn what_the_client_has_is_not_sent() {
        for has in ["\"tag\"", "W/\"tag\"", "\"x\", \"tag\"", "*"] {
            let range = (header::RANGE, "bytes=0-1");
            let part = asked(&[(header::IF_NONE_MATCH, has), range], 10);
            assert_eq!(part, Part::Nothing, "{has}");
        }
        for other in ["\"x\"", "tag", ""] {
            let part = asked(&[(header::IF_NONE_MATCH, other)], 10);
            assert_eq!(part, Part::Whole, "{other}");
        }
    }

    #[test]
    fn a_part_of_another_file_is_the_whole_of_this_one() {
        let of = |tag| asked(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, tag)], 10);
        assert_eq!(of("\"tag\""), Part::Some(0..2));
        for other in ["\"x\"", "W/\"tag\"", "Tue, 01 Dec 2026 10:00:00 GMT"] {
            assert_eq!(of(other), Part::Whole, "{other}");
        }
    }
}
