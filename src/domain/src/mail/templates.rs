//! Letters and pages from templates (minijinja), in the languages that have them.
//!
//! A letter `NAME` is two files in a language's folder: `NAME.txt`, whose first line is `Subject: ...`, and `NAME.html`; a page is one,
//! `NAME.html`; what the server says in its own room is one, `NAME.notice`, plain text. `layout.html`, beside the folders, is what every letter's HTML extends, `page.html` what every page does. An operator's files
//! replace the built-in ones of the same name, and a folder of another name is another language. HTML is escaped by the name's ending.
//! Everything is rendered once with sample values when it is loaded, so that a mistake stops the start and not a letter.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
pub use minijinja::{Value, context};

/// The language of those whose own is not there.
pub const DEFAULT_LANGUAGE: &str = "en";

/// The letters.
pub const LETTERS: &[&str] = &[
    "register",
    "add_address",
    "reset_password",
    "address_taken",
    "test",
    "notification",
];
/// What the server says in its own room.
pub const NOTICES: &[&str] = &["address_refused"];
/// The pages.
pub const PAGES: &[&str] = &[
    "confirm",
    "confirmed",
    "not_confirmed",
    "unsubscribe",
    "unsubscribed",
    "sso_providers",
    "sso_name",
    "sso_allow",
    "sso_confirm",
    "sso_failed",
    "auth_done",
    "captcha",
    "terms",
];
/// What letters and pages extend.
const LAYOUTS: &[&str] = &["layout.html", "page.html"];

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("templates/", $name)))),*]
    };
}

const BUILT_IN: &[(&str, &str)] = built_in!(
    "layout.html",
    "page.html",
    "en/register.txt",
    "en/register.html",
    "en/add_address.txt",
    "en/add_address.html",
    "en/reset_password.txt",
    "en/reset_password.html",
    "en/address_taken.txt",
    "en/address_taken.html",
    "en/test.txt",
    "en/test.html",
    "en/notification.txt",
    "en/notification.html",
    "en/address_refused.notice",
    "en/unsubscribe.html",
    "en/unsubscribed.html",
    "en/confirm.html",
    "en/confirmed.html",
    "en/not_confirmed.html",
    "en/sso_providers.html",
    "en/sso_name.html",
    "en/sso_allow.html",
    "en/sso_confirm.html",
    "en/sso_failed.html",
    "en/auth_done.html",
    "en/captcha.html",
    "en/terms.html",
    "ro/register.txt",
    "ro/register.html",
    "ro/add_address.txt",
    "ro/add_address.html",
    "ro/reset_password.txt",
    "ro/reset_password.html",
    "ro/address_taken.txt",
    "ro/address_taken.html",
    "ro/test.txt",
    "ro/test.html",
    "ro/notification.txt",
    "ro/notification.html",
    "ro/address_refused.notice",
    "ro/unsubscribe.html",
    "ro/unsubscribed.html",
    "ro/confirm.html",
    "ro/confirmed.html",
    "ro/not_confirmed.html",
    "ro/sso_providers.html",
    "ro/sso_name.html",
    "ro/sso_allow.html",
    "ro/sso_confirm.html",
    "ro/sso_failed.html",
    "ro/auth_done.html",
    "ro/captcha.html",
    "ro/terms.html",
);

/// A letter's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The subject.
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// HTML.
    pub html: String,
}

/// What is wrong with a template.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct TemplateError {
    /// Its file.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// All templates.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    /// By language, the names that are whole.
    languages: BTreeMap<String, BTreeSet<String>>,
}

