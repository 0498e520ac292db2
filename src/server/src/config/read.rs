//! Reading settings, and saying who is to blame for one: the file, or a variable of the environment.

use std::path::{Path, PathBuf};

use super::{Config, check::Refusal};

/// A message with file or variable, key and remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// Where settings come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    file: Option<PathBuf>,
    /// The names of the variables that set something.
    variables: Vec<String>,
}

impl Origin {
    /// Who is to blame for a key's value, and the key.
    pub fn of(&self, key: &str) -> String {
        let wanted = variable(key);
        let set = |name: &&String| name.eq_ignore_ascii_case(&wanted);
        match (self.variables.iter().find(set), &self.file) {
            (Some(name), _) => format!("the environment variable {name}: {key}"),
            (None, Some(file)) => format!("{}: {key}", file.display()),
            (None, None) => format!("{key} (in a config file, or in {wanted})"),
        }
    }
}

/// Keys whose values are lists.
const LISTS: [&str; 6] = [
    "appservices.files",
    "client.trusted_proxies",
    "federation.allowed_networks",
    "federation.trusted_key_servers",
    "push.allowed_networks",
    "turn.uris",
];

/// What every variable begins with.
const PREFIX: &str = "VATRA__";

/// The variable that sets a key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

type Variables = Vec<(String, String)>;

/// What the environment sets.
fn variables() -> Result<Variables, ConfigError> {
    let mut variables = Variables::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        if !name.to_uppercase().starts_with(PREFIX) {
            continue;
        }
        let Ok(value) = value.into_string() else {
            let text = format!("the environment variable {name}: write it in UTF-8");
            return Err(ConfigError(text));
        };
        variables.push((name, value));
    }
    Ok(variables)
}

impl Config {
    /// Reads the settings: defaults (those of [`Config::try_it`] without a file), then `file`, then the environment.
    ///
    /// # Errors
    /// A message that names the file or the variable, the key and the remedy.
    pub fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read_with(file, variables()?)
    }

    pub(super) fn read_with(
        file: Option<&Path>,
        variables: Variables,
    ) -> Result<Self, ConfigError> {
        const REMEDY: &str = "config/default.toml lists every key";
        if let Some(file) = file
            && let Err(error) = layered(Some(file), &[])
        {
            let text = format!("{}: {error}. {REMEDY}", file.display());
            return Err(ConfigError(text));
        }
        let mut config = match layered(file, &variables) {
            Ok(config) => config,
            Err(error) => {
                let alone = |one: &&(String, String)| layered(file, std::slice::from_ref(*one));
                let wrong = variables.iter().find(|one| alone(one).is_err());
                let name = wrong.map_or("VATRA__...", |(name, _)| name);
                let text = format!("the environment variable {name}: {error}. {REMEDY}");
                return Err(ConfigError(text));
            }
        };
        config.origin = Origin {
            file: file.map(Path::to_owned),
            variables: variables.into_iter().map(|(name, _)| name).collect(),
        };
        match config.check() {
            Ok(()) => Ok(config),
            Err(Refusal { key, remedy }) => {
                let place = config.origin.of(key);
                Err(ConfigError(format!("{place}: {remedy}")))
            }
        }
    }
}

/// Defaults, then the file, then these variables.
fn layered(
    file: Option<&Path>,
    variables: &[(String, String)],
) -> Result<Config, config::ConfigError> {
    let mut builder = config::Config::builder();
    match file {
        // For trying it out; see `Config::try_it`.
        None => builder = builder.set_default("registration.open", true)?,
        Some(file) => {
            let source = config::File::from(file).format(config::FileFormat::Toml);
            builder = builder.add_source(source);
        }
    }
    let environment = || {
        config::Environment::with_prefix("VATRA")
            .prefix_separator("__")
            .separator("__")
    };
    // Only lists are taken apart: a password that looks like a number stays as it is.
    let names = LISTS.map(variable);
    let (lists, others) = variables
        .iter()
        .cloned()
        .partition(|(name, _)| names.contains(&name.to_uppercase()));
    let lists = LISTS.iter().fold(
        environment().source(Some(lists)).list_separator(","),
        |lists, key| lists.with_list_parse_key(key),
    );
    builder
        .add_source(environment().source(Some(others)))
        .add_source(lists.try_parsing(true))
        .build()?
        .try_deserialize()
}
