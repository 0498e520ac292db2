//! Reading registrations of application services: YAML files, as their makers write them.
//!
//! Scalars are taken as they stand: a token of digits only is a token, not a number. Keys that are not known are left alone, since
//! registrations are written for many servers.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use ruma::ServerName;
use saphyr::{Yaml, YamlLoader};
use saphyr_parser::Parser;
use vatra_domain::appservice::{
    Services,
    registration::{Fault, Registration, Rule},
};

/// The largest file, in bytes.
const MAX_FILE: u64 = 256 << 10;
/// The most files.
const MAX_FILES: usize = 100;
/// How many nodes references to other parts of a file may stand for.
const MAX_REFERENCES: usize = 1_000;

/// The services that files register.
///
/// # Errors
/// A message with file, key and remedy.
pub(crate) fn services(files: &[PathBuf], server: &ServerName) -> Result<Services, String> {
    if files.len() > MAX_FILES {
        return Err(format!("write at most {MAX_FILES} files"));
    }
    let mut services = Vec::with_capacity(files.len());
    for file in files {
        let service = registration(file)
            .and_then(|registration| {
                let service = registration.register(server);
                service.map_err(|fault| fault.to_string())
            })
            .map_err(|text| format!("{}: {text}", file.display()))?;
        services.push(service);
    }
    Services::new(services).map_err(|duplicate| {
        let name = |place: usize| files.get(place).map(|file| file.display().to_string());
        let (first, second) = duplicate.places;
        format!(
            "{}: {}: write another than in {}",
            name(second).unwrap_or_default(),
            duplicate.key,
            name(first).unwrap_or_default(),
        )
    })
}

fn registration(file: &Path) -> Result<Registration, String> {
    let unreadable = |error: std::io::Error| {
        format!("{error}. Write the path of a registration (YAML) that this server may read")
    };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    opened
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(format!(
            "it is larger than {MAX_FILE} bytes: write the path of a registration"
        ));
    }
    read(&text)
}

fn read(text: &str) -> Result<Registration, String> {
    let mut loader = YamlLoader::<Yaml>::default();
    loader.early_parse(false);
    loader.alias_limit(MAX_REFERENCES);
    let parsed = Parser::new_from_str(text).load(&mut loader, true);
    let error = parsed.err().or_else(|| loader.error().cloned());
    if let Some(error) = error {
        return Err(format!("{error}. Write YAML, such as `id: irc`"));
    }
    let mut documents = loader.into_documents().into_iter();
    let (Some(document), None) = (documents.next(), documents.next()) else {
        return Err("write one registration a file".to_owned());
    };
    of(&Node {
        name: String::new(),
        yaml: &document,
    })
    .map_err(|fault| fault.to_string())
}

fn of(root: &Node<'_>) -> Result<Registration, Fault> {
    if root.entries().is_none() {
        return Err(Fault::new("id", "write keys and values, such as `id: irc`"));
    }
    let url = root.needed("url", "write where the service is, or null")?;
    let namespaces = root.needed("namespaces", "write the lists users, aliases and rooms")?;
    if namespaces.entries().is_none() {
        let remedy = "write the lists users, aliases and rooms, each of which may be empty";
        return Err(Fault::new("namespaces", remedy));
    }
    let text = |key: &str, remedy: &str| root.needed(key, remedy)?.text();
    let mut receive_ephemeral = false;
    for key in [
        "receive_ephemeral",
        "push_ephemeral",
        "de.sorunome.msc2409.push_ephemeral",
    ] {
        receive_ephemeral |= root.flag(key)?.unwrap_or(false);
    }
    Ok(Registration {
        id: text("id", "write a name for the service that never changes")?,
        url: if url.is_null() {
            None
        } else {
            Some(url.text()?)
        },
        as_token: text(
            "as_token",
            "write the secret that the service shows this server",
        )?,
        hs_token: text(
            "hs_token",
            "write the secret that this server shows the service",
        )?,
        sender_localpart: text(
            "sender_localpart",
            "write the name of the service's own user",
        )?,
        receive_ephemeral,
        rate_limited: root.flag("rate_limited")?,
        protocols: match root.get("protocols") {
            Some(list) => list
                .items()?
                .iter()
                .map(Node::text)
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        },
        users: rules(&namespaces, "users")?,
        aliases: rules(&namespaces, "aliases")?,
        rooms: rules(&namespaces, "rooms")?,
    })
}

