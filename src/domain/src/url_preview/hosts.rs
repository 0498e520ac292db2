//! Which hosts are asked, by their names. Addresses are judged where they are connected to; this is for what operators want.

use url::Host;

/// Whether this can be written in a list of hosts: a name or an address, or `*.` and a name for all names below it.
pub fn is_pattern(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    matches!(Host::parse(name), Ok(host) if host.to_string() == name && !name.contains('*'))
}

/// Lists of the operator.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    allow: Vec<String>,
    deny: Vec<String>,
}

impl Hosts {
    pub(super) fn new(allow: &[String], deny: &[String]) -> Self {
        let (allow, deny) = (allow.to_vec(), deny.to_vec());
        Self { allow, deny }
    }

    /// Whether a host is asked. It is written as in a URL that was parsed: in lower case, names of other scripts in Punycode.
    pub(super) fn may_be_asked(&self, host: &str) -> bool {
        // A dot at the end is another way to write the same name.
        let host = host.strip_suffix('.').unwrap_or(host);
        let is_in = |list: &[String]| list.iter().any(|pattern| matches(pattern, host));
        (self.allow.is_empty() || is_in(&self.allow)) && !is_in(&self.deny)
    }
}

fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(above) => host
            .strip_suffix(above)
            .is_some_and(|below| below.len() > 1 && below.ends_with('.')),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(allow: &[&str], deny: &[&str], host: &str) -> bool {
        let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        Hosts::new(&owned(allow), &owned(deny)).may_be_asked(host)
    }

    #[test]
    fn a_name_is_itself_and_a_star_is_what_is_below() {
        assert!(asked(&[], &[], "anything.example"));
        assert!(asked(&["example.org"], &[], "example.org"));
        assert!(asked(&["example.org"], &[], "example.org."));
        assert!(!asked(&["example.org"], &[], "www.example.org"));
        assert!(asked(&["*.example.org"], &[], "a.b.example.org"));
        for near in [
            "example.org",
            ".example.org",
            "badexample.org",
            "example.org.evil",
        ] {
            assert!(!asked(&["*.example.org"], &[], near), "{near}");
        }
    }

    #[test]
    fn what_is_denied_is_denied_even_if_it_is_allowed() {
        assert!(!asked(
            &["*.example.org"],
            &["wiki.example.org"],
            "wiki.example.org"
        ));
        assert!(!asked(&[], &["*.lan"], "printer.lan."));
        assert!(asked(
            &["*.example.org"],
            &["wiki.example.org"],
            "www.example.org"
        ));
    }

    #[test]
    fn patterns_are_written_as_hosts_are_in_urls() {
        for good in [
            "example.org",
            "*.example.org",
            "192.0.2.1",
            "[2001:db8::1]",
            "xn--bcher-kva.example",
        ] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "*.",
            "Example.org",
            "https://example.org",
            "a/b",
            "0x7f.1",
            "a b",
            "bücher.example",
        ] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }
}