impl Templates {
    /// The built-in templates, with an operator's files, by their path such as `ro/register.txt`, instead of those of the same name.
    ///
    /// # Errors
    /// A file that is no template of this server, that cannot be read, or that names a value which is not there.
    pub fn new(overrides: Vec<(String, String)>) -> Result<Self, TemplateError> {
        let mut files: BTreeMap<String, String> = BUILT_IN
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        for (name, text) in overrides {
            if !is_known(&name) {
                let reason = format!(
                    "is no template. There are {} and, in a folder named for a language, {}",
                    LAYOUTS.join(" and "),
                    names().join(", ")
                );
                return Err(TemplateError { file: name, reason });
            }
            files.insert(name, text);
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|name| {
            if name.ends_with(".html") {
                AutoEscape::Html
            } else {
                AutoEscape::None
            }
        });
        let mut languages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, text) in files {
            if let Some((language, file)) = name.split_once('/') {
                let known = languages.entry(language.to_owned()).or_default();
                known.insert(file.to_owned());
            }
            add(&mut environment, name, text)?;
        }
        let templates = Self {
            environment,
            languages,
        };
        templates.try_all()?;
        Ok(templates)
    }

    fn try_all(&self) -> Result<(), TemplateError> {
        let languages = self.languages.keys();
        for language in languages {
            for letter in LETTERS {
                self.letter(language, letter, sample())?;
            }
            for page in PAGES {
                self.page(language, page, sample())?;
            }
            for notice in NOTICES {
                self.notice(language, notice, sample())?;
            }
        }
        Ok(())
    }

    /// The language of an `Accept-Language` header, or of a single tag such as `ro-RO`, that comes nearest.
    pub fn language(&self, accepted: &str) -> &str {
        let mut best: Option<(&str, f32)> = None;
        for part in accepted.split(',').take(32) {
            let mut fields = part.split(';');
            let tag = fields.next().unwrap_or_default().trim().to_lowercase();
            let weight = fields.find_map(|field| field.trim().strip_prefix("q=")?.parse().ok());
            let weight: f32 = weight.unwrap_or(1.0);
            let primary = tag.split(['-', '_']).next().unwrap_or_default();
            let found = [tag.as_str(), primary]
                .into_iter()
                .find_map(|tag| self.languages.get_key_value(tag));
            if let Some((language, _)) = found
                && weight > best.map_or(0.0, |(_, best)| best)
            {
                best = Some((language, weight));
            }
        }
        best.map_or(DEFAULT_LANGUAGE, |(language, _)| language)
    }

    /// A letter in a language, or in English if that has it not. Its values are made with [`context!`].
    ///
    /// # Errors
    /// A template that does not work with these values.
    pub fn letter(
        &self,
        language: &str,
        name: &str,
        values: Value,
    ) -> Result<Rendered, TemplateError> {
        let whole = |file: &str| self.has(language, &format!("{name}.{file}"));
        let language = if whole("txt") && whole("html") {
            language
        } else {
            DEFAULT_LANGUAGE
        };
        let part = |ending: &str| self.render(&format!("{language}/{name}.{ending}"), &values);
        Ok(Rendered {
            subject: part("subject")?,
            text: tidy(&part("txt")?),
            html: part("html")?,
        })
    }

    /// A page in a language, or in English if that has it not.
    ///
    /// # Errors
    /// A template that does not work with these values.
    pub fn page(&self, language: &str, name: &str, values: Value) -> Result<String, TemplateError> {
        self.one(language, &format!("{name}.html"), &values)
    }

    /// What the server says in a language, or in English if that has it not.
    ///
    /// # Errors
    /// A template that does not work with these values.
    pub fn notice(
        &self,
        language: &str,
        name: &str,
        values: Value,
    ) -> Result<String, TemplateError> {
        let said = self.one(language, &format!("{name}.notice"), &values)?;
        Ok(tidy(&said))
    }

    fn one(&self, language: &str, file: &str, values: &Value) -> Result<String, TemplateError> {
        let known = self.has(language, file);
        let language = if known { language } else { DEFAULT_LANGUAGE };
        self.render(&format!("{language}/{file}"), values)
    }

    fn has(&self, language: &str, file: &str) -> bool {
        let known = self.languages.get(language);
        known.is_some_and(|known| known.contains(file))
    }

    fn render(&self, file: &str, values: &Value) -> Result<String, TemplateError> {
        let rendered = self
            .environment
            .get_template(file)
            .and_then(|template| template.render(values));
        rendered.map_err(|error| bad(file, &error))
    }
}

