//! Settings that hold, and settings that are refused.

#![allow(clippy::unwrap_used)]
use super::*;

fn read(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vatra.toml");
    std::fs::write(&file, text).unwrap();
    Config::read(Some(&file))
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    let documented = include_str!("../../../../config/default.toml");
    let read: Config = toml::from_str(documented).unwrap();
    assert_eq!(read, Config::default());
    let everything = toml::Value::try_from(Config::default()).unwrap();
    let listed: toml::Value = toml::from_str(documented).unwrap();
    assert_eq!(
        listed, everything,
        "every key stands in config/default.toml"
    );
}

#[test]
fn an_unknown_key_stops_the_start_and_is_named() {
    let error = read("[client]\nlissten = \"127.0.0.1:1\"")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("vatra.toml") && error.contains("lissten"),
        "{error}"
    );
}

#[test]
fn a_setting_that_is_not_honoured_yet_stops_the_start() {
    let error = read("[email]\nnotices_room = true")
        .unwrap_err()
        .to_string();
    assert!(error.contains("notices_room"), "{error}");
}

#[test]
fn open_registration_on_a_public_address_wants_to_be_said_twice() {
    let open = "[client]\nlisten = \"0.0.0.0:8008\"\n[registration]\nopen = true\n";
    let error = read(open).unwrap_err().to_string();
    assert!(
        error.contains("registration.allow_open_on_public_address"),
        "{error}"
    );
    read(&format!("{open}allow_open_on_public_address = true")).unwrap();
    read(&format!("{open}token = \"secret\"")).unwrap();
    // The other listener serves the same.
    let federation =
        "[federation]\nenabled = true\nlisten = \"0.0.0.0:8448\"\n[registration]\nopen = true\n";
    let error = read(federation).unwrap_err().to_string();
    assert!(error.contains("registration.open"), "{error}");
    read(&federation.replace("enabled = true", "enabled = false")).unwrap();
}

#[test]
fn mail_that_could_not_be_sent_stops_the_start_and_names_key_and_remedy() {
    let good = "[client]\nbase_url = \"https://matrix.example.org\"\n[smtp]\nhost = \"mail.example.org\"\n\
                from = \"Hearth <hearth@example.org>\"\nusername = \"u\"\npassword = \"a secret\"\n";
    assert_eq!(read(good).unwrap().smtp.port, 587);
    for (good_line, bad_line, key, remedy) in [
        ("mail.example.org", "smtp://mail", "smtp.host", "host name"),
        (
            "Hearth <hearth@example.org>",
            "hearth",
            "smtp.from",
            "address",
        ),
        ("Hearth <hearth@example.org>", "", "smtp.from", "address"),
        (
            "Hearth <hearth@example.org>",
            "a@b.c\\nBcc: d@e.f",
            "smtp.from",
            "address",
        ),
        ("password = \"a secret\"", "", "smtp.password", "both"),
        (
            "username = \"u\"",
            "username = \"u\"\nport = 0",
            "smtp.port",
            "587",
        ),
        (
            "username = \"u\"",
            "tls = \"ssl\"",
            "tls",
            "config/default.toml",
        ),
        (
            "username = \"u\"",
            "username = \"u\"\nmax_mails_per_hour = 0",
            "smtp.max_mails_per_hour",
            "1",
        ),
        (
            "base_url = \"https://matrix.example.org\"",
            "",
            "client.base_url",
            "links",
        ),
    ] {
        assert!(good.contains(good_line), "{good_line}");
        let error = read(&good.replace(good_line, bad_line)).unwrap_err();
        let error = error.to_string();
        for told in ["vatra.toml", key, remedy] {
            assert!(error.contains(told), "{bad_line}: {error}");
        }
        assert!(!error.contains("a secret"), "{error}");
    }
    for seconds in ["0", "604801"] {
        let error = read(&format!("[email]\nnotification_delay_s = {seconds}")).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("email.notification_delay_s"), "{error}");
    }
    let error = read("[registration]\nrequire_email = true").unwrap_err();
    assert!(error.to_string().contains("smtp.host"), "{error}");
}

#[test]
fn a_trusted_proxy_is_an_address_or_a_network() {
    let error = read("[client]\ntrusted_proxies = [\"127.0.0.1\", \"proxy\"]")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("client.trusted_proxies") && error.contains("proxy is"),
        "{error}"
    );
    let good = "[client]\ntrusted_proxies = [\"127.0.0.1\", \"::1\", \"10.0.0.0/8\"]";
    assert_eq!(read(good).unwrap().client.trusted_proxies.len(), 3);
}

#[test]
fn a_default_room_version_that_nobody_knows_is_refused() {
    let error = read("[rooms]\ndefault_version = \"13\"").unwrap_err();
    let error = error.to_string();
    assert!(error.contains("rooms.default_version"), "{error}");
    read("[rooms]\ndefault_version = \"10\"").unwrap();
}

