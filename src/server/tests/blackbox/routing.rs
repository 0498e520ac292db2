//! Every operation of the client-server API is either routed or named in README's list of what is not there.
//!
//! `tests/operations.tsv` is the list of operations of Matrix v1.19: method, path, operationId, and whose access token it wants.

use std::collections::BTreeSet;

const OPERATIONS: &str = include_str!("../operations.tsv");
const README: &str = include_str!("../../../../README.md");

/// One operation: its method and its path with the variable parts as `{}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Operation {
    method: String,
    path: String,
}

/// The variable parts of a path have many names.
fn nameless(path: &str) -> String {
    let parts = path.split('/').map(|part| match part.starts_with('{') {
        true => "{}",
        false => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

fn operations() -> BTreeSet<Operation> {
    let lines = OPERATIONS.lines().map(|line| {
        let mut columns = line.split('\t');
        Operation {
            method: columns.next().unwrap().to_owned(),
            path: nameless(columns.next().unwrap()),
        }
    });
    lines.collect()
}

fn routed() -> BTreeSet<Operation> {
    let routes = vatra::http::routes().into_iter();
    routes
        .map(|(method, path)| Operation {
            method: method.to_string(),
            path: nameless(&path),
        })
        .collect()
}

/// What the table under "Not there yet" names: a path without its version, maybe after a method, maybe with `/*` at its
/// end for everything below.
fn named() -> Vec<String> {
    let (_, after) = README.split_once("\nNot there yet").unwrap();
    let rows = after
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let quoted = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    quoted
        .filter(|name| name.contains('/'))
        .map(str::to_owned)
        .collect()
}

/// A path as README writes it.
fn short(path: &str) -> String {
    for prefix in ["/_matrix/client/v1", "/_matrix/client/v3"] {
        if let Some(rest) = path.strip_prefix(prefix) {
            return rest.to_owned();
        }
    }
    for prefix in ["/_matrix/media/v1", "/_matrix/media/v3"] {
        if let Some(rest) = path.strip_prefix(prefix) {
            return format!("/media{rest}");
        }
    }
    path.to_owned()
}

fn names(name: &str, operation: &Operation) -> bool {
    let (method, path) = match name.split_once(' ') {
        Some((method, path)) => (Some(method), path),
        None => (None, name),
    };
    let path = nameless(path);
    let short = short(&operation.path);
    let same = match path.strip_suffix("/*") {
        Some(above) => short
            .strip_prefix(above)
            .is_some_and(|rest| rest.starts_with('/')),
        None => short == path,
    };
    same && method.is_none_or(|method| method == operation.method)
}

#[test]
fn every_operation_is_routed_or_named_as_missing() {
    let (routed, named) = (routed(), named());
    let forgotten: Vec<_> = operations()
        .into_iter()
        .filter(|operation| !routed.contains(operation))
        .filter(|operation| !named.iter().any(|name| names(name, operation)))
        .collect();
    assert!(
        forgotten.is_empty(),
        "neither routed nor in README's list: {forgotten:#?}"
    );
}

#[test]
fn what_is_named_as_missing_is_missing() {
    let (operations, routed) = (operations(), routed());
    for name in named() {
        let meant: Vec<_> = operations
            .iter()
            .filter(|operation| names(&name, operation))
            .collect();
        assert!(
            !meant.is_empty(),
            "{name} in README's list is no operation of the API"
        );
        let there: Vec<_> = meant
            .into_iter()
            .filter(|operation| routed.contains(operation))
            .collect();
        assert!(
            there.is_empty(),
            "{name} in README's list is there: {there:?}"
        );
    }
}
