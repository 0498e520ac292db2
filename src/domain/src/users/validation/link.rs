//! Links that clients name.

/// The longest link, in bytes.
const LONGEST_LINK: usize = 2_048;

/// Scheme, host and port of a link that a browser may be sent to: `http` and `https` only, with nothing in it that would mean something else
/// in a header. `None` for any other.
pub fn origin(link: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'<>\\^`{|}".contains(&byte);
    if link.len() > LONGEST_LINK || !link.bytes().all(plain) {
        return None;
    }
    let uri: http::Uri = link.parse().ok()?;
    let scheme = uri.scheme_str()?.to_lowercase();
    let host = uri.authority()?.as_str();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    let web = scheme == "http" || scheme == "https";
    (web && !host.is_empty() && host.bytes().all(fits)).then(|| format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_the_web_and_to_nothing_else() {
        for (link, to) in [
            ("https://example.org/a?b=c#/d", Some("https://example.org")),
            ("http://localhost:8080", Some("http://localhost:8080")),
            ("HTTPS://Example.org/", Some("https://Example.org")),
            ("https://[::1]:8/x", Some("https://[::1]:8")),
            ("javascript:alert(1)", None),
            ("JavaScript://example.org/%0aalert(1)", None),
            ("data:text/html,x", None),
            ("//example.org/", None),
            ("/register", None),
            ("https://", None),
            ("https:example.org", None),
            ("https://user@example.org/", None),
            ("https://example.org;script-src/x", None),
            ("https://example.org/\r\nSet-Cookie: a=b", None),
            ("https://example.org/ x", None),
            ("https://example.org/\"onload=\"", None),
            ("ftp://example.org/", None),
            ("", None),
        ] {
            assert_eq!(origin(link).as_deref(), to, "{link}");
        }
        assert_eq!(origin(&format!("https://a/{}", "a".repeat(3_000))), None);
    }
}