#[test]
fn networks_and_servers_that_are_none_are_refused_by_their_keys() {
    for (key, value) in [
        ("allowed_networks", "[\"10.0.0.0\"]"),
        ("trusted_key_servers", "[\"no server\"]"),
        ("delegate", "\"no server\""),
    ] {
        let error = read(&format!("[federation]\n{key} = {value}"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("federation.{key}")), "{error}");
    }
    read(
        "[federation]\nallowed_networks = [\"10.0.0.0/8\"]\ntrusted_key_servers = [\"a.example\"]",
    )
    .unwrap();
}

#[test]
fn half_a_certificate_is_refused() {
    let error = read("[federation]\nenabled = true\ntls_cert = \"cert.pem\"")
        .unwrap_err()
        .to_string();
    assert!(error.contains("federation.tls_key"), "{error}");
}

/// Nothing sets the key, and there is no file to name.
#[test]
fn what_is_missing_without_a_file_is_named_with_its_variable() {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let error = Config::read_with(None, vec![set("VATRA__FEDERATION__TLS_CERT", "cert.pem")]);
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with(
            "federation.tls_key (in a config file, or in VATRA__FEDERATION__TLS_KEY): set both"
        ),
        "{error}"
    );
}

/// What a value of one key is refused with.
fn refused(section: &str, line: &str) -> String {
    read(&format!("{section}\n{line}")).unwrap_err().to_string()
}

#[test]
fn values_that_make_no_sense_are_refused_by_file_and_key() {
    for (section, key, value) in [
        ("client", "base_url", "\"matrix.example\""),
        ("client", "base_url", "\"ftp://matrix.example\""),
        ("client", "base_url", "\"https:///x\""),
        ("client", "max_request_bytes", "0"),
        ("client", "max_request_bytes", "65535"),
        ("media", "max_upload_bytes", "0"),
        ("media", "purge_interval_s", "1"),
        ("media", "s3.bucket", "\"a bucket\""),
        ("log", "filter", "\"vatra=loud\""),
        ("support", "admin_matrix_id", "\"admin\""),
        ("support", "admin_email", "\"admin\""),
        ("support", "page", "\"example.org\""),
        ("server_notices", "localpart", "\"The Server\""),
        ("server_notices", "display_name", "\"\""),
        ("push", "allowed_networks", "[\"10.0.0.0\"]"),
        ("federation", "trusted_ca", "\"/nowhere/ca.pem\""),
        ("metrics", "listen", "\"9009\""),
        ("web_client", "path", "\"/nowhere\""),
        ("storage", "memory_budget_bytes", "1000"),
        ("retention", "interval_s", "1"),
        ("retention", "default_max_lifetime_s", "1"),
    ] {
        let error = refused(&format!("[{section}]"), &format!("{key} = {value}"));
        let expected = format!("vatra.toml: {section}.{key}: ");
        assert!(error.contains(&expected), "{expected} is not in: {error}");
    }
    for (key, value) in [
        ("server_name", "\"no name\""),
        ("data_dir", "\"\""),
        ("media_dir", "\"\""),
        ("media_dir", "\"./data/store/media\""),
        ("media_dir", "\"./data/search/media\""),
    ] {
        let error = refused("", &format!("{key} = {value}"));
        let expected = format!("vatra.toml: {key}: ");
        assert!(error.contains(&expected), "{expected} is not in: {error}");
    }
    let error = refused("[storage]", "durability = \"sometimes\"");
    let expected = "`synced` or `relaxed` for key `storage.durability`";
    assert!(error.contains(expected), "{error}");
    let error = refused("[turn]", "uris = [\"turn:a\"]\npassword = \"b\"\nttl_s = 0");
    assert!(error.contains("vatra.toml: turn.ttl_s: "), "{error}");
    read("[client]\nbase_url = \"https://matrix.example/a\"").unwrap();
}

#[test]
fn a_service_for_media_is_named_in_full() {
    let whole = [
        ("bucket", "media"),
        ("endpoint", "https://s3.example"),
        ("access_key_id", "vatra"),
        ("secret_access_key", "hush-hush"),
    ];
    let with = |changed: &str, value: &str| {
        let mut lines = vec!["[media]\nbackend = \"s3\"\n[media.s3]".to_owned()];
        for (key, usual) in whole {
            let value = if key == changed { value } else { usual };
            lines.push(format!("{key} = {value:?}"));
        }
        if !whole.iter().any(|(key, _)| *key == changed) {
            lines.push(format!("{changed} = {value:?}"));
        }
        read(&lines.join("\n"))
    };
    with("prefix", "vatra/media").unwrap();
    with("endpoint", "").unwrap();
    for (key, value) in [
        ("bucket", ""),
        ("endpoint", "s3.example"),
        ("endpoint", "https://s3.example/media"),
        ("endpoint", "https://me@s3.example"),
        ("access_key_id", ""),
        ("secret_access_key", ""),
        ("region", ""),
        ("prefix", "a b"),
        ("trusted_ca", "/nowhere/ca.pem"),
    ] {
        let error = with(key, value).unwrap_err().to_string();
        let expected = format!("vatra.toml: media.s3.{key}: ");
        assert!(error.contains(&expected), "{expected} is not in: {error}");
    }
    let s3 = with("prefix", "").unwrap().media.s3;
    assert_eq!(s3.secret_access_key, "hush-hush");
    assert!(!format!("{s3:?}").contains("hush"), "{s3:?}");
}

