//! Two servers in one process, over loopback TLS with an authority of their own.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::Method;
use ruma::{ServerName, api::federation::transactions::send_transaction_message::v1 as send};
use serde_json::{Value, json, value::RawValue};
use tempfile::TempDir;
use vatra::config::Config;

use crate::harness::{Engine, Server, answer, encoded, refused, succeeds};

/// An authority for certificates, and the folder where they are.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// Settings of a server named `localhost` and a free port, which trusts this authority.
    pub(crate) fn settings(&self, config: &mut Config) {
        self.settings_for(config, "localhost");
    }

    fn settings_for(&self, config: &mut Config, certified: &str) {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![certified.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |kind: &str| {
            self.folder
                .path()
                .join(format!("{}.{kind}", address.port()))
        };
        std::fs::write(file("pem"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        config.server_name = format!("localhost:{}", address.port());
        config.federation.enabled = true;
        config.federation.listen = address;
        config.federation.tls_cert = file("pem");
        config.federation.tls_key = file("key");
        config.federation.trusted_ca = self.ca();
        config.federation.allow_loopback = true;
    }

    fn ca(&self) -> std::path::PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) async fn server(&self) -> Server {
        Server::start_with(Engine::Memory, |config| self.settings(config)).await
    }
}

fn name(server: &Server) -> &str {
    &server.config().server_name
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_aliases_and_lists_of_rooms_are_asked_for_on_their_servers() {
    let authority = Authority::new();
    let (here, there) = (authority.server().await, authority.server().await);
    let (alice, bob) = (here.register("alice").await, there.register("bob").await);
    let path = format!("/profile/{}/displayname", encoded(&bob.id));
    bob.put(&path, json!({ "displayname": "Bob" })).await;
    assert_eq!(alice.get(&path).await["displayname"], "Bob");
    let whole = alice.get(&format!("/profile/{}", encoded(&bob.id))).await;
    assert_eq!(whole, json!({ "displayname": "Bob" }));
    let nobody = encoded(&format!("@nobody:{}", name(&there)));
    let request = alice.request(Method::GET, &format!("/profile/{nobody}"));
    refused(request, 404, "M_NOT_FOUND").await;

    let room = bob
        .create_room(
            json!({ "room_alias_name": "老虎£🤨", "visibility": "public", "name": "Tigers" }),
        )
        .await;
    let alias = encoded(&format!("#老虎£🤨:{}", name(&there)));
    let found = alice.get(&format!("/directory/room/{alias}")).await;
    assert_eq!(found, json!({ "room_id": room, "servers": [name(&there)] }));
    let none = encoded(&format!("#none:{}", name(&there)));
    let request = alice.request(Method::GET, &format!("/directory/room/{none}"));
    refused(request, 404, "M_NOT_FOUND").await;

    let list = alice
        .get(&format!("/publicRooms?server={}", encoded(name(&there))))
        .await;
    assert_eq!(list["chunk"][0]["room_id"], room.as_str());
    let search = json!({ "filter": { "generic_search_term": "lions" } });
    let path = format!("/publicRooms?server={}", encoded(name(&there)));
    assert_eq!(alice.post(&path, search).await["chunk"], json!([]));
    assert_eq!(alice.get("/publicRooms").await["chunk"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_or_shows_a_wrong_certificate_is_a_bad_gateway() {
    let authority = Authority::new();
    let here = authority.server().await;
    let alice = here.register("alice").await;
    let gone = encoded("@x:localhost:1");
    let request = alice.request(Method::GET, &format!("/profile/{gone}"));
    refused(request, 502, "M_UNKNOWN").await;

    // Its certificate is for another name, or from an authority that nobody trusts.
    let wrong = Server::start_with(Engine::Memory, |config| {
        authority.settings_for(config, "elsewhere");
    });
    let (wrong, other) = (wrong.await, Authority::new());
    let untrusted = other.server().await;
    for server in [&wrong, &untrusted] {
        let bob = server.register("bob").await;
        let request = alice.request(Method::GET, &format!("/profile/{}", encoded(&bob.id)));
        refused(request, 502, "M_UNKNOWN").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_not_public_is_not_connected_to() {
    let authority = Authority::new();
    let secret = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    secret.set_nonblocking(true).unwrap();
    let port = secret.local_addr().unwrap().port();
    let guarded = Server::start_with(Engine::Memory, |config| {
        authority.settings(config);
        config.federation.allow_loopback = false;
    });
    let guarded = guarded.await;
    let alice = guarded.register("alice").await;
    // All ways of writing one address; nobody listens at the last.
    for host in [
        "localhost",
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "[::1]",
        "169.254.169.254",
    ] {
        let user = encoded(&format!("@bob:{host}:{port}"));
        let request = alice.request(Method::GET, &format!("/profile/{user}"));
        refused(request, 502, "M_UNKNOWN").await;
        // As a notary, for whoever asks.
        let server = encoded(&format!("{host}:{port}"));
        let path = format!("/_matrix/key/v2/query/{server}");
        let none = succeeds(guarded.request(Method::GET, &path)).await;
        assert_eq!(none, json!({ "server_keys": [] }));
    }
    let knocked = secret.accept().err().map(|error| error.kind());
    assert_eq!(
        knocked,
        Some(std::io::ErrorKind::WouldBlock),
        "somebody has connected"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_signed_for_this_server_is_refused() {
    let authority = Authority::new();
    let (here, there) = (authority.server().await, authority.server().await);
    let bob = here.register("bob").await;
    let path = format!(
        "/_matrix/federation/v1/query/profile?user_id={}",
        encoded(&bob.id)
    );
    refused(here.request(Method::GET, &path), 401, "M_UNAUTHORIZED").await;
    let signature = "A".repeat(86);
    for (origin, destination) in [
        (name(&there), name(&here)),
        (name(&here), name(&here)),
        (name(&there), "other.example"),
        ("localhost:1", name(&here)),
    ] {
        let claim = format!(
            "X-Matrix origin=\"{origin}\",destination=\"{destination}\",key=\"ed25519:a\",sig=\"{signature}\""
        );
        let request = here
            .request(Method::GET, &path)
            .header("authorization", claim);
        refused(request, 401, "M_UNAUTHORIZED").await;
    }
    // Where no proof is needed, one does not matter: some servers sign all that they ask.
    let claim = format!(
        "X-Matrix origin=\"{}\",destination=\"{}\",key=\"ed25519:a\",sig=\"{signature}\"",
        name(&there),
        name(&here)
    );
    for path in ["/_matrix/key/v2/server", "/_matrix/federation/v1/version"] {
        let request = here.request(Method::GET, path);
        succeeds(request.header("authorization", &claim)).await;
    }
    let whoami = here.request(Method::GET, "/_matrix/client/v3/account/whoami");
    refused(
        whoami.header("authorization", &claim),
        401,
        "M_MISSING_TOKEN",
    )
    .await;
    for header in ["X-Matrix", "Bearer x", "X-Matrix origin=,key=,sig="] {
        let request = here
            .request(Method::GET, &path)
            .header("authorization", header);
        refused(request, 401, "M_UNAUTHORIZED").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_version_are_published_and_notarised() {
    let authority = Authority::new();
    let (here, there) = (authority.server().await, authority.server().await);
    let own = succeeds(here.request(Method::GET, "/_matrix/key/v2/server")).await;
    assert_eq!(own["server_name"], name(&here));
    let id = own["verify_keys"]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .unwrap()
        .clone();
    assert!(own["signatures"][name(&here)][&id].is_string());
    let path = format!("/_matrix/key/v2/query/{}", encoded(name(&there)));
    let asked = succeeds(here.request(Method::GET, &path)).await;
    let signed_by = |document: &Value| document["signatures"].as_object().unwrap().len();
    assert_eq!(asked["server_keys"][0]["server_name"], name(&there));
    assert_eq!(signed_by(&asked["server_keys"][0]), 2);
    let query = json!({ "server_keys": { name(&there): {}, name(&here): {}, "localhost:1": {} } });
    let request = here
        .request(Method::POST, "/_matrix/key/v2/query")
        .json(&query);
    assert_eq!(
        succeeds(request).await["server_keys"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let many: serde_json::Map<_, _> = (0..101)
        .map(|n| (format!("a{n}.example"), json!({})))
        .collect();
    let request = here
        .request(Method::POST, "/_matrix/key/v2/query")
        .json(&json!({ "server_keys": many }));
    refused(request, 400, "M_INVALID_PARAM").await;
    let version = succeeds(here.request(Method::GET, "/_matrix/federation/v1/version")).await;
    assert_eq!(version["server"]["name"], "vatra");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_of_another_server_is_fetched_once_and_kept() {
    let authority = Authority::new();
    let (here, mut there) = (authority.server().await, authority.server().await);
    let (alice, bob) = (here.register("alice").await, there.register("bob").await);
    let upload = there
        .request(
            Method::POST,
            "/_matrix/media/v3/upload?filename=cat%20pic.txt",
        )
        .bearer_auth(&bob.token)
        .header("content-type", "text/plain")
        .body("\r\n--a cat--\r\n");
    let uri = succeeds(upload).await["content_uri"]
        .as_str()
        .unwrap()
        .to_owned();
    let at = uri.strip_prefix("mxc://").unwrap();
    let path = format!("/_matrix/client/v1/media/download/{at}");
    let legacy = format!("/_matrix/media/v3/download/{at}");
    refused(here.request(Method::GET, &legacy), 404, "M_NOT_FOUND").await;
    for round in 0..2 {
        let request = here.request(Method::GET, &path).bearer_auth(&alice.token);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{round}");
        assert_eq!(answer.headers()["content-type"], "text/plain");
        let disposition = answer.headers()["content-disposition"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(disposition.contains("cat pic.txt"), "{disposition}");
        assert_eq!(answer.bytes().await.unwrap(), "\r\n--a cat--\r\n");
        // The second time, nobody is asked.
        there.stop().await;
    }
    let missing = format!("{}x", path);
    let (status, _) = answer(
        here.request(Method::GET, &missing)
            .bearer_auth(&alice.token),
    )
    .await;
    assert_eq!(status, 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_federate_neither_answers_nor_asks() {
    let alone = Server::start(Engine::Memory).await;
    let alice = alone.register("alice").await;
    for path in ["/_matrix/key/v2/server", "/_matrix/federation/v1/version"] {
        refused(alone.request(Method::GET, path), 404, "M_UNRECOGNIZED").await;
    }
    let request = alice.request(Method::GET, "/profile/%40x%3Alocalhost%3A1");
    refused(request, 404, "M_NOT_FOUND").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_openid_token_tells_who_someone_is_and_nothing_else() {
    let authority = Authority::new();
    let here = authority.server().await;
    let (alice, bob) = (here.register("alice").await, here.register("bob").await);
    let path = format!("/user/{}/openid/request_token", encoded(&alice.id));
    let token = alice.post(&path, json!({})).await;
    assert_eq!(token["matrix_server_name"], name(&here));
    assert_eq!(token["token_type"], "Bearer");
    let token = token["access_token"].as_str().unwrap();
    let ask = |token: &str| {
        let path = format!(
            "/_matrix/federation/v1/openid/userinfo?access_token={}",
            encoded(token)
        );
        here.request(Method::GET, &path)
    };
    assert_eq!(succeeds(ask(token)).await["sub"], alice.id.as_str());
    refused(ask("12_x"), 401, "M_UNKNOWN_TOKEN").await;
    refused(
        bob.request(Method::POST, &path).json(&json!({})),
        403,
        "M_FORBIDDEN",
    )
    .await;
    let whoami = here.request(Method::GET, "/_matrix/client/v3/account/whoami");
    refused(whoami.bearer_auth(token), 401, "M_UNKNOWN_TOKEN").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delegate_is_told_if_there_is_one() {
    let at = "/.well-known/matrix/server";
    let plain = Server::start(Engine::Memory).await;
    refused(plain.request(Method::GET, at), 404, "M_NOT_FOUND").await;
    let delegating = Server::start_with(Engine::Memory, |config| {
        config.federation.delegate = "matrix.example.org:443".to_owned();
    });
    let told = succeeds(delegating.await.request(Method::GET, at)).await;
    assert_eq!(told, json!({ "m.server": "matrix.example.org:443" }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_authority_that_is_none_stops_the_start() {
    let mut config = Config::try_it();
    let folder = tempfile::tempdir().unwrap();
    config.data_dir = folder.path().join("data");
    config.media_dir = folder.path().join("media");
    config.federation.enabled = true;
    config.federation.trusted_ca = Path::new("/nowhere/ca.pem").to_owned();
    let engine = std::sync::Arc::new(vatra_store::MemoryEngine::new());
    let error = vatra::server::start(config, engine)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("federation.trusted_ca") && error.contains("/nowhere/ca.pem"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_taken_from_the_server_that_signed_it_within_its_limits() {
    let authority = Authority::new();
    let (here, there) = (authority.server().await, authority.server().await);
    let to = ServerName::parse(name(&here)).unwrap();
    let from = ServerName::parse(name(&there)).unwrap();
    let remote = &there.running().app.remote;
    let event =
        || RawValue::from_string(r#"{"room_id":"!nowhere:x","type":"m.x"}"#.to_owned()).unwrap();
    let transaction = |id: &str, origin: &ServerName, events: usize| {
        let now = ruma::MilliSecondsSinceUnixEpoch::now();
        let mut request = send::Request::new(id.into(), origin.to_owned(), now);
        request.pdus = std::iter::repeat_with(event).take(events).collect();
        request
    };
    let taken = remote.call(&to, transaction("1", &from, 50)).await.unwrap();
    assert!(
        taken.pdus.is_empty(),
        "events of a room that nobody here is in"
    );
    remote.call(&to, transaction("1", &from, 50)).await.unwrap();

    let alice = here.register("alice").await;
    let room = alice.create_room(json!({ "room_version": "11" })).await;
    let intruder = format!("@intruder:{from}");
    let event = json!({
        "room_id": room, "type": "m.x", "sender": intruder, "content": {}, "depth": 1,
        "origin_server_ts": 1, "prev_events": [], "auth_events": [], "hashes": { "sha256": "" }, "signatures": {},
    });
    let mut request = transaction("5", &from, 0);
    request.pdus = vec![RawValue::from_string(event.to_string()).unwrap()];
    let taken = remote.call(&to, request).await.unwrap();
    let results: Vec<_> = taken.pdus.values().collect();
    assert!(
        matches!(results[..], [Err(reason)] if reason.contains("not signed")),
        "{results:?}"
    );

    for refused in [transaction("2", &from, 51), transaction("3", &to, 1)] {
        let error = remote.call(&to, refused).await.unwrap_err();
        assert_eq!(error.refusal().unwrap().status, 400, "{error}");
    }
    // Not by somebody without a key.
    let path = "/_matrix/federation/v1/send/4";
    let body = json!({ "origin": from, "origin_server_ts": 1, "pdus": [] });
    refused(
        here.request(Method::PUT, path).json(&body),
        401,
        "M_UNAUTHORIZED",
    )
    .await;
}