/// Every value that a letter or a page has: what they are tried with.
fn sample() -> Value {
    context! {
        server => "example.org", address => "ana@example.org", link => "https://example.org/x", hours => 1,
        language => "en", sid => "1.x", token => "x", nonce => "x", action => "x", ..pages("x", told("Ana", "https://example.org/x"))
    }
}

/// What the pages of logins have beside.
fn pages(text: &str, more: Value) -> Value {
    let provider = context! { name => text, link => text };
    context! {
        step => text, name => text, reason => text, place => text, user => text, providers => vec![provider.clone()],
        session => text, site_key => text, documents => vec![provider], ..more
    }
}

/// What a letter tells someone who is away; every kind of room and message is in it.
fn told(text: &str, link: &str) -> Value {
    let kinds = [
        "text", "emote", "image", "video", "audio", "file", "sticker", "call", "other",
    ];
    let messages: Vec<Value> = kinds
        .into_iter()
        .map(|kind| context! { sender => text, kind => kind, text => text })
        .collect();
    let room = |invite: bool, encrypted: bool| {
        context! {
            name => text, link => link, count => 12, invite => invite, encrypted => encrypted, senders => vec![text.to_owned(); 2],
            messages => messages.clone(), more => 3,
        }
    };
    context! {
        brand => text, rooms => vec![room(false, false), room(true, false), room(false, true)], more_rooms => 2, unread => 36,
        highlights => 1, unsubscribe => link,
    }
}

/// A letter's text is two templates: its subject, and the rest.
fn add(
    environment: &mut Environment<'static>,
    name: String,
    text: String,
) -> Result<(), TemplateError> {
    let Some(stem) = name.strip_suffix(".txt") else {
        return environment
            .add_template_owned(name.clone(), text)
            .map_err(|error| bad(&name, &error));
    };
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let Some(subject) = first.strip_prefix("Subject:") else {
        let reason = "its first line must be \"Subject: ...\"".to_owned();
        return Err(TemplateError { file: name, reason });
    };
    environment
        .add_template_owned(format!("{stem}.subject"), subject.trim().to_owned())
        .map_err(|error| bad(&name, &error))?;
    environment
        .add_template_owned(name.clone(), rest.trim_start().to_owned())
        .map_err(|error| bad(&name, &error))
}

fn bad(file: &str, error: &minijinja::Error) -> TemplateError {
    let line = error
        .line()
        .map(|line| format!("line {line}: "))
        .unwrap_or_default();
    TemplateError {
        file: file.to_owned(),
        reason: format!("{line}{error}"),
    }
}

/// Lines that hold nothing but a template's conditions leave no holes: at most one empty line in a row.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    let mut empty = false;
    for line in text.lines() {
        let line = line.trim_end();
        if line.is_empty() {
            empty = true;
            continue;
        }
        if !tidy.is_empty() {
            tidy.push_str(if empty { "\n\n" } else { "\n" });
        }
        empty = false;
        tidy.push_str(line);
    }
    tidy
}

/// The files of a language.
fn names() -> Vec<String> {
    let letters = LETTERS
        .iter()
        .flat_map(|name| [format!("{name}.txt"), format!("{name}.html")]);
    letters
        .chain(PAGES.iter().map(|name| format!("{name}.html")))
        .chain(NOTICES.iter().map(|name| format!("{name}.notice")))
        .collect()
}

