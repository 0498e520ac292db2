//! E-mail addresses: what is one, and when two are the same. <https://spec.matrix.org/v1.19/appendices/#e-mail>

use unicase::UniCase;

/// The longest address, in bytes (RFC 5321).
const LONGEST: usize = 254;
/// The longest part before the `@`, in bytes.
const LONGEST_LOCAL: usize = 64;

/// The canonical form of an address: its case folded. `None` for what is no address, or one of the rare forms that nobody uses
/// (quoted names, comments, literals): what stands in an address never needs quoting in a header, a page or a log.
pub fn canonical(address: &str) -> Option<String> {
    if address.len() > LONGEST {
        return None;
    }
    let folded = UniCase::unicode(address.trim()).to_folded_case();
    let (local, domain) = folded.rsplit_once('@')?;
    let local_fits = !local.is_empty()
        && local.len() <= LONGEST_LOCAL
        && local.split('.').all(|part| !part.is_empty())
        && local
            .chars()
            .all(|one| one.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(one));
    let label_fits = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|one| one.is_alphanumeric() || one == '-')
    };
    let domain_fits = domain.split('.').all(label_fits);
    (folded.len() <= LONGEST && local_fits && domain_fits).then_some(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_folded_and_nothing_else_changes() {
        for (given, kept) in [
            ("alice@example.org", "alice@example.org"),
            (" Alice@Example.ORG ", "alice@example.org"),
            ("Strauß@Example.com", "strauss@example.com"),
            ("STRAUSS@EXAMPLE.COM", "strauss@example.com"),
            ("o'neil+matrix@mail.example", "o'neil+matrix@mail.example"),
            ("ștefan@example.ro", "ștefan@example.ro"),
            ("root@localhost", "root@localhost"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(kept), "{given}");
        }
    }

    #[test]
    fn what_is_no_address_is_none() {
        let long = format!("{}@example.org", "a".repeat(65));
        let very_long = format!("a@{}", "a.".repeat(200));
        for given in [
            "",
            "alice",
            "@example.org",
            "alice@",
            "a@b@c",
            "alice@example..org",
            ".alice@example.org",
            "al..ice@example.org",
            "alice@-example.org",
            "alice@example.org\r\nBcc: eve@example.org",
            "alice\r\n@example.org",
            "alice@example.org, eve@example.org",
            "alice@example.org>",
            "Alice <alice@example.org>",
            "\"alice smith\"@example.org",
            "alice smith@example.org",
            "alice@[127.0.0.1]",
            "alice@example.org\0",
            "alice%0d%0a@exa%mple.org",
            &long,
            &very_long,
        ] {
            assert_eq!(canonical(given), None, "{given:?}");
        }
    }
}
