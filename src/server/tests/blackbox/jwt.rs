//! Logins by JSON web tokens that a service of the operator's signs.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use vatra::config::Config;

use crate::harness::{Engine, PASSWORD, Server, on_both_engines, refused, succeeds};

on_both_engines!(
    a_token_makes_an_account_at_its_first_login_and_logs_in_at_the_next,
    a_token_that_says_anything_else_is_refused,
    who_has_no_account_gets_none_where_the_operator_wants_it_so,
);

const SECRET: &str = "a secret of at least thirty-two bytes";
const LOGIN: &str = "/_matrix/client/v3/login";

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

fn login(server: &Server, token: &str) -> RequestBuilder {
    let request = server.request(Method::POST, LOGIN);
    request.json(&json!({ "type": "org.matrix.login.jwt", "token": token }))
}

fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

async fn is_offered(server: &Server) -> bool {
    let flows = succeeds(server.request(Method::GET, LOGIN)).await;
    let flows = flows["flows"].as_array().unwrap().iter();
    let mut types = flows.map(|flow| flow["type"].clone());
    types.any(|kind| kind == "org.matrix.login.jwt")
}

async fn a_token_makes_an_account_at_its_first_login_and_logs_in_at_the_next(engine: Engine) {
    let mut server = Server::start(engine).await;
    assert!(!is_offered(&server).await);
    let token = signed(&json!({ "sub": "Ana", "exp": now() + 60 }));
    refused(login(&server, &token), 400, "M_UNKNOWN").await;

    server
        .replace(|config| config.jwt.secret = SECRET.to_owned())
        .await;
    assert!(is_offered(&server).await);
    let first = succeeds(login(&server, &token)).await;
    assert_eq!(first["user_id"], "@ana:localhost");
    server.user(&first).create_room(json!({})).await;
    let second = succeeds(login(&server, &token)).await;
    assert_eq!(second["user_id"], "@ana:localhost");
    assert_ne!(second["device_id"], first["device_id"]);
    // The account has no password; and one that was there before is logged in to as well.
    let by_password = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "ana" }, "password": PASSWORD,
    });
    let by_password = server.request(Method::POST, LOGIN).json(&by_password);
    refused(by_password, 403, "M_FORBIDDEN").await;
    let bob = server.register("bob").await;
    let token = signed(&json!({ "sub": "bob", "exp": now() + 60 }));
    let session = succeeds(login(&server, &token)).await;
    assert_eq!(session["user_id"], bob.id.as_str());
    let body = json!({ "auth": { "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": "bob" } } });
    bob.post("/account/deactivate", body).await;
    refused(login(&server, &token), 403, "M_USER_DEACTIVATED").await;
}

async fn a_token_that_says_anything_else_is_refused(engine: Engine) {
    let server = Server::start_with(engine, |config| {
        config.jwt.secret = SECRET.to_owned();
        config.jwt.issuer = "https://issuer.example".to_owned();
        config.jwt.audiences = vec!["vatra".to_owned(), "other".to_owned()];
    });
    let server = server.await;
    let claims = json!({
        "sub": "ana", "exp": now() + 600, "iss": "https://issuer.example", "aud": ["x", "other"], "nbf": now() - 5,
    });
    succeeds(login(&server, &signed(&claims))).await;
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        signed(&claims)
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        signed(&claims)
    };
    let good = signed(&claims);
    let (head, _) = good.rsplit_once('.').unwrap();
    let other = EncodingKey::from_secret(b"another secret of more than thirty-two bytes");
    let mut refusals = vec![
        encode(&Header::new(Algorithm::HS256), &claims, &other).unwrap(),
        encode(
            &Header::new(Algorithm::HS512),
            &claims,
            &EncodingKey::from_secret(SECRET.as_bytes()),
        )
        .unwrap(),
        format!("{head}."),
        // "alg": "none".
        format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap()),
        with("exp", json!(now() - 3_600)),
        with("exp", json!("tomorrow")),
        with("nbf", json!(now() + 3_600)),
        with("iss", json!("https://elsewhere.example")),
        with("aud", json!("else")),
        with("sub", json!(7)),
        with("sub", json!("")),
        String::new(),
        "a.b.c".to_owned(),
    ];
    refusals.extend(["exp", "iss", "aud", "sub"].map(without));
    for token in refusals {
        let body = refused(login(&server, &token), 403, "M_FORBIDDEN").await;
        assert!(!body["error"].as_str().unwrap().contains(SECRET));
    }
    for name in ["@ana:localhost", "no spaces", "ana:localhost"] {
        let token = with("sub", json!(name));
        refused(login(&server, &token), 400, "M_INVALID_USERNAME").await;
    }
    let without = server.request(Method::POST, LOGIN);
    let without = without.json(&json!({ "type": "org.matrix.login.jwt" }));
    refused(without, 400, "M_MISSING_PARAM").await;
}