fn rules(namespaces: &Node<'_>, kind: &str) -> Result<Vec<Rule>, Fault> {
    let Some(list) = namespaces.get(kind) else {
        return Ok(Vec::new());
    };
    let rule = |item: &Node<'_>| {
        let regex = item.needed("regex", "write a regular expression")?.text()?;
        let exclusive = item.flag("exclusive")?;
        let exclusive =
            exclusive.ok_or_else(|| Fault::new(item.key("exclusive"), "write true or false"))?;
        Ok(Rule { regex, exclusive })
    };
    list.items()?.iter().map(rule).collect()
}

/// A value and its place in the file.
struct Node<'a> {
    name: String,
    yaml: &'a Yaml<'a>,
}

impl<'a> Node<'a> {
    fn key(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    fn entries(&self) -> Option<impl Iterator<Item = (&'a str, &'a Yaml<'a>)> + use<'a>> {
        let Yaml::Mapping(entries) = self.yaml else {
            return None;
        };
        Some(entries.iter().filter_map(|(key, value)| match key {
            Yaml::Representation(text, ..) => Some((&**text, value)),
            _ => None,
        }))
    }

    fn child(&self, key: &str) -> Option<Node<'a>> {
        let mut entries = self.entries()?;
        let (_, yaml) = entries.find(|(name, _)| *name == key)?;
        Some(Node {
            name: self.key(key),
            yaml,
        })
    }

    /// The value of a key, if there is one and it is not null.
    fn get(&self, key: &str) -> Option<Node<'a>> {
        self.child(key).filter(|node| !node.is_null())
    }

