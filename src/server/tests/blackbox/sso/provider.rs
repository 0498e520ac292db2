//! An identity provider that speaks OpenID Connect, and does what the test says.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What a login at the provider was asked with, by its code.
type Asked = HashMap<String, HashMap<String, String>>;

struct Inner {
    address: String,
    keys: Mutex<Vec<KeyPair>>,
    asked: Mutex<Asked>,
    /// What the ID token says beside the usual.
    claims: Mutex<Value>,
    /// What the provider says of its users beside.
    userinfo: Mutex<Value>,
    discovered: Mutex<usize>,
}

/// A provider. Cheap to clone.
#[derive(Clone)]
pub(super) struct Provider {
    inner: Arc<Inner>,
}

impl Provider {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let provider = Self {
            inner: Arc::new(Inner {
                address,
                keys: Mutex::new(vec![key()]),
                asked: Mutex::default(),
                claims: Mutex::new(json!({})),
                userinfo: Mutex::new(json!({})),
                discovered: Mutex::new(0),
            }),
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    pub(super) fn issuer(&self) -> String {
        self.inner.address.clone()
    }

    /// What ID tokens say from now on; `null` takes a claim out.
    pub(super) fn says(&self, claims: Value) {
        *self.inner.claims.lock().unwrap() = claims;
    }

    pub(super) fn tells(&self, userinfo: Value) {
        *self.inner.userinfo.lock().unwrap() = userinfo;
    }

    /// Signs with another key from now on, which it publishes or does not.
    pub(super) fn new_key(&self) {
        self.inner.keys.lock().unwrap().insert(0, key());
    }

    pub(super) fn discovered(&self) -> usize {
        *self.inner.discovered.lock().unwrap()
    }

    /// Someone logs in at the page with these parameters: a code for them.
    pub(super) fn logs_in(&self, asked: HashMap<String, String>) -> String {
        let mut all = self.inner.asked.lock().unwrap();
        let code = format!("code{}", all.len());
        all.insert(code.clone(), asked);
        code
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

async fn discovery(State(provider): State<Provider>) -> Json<Value> {
    *provider.inner.discovered.lock().unwrap() += 1;
    let at = provider.issuer();
    Json(json!({
        "issuer": at, "authorization_endpoint": format!("{at}/authorize"), "token_endpoint": format!("{at}/token"),
        "jwks_uri": format!("{at}/jwks"), "userinfo_endpoint": format!("{at}/userinfo"),
        "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "none", "HS256"],
    }))
}

async fn jwks(State(provider): State<Provider>) -> Json<Value> {
    let keys = provider.inner.keys.lock().unwrap();
    let shown = keys.iter().enumerate().map(|(place, key)| {
        // A point without compression: 4, x, y.
        let point = key.der_bytes();
        let part = |from: usize| BASE64_URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": (keys.len() - place).to_string(),
            "x": part(1), "y": part(33) })
    });
    Json(json!({ "keys": shown.collect::<Vec<_>>() }))
}

async fn token(State(provider): State<Provider>, head: HeaderMap, body: String) -> Response {
    let form: HashMap<String, String> = form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    let no = |reason: &str| {
        let body = json!({ "error": "invalid_grant", "error_description": reason });
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    };
    // vatra:secret
    if head
        .get("authorization")
        .is_none_or(|it| it != "Basic dmF0cmE6c2VjcmV0")
    {
        return no("who are you?");
    }
    let asked = provider.inner.asked.lock().unwrap().remove(&form["code"]);
    let Some(asked) = asked else {
        return no("unknown code");
    };
    let verifier = Sha256::digest(form["code_verifier"].as_bytes());
    if asked["code_challenge_method"] != "S256"
        || asked["code_challenge"] != BASE64_URL_SAFE_NO_PAD.encode(verifier)
    {
        return no("not who has asked");
    }
    if asked["redirect_uri"] != form["redirect_uri"] {
        return no("another place");
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut claims = json!({
        "iss": provider.issuer(), "aud": "vatra", "sub": "ana", "exp": now + 60, "iat": now, "nonce": asked["nonce"],
    });
    for (name, value) in provider.inner.claims.lock().unwrap().as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    let (pem, kid) = {
        let keys = provider.inner.keys.lock().unwrap();
        (keys[0].serialize_pem(), keys.len().to_string())
    };
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(kid);
    let key = EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
    let mut token = encode(&header, &claims, &key).unwrap();
    if let Some(other) = claims.get("as_alg").and_then(Value::as_str) {
        let head = BASE64_URL_SAFE_NO_PAD.encode(json!({ "alg": other }).to_string());
        let body = token.split('.').nth(1).unwrap().to_owned();
        token = format!("{head}.{body}.");
        if other == "HS256" {
            let key = EncodingKey::from_secret(b"secret");
            token = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
        }
    }
    Json(json!({ "access_token": "access", "token_type": "Bearer", "expires_in": 60, "id_token": token }))
        .into_response()
}

async fn userinfo(State(provider): State<Provider>) -> Json<Value> {
    Json(provider.inner.userinfo.lock().unwrap().clone())
}