async fn who_has_no_account_gets_none_where_the_operator_wants_it_so(engine: Engine) {
    for (algorithm, kind) in [
        (Algorithm::EdDSA, &PKCS_ED25519),
        (Algorithm::ES256, &PKCS_ECDSA_P256_SHA256),
    ] {
        let pair = KeyPair::generate_for(kind).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        std::fs::write(&file, pair.public_key_pem()).unwrap();
        let server = Server::start_with(engine, |config| {
            config.jwt.public_key_file = file;
            config.jwt.algorithm = format!("{algorithm:?}");
            config.jwt.create_accounts = false;
            config.jwt.subject_claim = "name".to_owned();
        });
        let server = server.await;
        server.register("ana").await;
        let pem = pair.serialize_pem();
        let key = match algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        let key = key.unwrap();
        let token = |name: &str| {
            let claims = json!({ "name": name, "sub": "root", "exp": now() + 60 });
            encode(&Header::new(algorithm), &claims, &key).unwrap()
        };
        let session = succeeds(login(&server, &token("ana"))).await;
        assert_eq!(session["user_id"], "@ana:localhost");
        refused(login(&server, &token("bob")), 403, "M_FORBIDDEN").await;
        // The public key is no secret to sign with.
        let public = EncodingKey::from_secret(pair.public_key_pem().as_bytes());
        let claims = json!({ "name": "ana", "exp": now() + 60 });
        let forged = encode(&Header::new(Algorithm::HS256), &claims, &public).unwrap();
        refused(login(&server, &forged), 403, "M_FORBIDDEN").await;
    }
}

#[test]
fn keys_that_cannot_be_used_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let key = folder.path().join("key.pem");
    std::fs::write(&key, "no key").unwrap();
    let key = key.display();
    for (settings, named) in [
        ("secret = \"short\"".to_owned(), "jwt.secret"),
        (
            format!("secret = \"{SECRET}\"\nalgorithm = \"none\""),
            "jwt.algorithm",
        ),
        (
            format!("secret = \"{SECRET}\"\nalgorithm = \"RS256\""),
            "jwt.public_key_file",
        ),
        (
            format!("secret = \"{SECRET}\"\nalgorithm = \"ES256\"\npublic_key_file = \"{key}\""),
            "jwt.secret",
        ),
        (
            format!("algorithm = \"ES256\"\npublic_key_file = \"{key}\""),
            "jwt.public_key_file",
        ),
        (
            format!("public_key_file = \"{key}\""),
            "jwt.public_key_file",
        ),
        (
            format!("secret = \"{SECRET}\"\nsubject_claim = \"\""),
            "jwt.subject_claim",
        ),
    ] {
        std::fs::write(&file, format!("[jwt]\n{settings}\n")).unwrap();
        let error = Config::read(Some(&file)).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
        assert!(!error.contains(SECRET), "{error}");
    }
}