    fn needed(&self, key: &str, remedy: &str) -> Result<Node<'a>, Fault> {
        let missing = || Fault::new(self.key(key), format!("is missing: {remedy}"));
        self.child(key).ok_or_else(missing)
    }

    fn is_null(&self) -> bool {
        matches!(self.yaml, Yaml::Representation(text, ..)
            if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    fn text(&self) -> Result<String, Fault> {
        match self.yaml {
            Yaml::Representation(text, ..) => Ok(text.clone().into_owned()),
            _ => Err(Fault::new(&self.name, "write a text")),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Fault> {
        let Some(node) = self.get(key) else {
            return Ok(None);
        };
        match node.text().unwrap_or_default().to_lowercase().as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(Fault::new(node.name, "write true or false")),
        }
    }

    fn items(&self) -> Result<Vec<Node<'a>>, Fault> {
        let Yaml::Sequence(items) = self.yaml else {
            return Err(Fault::new(
                &self.name,
                "write a list, which may be empty: []",
            ));
        };
        let numbered = items.iter().enumerate();
        Ok(numbered
            .map(|(place, yaml)| Node {
                name: format!("{}[{place}]", self.name),
                yaml,
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const GOOD: &str = r#"
id: "IRC Bridge"
url: 'http://127.0.0.1:1234'
as_token: 30105090424841880621612349803310438302770034090606081046
hs_token: "312df522183efd404ec1cd22d2ffa4bbc76a8c1ccf541dd692eef281356bb74e"
sender_localpart: _irc_bot # a comment
de.sorunome.msc2409.push_ephemeral: true
rate_limited: false
protocols: [irc]
namespaces:
  users:
    - exclusive: true
      regex: "@_irc_bridge_.*"
      group_id: +a:b
  aliases:
  rooms: []
"#;

    fn server() -> &'static ServerName {
        ruma::server_name!("h")
    }

    fn told(files: &[&str]) -> Result<Services, String> {
        let folder = tempfile::tempdir().unwrap();
        let paths = files.iter().enumerate().map(|(number, text)| {
            let path = folder.path().join(format!("{number}.yaml"));
            std::fs::write(&path, text).unwrap();
            path
        });
        services(&paths.collect::<Vec<_>>(), server())
    }

    #[test]
    fn a_registration_is_read_as_bridges_write_it() {
        let services = told(&[GOOD]).unwrap();
        let token = "30105090424841880621612349803310438302770034090606081046";
        let service = services.by_token(token).unwrap();
        assert_eq!(service.id, "IRC Bridge");
        assert_eq!(service.url.as_deref(), Some("http://127.0.0.1:1234"));
        assert_eq!(service.sender, "@_irc_bot:h");
        assert!(service.receive_ephemeral && !service.rate_limited);
        assert!(service.has_user(ruma::user_id!("@_irc_bridge_x:h")));
        assert_eq!(services.protocols(), ["irc"]);
        let without = GOOD.replace("'http://127.0.0.1:1234'", "null");
        assert_eq!(told(&[&without]).unwrap().all()[0].url, None);
    }

    #[test]
    fn what_cannot_be_read_is_told_by_file_and_key() {
        let without = |key: &str| {
            let lines = GOOD.lines().filter(|line| !line.starts_with(key));
            lines.collect::<Vec<_>>().join("\n")
        };
        let bad = |from: &str, to: &str| GOOD.replace(from, to);
        for (text, blamed) in [
            (without("id"), "0.yaml: id: is missing"),
            (without("url"), "0.yaml: url: is missing"),
            (without("as_token"), "0.yaml: as_token: is missing"),
            (without("hs_token"), "0.yaml: hs_token: is missing"),
            (without("sender"), "0.yaml: sender_localpart: is missing"),
            ("id: x".to_owned(), "0.yaml: url: is missing"),
            (bad("'http:", "'ftp:"), "0.yaml: url: "),
            (
                bad("limited: false", "limited: 3"),
                "0.yaml: rate_limited: ",
            ),
            (bad("[irc]", "irc"), "0.yaml: protocols: write a list"),
            (
                bad("[irc]", "[[irc]]"),
                "0.yaml: protocols[0]: write a text",
            ),
            (bad("rooms: []", "rooms: {}"), "0.yaml: namespaces.rooms: "),
            (
                bad("@_irc", "@(?!irc"),
                "0.yaml: namespaces.users[0].regex: ",
            ),
            (
                bad("exclusive: true", "exclusive: 1"),
                "0.yaml: namespaces.users[0].exclusive: ",
            ),
            (
                bad("- exclusive: true\n      regex", "- regex"),
                "users[0].exclusive: ",
            ),
            (bad("id: ", "id: ["), "0.yaml: "),
            (String::new(), "0.yaml: "),
            ("- a".to_owned(), "0.yaml: id: "),
            (format!("{GOOD}\n---\n{GOOD}"), "one registration a file"),
            (format!("{GOOD}\nid: again"), "0.yaml: "),
            (format!("{GOOD}\n#{}", "x".repeat(256 << 10)), "larger than"),
        ] {
            let error = told(&[&text]).map(|_| ()).unwrap_err();
            assert!(error.contains(blamed), "{blamed} is not in: {error}");
        }
        let error = services(&["/nowhere/x.yaml".into()], server()).map(|_| ());
        let error = error.unwrap_err();
        assert!(
            error.contains("/nowhere/x.yaml: ") && error.contains("Write"),
            "{error}"
        );
    }

    #[test]
    fn two_files_are_two_services() {
        let error = told(&[GOOD, GOOD]).map(|_| ()).unwrap_err();
        assert!(
            error.contains("1.yaml: id: ") && error.contains("0.yaml"),
            "{error}"
        );
    }

    #[test]
    fn references_do_not_grow_without_end() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let before = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        let error = told(&[&format!("{text}{GOOD}")]).map(|_| ()).unwrap_err();
        assert!(error.starts_with('/'), "{error}");
    }
}
