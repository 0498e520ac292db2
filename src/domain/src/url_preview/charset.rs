//! From a page's bytes to text, as browsers do it: by the mark at its beginning, by what the answer says, by what the page says of itself, and else by
//! what fits. <https://html.spec.whatwg.org/multipage/parsing.html#determining-the-character-encoding>

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::page;

/// How far into a page it is looked for what it says of its encoding, in bytes.
const PRESCAN: usize = 4096;

/// The text of a page, or of its beginning. What fits no character becomes U+FFFD.
pub(super) fn decode(bytes: &[u8], content_type: Option<&str>) -> String {
    let (encoding, mark) = Encoding::for_bom(bytes)
        .or_else(|| Some((content_type.and_then(of_content_type)?, 0)))
        .or_else(|| Some((of_page(bytes)?, 0)))
        .unwrap_or_else(|| (by_looks(bytes), 0));
    let text = bytes.get(mark..).unwrap_or_default();
    let (text, _) = encoding.decode_without_bom_handling(text);
    text.into_owned()
}

/// The encoding that a content type such as `text/html; charset=windows-1250` names.
pub(super) fn of_content_type(content_type: &str) -> Option<&'static Encoding> {
    let mut parameters = content_type.split(';').skip(1);
    let label = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_charset = name.trim().eq_ignore_ascii_case("charset");
        is_charset.then(|| value.trim().trim_matches(['"', '\'']))
    });
    Encoding::for_label(label?.as_bytes())
}

/// The encoding that a page names itself. It is read as what all encodings of pages that can say so have in common.
fn of_page(bytes: &[u8]) -> Option<&'static Encoding> {
    let beginning = bytes.get(..PRESCAN).unwrap_or(bytes);
    let (text, _) = WINDOWS_1252.decode_without_bom_handling(beginning);
    let named = page::read(&text).encoding?;
    // If it were so, it could not have been read.
    let impossible = named == UTF_16LE || named == UTF_16BE;
    Some(if impossible { UTF_8 } else { named })
}

/// UTF-8, unless it is none.
fn by_looks(bytes: &[u8]) -> &'static Encoding {
    match std::str::from_utf8(bytes) {
        Ok(_) => UTF_8,
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            // Cut off in the middle of a character, not of the first that tells.
            let is_cut = error.error_len().is_none() && !before.is_ascii();
            if is_cut { UTF_8 } else { WINDOWS_1252 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_every_encoding_are_read() {
        let romanian = b"<title>\xeenceput \xba\xfe</title>"; // ISO 8859-2
        let with = |content_type| decode(romanian, Some(content_type));
        assert_eq!(
            with("text/html; charset=ISO-8859-2"),
            "<title>început şţ</title>"
        );
        assert_eq!(
            with("text/html;charset=\"windows-1250\""),
            "<title>început şţ</title>"
        );
        // By the page itself, in both ways.
        for meta in [
            "<meta charset=iso-8859-2>",
            "<META content='text/html; charset=iso-8859-2' http-equiv=Content-Type>",
        ] {
            let page = [meta.as_bytes(), romanian].concat();
            assert!(
                decode(&page, Some("text/html")).contains("început"),
                "{meta}"
            );
            // The answer's word counts more.
            let text = decode(&page, Some("text/html; charset=windows-1251"));
            assert!(!text.contains("început"), "{text}");
        }
        // A mark counts most; without anything, what fits.
        let marked = ["\u{feff}".as_bytes(), "<title>ă".as_bytes()].concat();
        assert_eq!(
            decode(&marked, Some("text/html; charset=koi8-r")),
            "<title>ă"
        );
        assert_eq!(decode(b"\xff\xfe<\0a\0>\0\x03\x01", None), "<a>\u{103}");
        assert_eq!(decode("日本".as_bytes(), None), "日本");
        assert_eq!(decode(b"caf\xe9", None), "café");
        assert_eq!(decode(b"\xe6\x97\xa5\xe6", None), "日\u{fffd}", "cut off");
        let japanese = b"<meta charset=Shift_JIS><title>\x93\xfa\x96{</title>";
        assert!(decode(japanese, None).contains("日本"));
    }

    #[test]
    fn an_encoding_that_is_none_or_cannot_be_does_no_harm() {
        assert_eq!(
            decode("é".as_bytes(), Some("text/html; charset=klingon")),
            "é"
        );
        assert_eq!(
            decode("<meta charset=utf-16>é".as_bytes(), None),
            "<meta charset=utf-16>é"
        );
        assert_eq!(decode(b"", Some("text/html; charset=")), "");
        assert_eq!(decode(b"\xfe", Some("; ;charset")), "þ");
    }
}