#[test]
fn certificates_are_read_before_the_start_whether_or_not_they_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let cert = file("cert.pem", &made.cert.pem());
    let key = file("key.pem", &made.signing_key.serialize_pem());
    let other = file("other.pem", &other.signing_key.serialize_pem());
    let empty = file("empty.pem", "");
    let with = |cert: &str, key: &str| {
        read(&format!(
            "[federation]\ntls_cert = {cert:?}\ntls_key = {key:?}\ntrusted_ca = {cert:?}"
        ))
    };
    with(&cert, &key).unwrap();
    for (bad_cert, bad_key, blamed) in [
        ("/nowhere/cert.pem", key.as_str(), "tls_cert"),
        (&empty, &key, "tls_cert"),
        (&cert, "/nowhere/key.pem", "tls_key"),
        (&cert, &empty, "tls_key"),
        (&cert, &other, "tls_key"),
    ] {
        let error = with(bad_cert, bad_key).unwrap_err().to_string();
        let expected = format!("vatra.toml: federation.{blamed}: ");
        assert!(error.contains(&expected), "{expected} is not in: {error}");
        assert!(error.contains("PEM"), "{error}");
    }
}

#[test]
fn a_mistake_in_the_environment_is_not_blamed_on_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vatra.toml");
    std::fs::write(&file, "[presence]\nenabled = false").unwrap();
    let read = |name: &str, value: &str| {
        let good = ("VATRA__LOG__JSON".to_owned(), "true".to_owned());
        Config::read_with(Some(&file), vec![good, (name.to_owned(), value.to_owned())])
    };
    for (name, value) in [
        ("VATRA__PRESENCE__ENABLED", "perhaps"),
        ("VATRA__CLIENT__LISSTEN", "127.0.0.1:1"),
        ("VATRA__CLIENT__LISTEN", "here"),
        ("VATRA__CLIENT__BASE_URL", "here"),
        ("vatra__client__max_request_bytes", "1"),
        ("VATRA__CLIENT__TRUSTED_PROXIES", "127.0.0.1,proxy"),
        ("VATRA__NOTHING", "1"),
    ] {
        let error = read(name, value).unwrap_err().to_string();
        let begin = format!("the environment variable {name}: ");
        assert!(error.starts_with(&begin), "{error}");
    }
    let error = Config::read_with(Some(&file), Vec::new()).map(|config| config.presence.enabled);
    assert!(!error.unwrap());
    let config = read("VATRA__PRESENCE__ENABLED", "true").unwrap();
    assert!(config.presence.enabled && config.log.json);
    // The file's own mistakes stay its own.
    std::fs::write(&file, "[presence]\nenabled = \"perhaps\"").unwrap();
    let error = read("VATRA__LOG__FILTER", "info").unwrap_err().to_string();
    assert!(error.contains("vatra.toml: "), "{error}");
}

#[test]
fn previews_that_make_no_sense_stop_the_start_and_name_key_and_remedy() {
    let good =
        "enabled = true\nallow_hosts = [\"*.example.org\", \"192.0.2.1\", \"[2001:db8::1]\"]";
    assert!(
        read(&format!("[url_preview]\n{good}"))
            .unwrap()
            .url_preview
            .enabled
    );
    for (line, key, remedy) in [
        (
            "allowed_networks = [\"10.0.0.0\"]",
            "allowed_networks",
            "10.0.0.0/8",
        ),
        (
            "allow_hosts = [\"https://example.org/\"]",
            "allow_hosts",
            "*.example.org",
        ),
        ("deny_hosts = [\"*\"]", "deny_hosts", "*.example.org"),
        ("deny_hosts = [\"Example.org\"]", "deny_hosts", "lower case"),
        ("max_page_bytes = 100", "max_page_bytes", "2097152"),
        ("max_page_bytes = 100000000", "max_page_bytes", "2097152"),
        ("max_image_bytes = 0", "max_image_bytes", "8388608"),
        ("timeout_s = 0", "timeout_s", "60"),
        ("timeout_s = 61", "timeout_s", "60"),
    ] {
        let error = read(&format!("[url_preview]\n{line}"))
            .unwrap_err()
            .to_string();
        for told in ["vatra.toml", &format!("url_preview.{key}"), remedy] {
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