fn is_known(file: &str) -> bool {
    let is_language = |name: &str| {
        (2..=16).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    match file.split_once('/') {
        Some((language, name)) => is_language(language) && names().iter().any(|one| one == name),
        None => LAYOUTS.contains(&file),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_letter_and_page_is_there_in_english_and_romanian() {
        let templates = Templates::new(Vec::new()).unwrap();
        for language in ["en", "ro"] {
            for file in names() {
                assert!(templates.has(language, &file), "{language}/{file}");
            }
        }
        let letter = |language| templates.letter(language, "register", sample()).unwrap();
        assert_ne!(letter("en").subject, letter("ro").subject);
        assert_eq!(letter("en"), letter("xx"), "English for who has no other");
        for part in [letter("en").text, letter("en").html] {
            let part = part.replace("&#x2f;", "/");
            assert!(part.contains("https://example.org/x"), "{part}");
        }
    }

    #[test]
    fn html_is_escaped_and_holds_no_remote_picture() {
        let templates = Templates::new(Vec::new()).unwrap();
        let hostile = "<img src=x onerror=alert(1)>\"'&";
        let values = context! {
            server => hostile, address => hostile, link => hostile, hours => 1, language => hostile,
            sid => hostile, token => hostile, nonce => hostile, action => hostile,
            ..pages(hostile, told(hostile, hostile))
        };
        for language in ["en", "ro"] {
            for letter in LETTERS {
                let rendered = templates.letter(language, letter, values.clone()).unwrap();
                let html = rendered.html;
                assert!(!html.contains("<img") && !html.contains("\"'&"), "{html}");
            }
            for page in PAGES {
                let page = templates.page(language, page, values.clone()).unwrap();
                assert!(!page.contains("<img") && !page.contains("\"'&"), "{page}");
            }
        }
    }

    #[test]
    fn nothing_is_fetched_by_who_reads_a_letter() {
        let page = |name: &str| {
            PAGES
                .iter()
                .any(|page| name.ends_with(&format!("/{page}.html")))
        };
        for (name, text) in BUILT_IN.iter().filter(|(name, _)| !page(name)) {
            for word in ["src=", "url(", "<link", "@import", "<script", "http"] {
                assert!(!text.contains(word), "{name} has {word}");
            }
        }
    }

    #[test]
    fn the_language_is_the_first_that_is_there() {
        let templates = Templates::new(Vec::new()).unwrap();
        for (accepted, language) in [
            ("", "en"),
            ("ro", "ro"),
            ("ro-RO", "ro"),
            ("RO_ro", "ro"),
            ("fr, ro;q=0.5", "ro"),
            ("en;q=0.5, ro;q=0.9", "ro"),
            ("en, ro", "en"),
            ("ro;q=0", "en"),
            ("*;;;=,,q=", "en"),
            ("fr", "en"),
        ] {
            assert_eq!(templates.language(accepted), language, "{accepted}");
        }
    }

    #[test]
    fn an_operator_replaces_files_and_adds_languages() {
        let given = |name: &str, text: &str| vec![(name.to_owned(), text.to_owned())];
        let own = "Subject: Hi from {{ server }}\n\n{{ link }}\n";
        let mut files = given("de/register.txt", own);
        files.extend(given("de/register.html", "<p>{{ link }}</p>"));
        let templates = Templates::new(files).unwrap();
        assert_eq!(templates.language("de-AT"), "de");
        let letter = templates.letter("de", "register", sample()).unwrap();
        assert_eq!(letter.subject, "Hi from example.org");
        assert_eq!(letter.text, "https://example.org/x");
        // What the language has not is English.
        let english = templates.letter("en", "reset_password", sample()).unwrap();
        assert_eq!(
            templates.letter("de", "reset_password", sample()).unwrap(),
            english
        );
        for (name, text, told) in [
            ("de/regster.txt", own, "no template"),
            ("../register.txt", own, "no template"),
            ("en/register.txt", "Hello", "Subject"),
            ("en/register.txt", "Subject: {{ nothing }}\n", "undefined"),
            ("en/register.html", "{% if %}", "line 1"),
        ] {
            let error = Templates::new(given(name, text)).unwrap_err().to_string();
            assert!(
                error.contains(name.trim_end_matches(".txt")) && error.contains(told),
                "{error}"
            );
        }
    }
}
