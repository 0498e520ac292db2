//! Registration by those whom the operator lets in: with a token, and with the shared secret.

use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::harness::{
    Engine, PASSWORD, Server, answer, encoded, on_both_engines, refused, succeeds,
};

on_both_engines!(
    who_knows_the_token_registers_and_nobody_else,
    who_knows_the_shared_secret_makes_users_and_admins,
);

async fn who_knows_the_token_registers_and_nobody_else(engine: Engine) {
    let server = Server::start_with(engine, |config| {
        config.registration.open = false;
        config.registration.token = "open sesame".to_owned();
    });
    let server = server.await;
    let register = |name: &str, auth: Value| {
        let request = server.request(Method::POST, "/_matrix/client/v3/register");
        let mut body = json!({ "username": name, "password": PASSWORD });
        if !auth.is_null() {
            body["auth"] = auth;
        }
        request.json(&body)
    };
    let (status, asked) = answer(register("ana", Value::Null)).await;
    assert_eq!(status, 401, "{asked}");
    let flows = json!([{ "stages": ["m.login.registration_token"] }]);
    assert_eq!(asked["flows"], flows, "{asked}");
    let session = &asked["session"];
    let stage = |token: &str| json!({ "type": "m.login.registration_token", "token": token, "session": session });
    let dummy = json!({ "type": "m.login.dummy", "session": session });
    for auth in [stage("open barley"), stage(""), dummy] {
        let (status, told) = answer(register("ana", auth)).await;
        assert_eq!((status, &told["errcode"]), (401, &json!("M_FORBIDDEN")));
        let completed = told["completed"].as_array();
        assert!(completed.is_none_or(Vec::is_empty), "{told}");
    }
    let made = succeeds(register("ana", stage("open sesame"))).await;
    assert_eq!(made["user_id"], "@ana:localhost");
    let token = made["access_token"].as_str().unwrap();
    let whoami = server.request(Method::GET, "/_matrix/client/v3/account/whoami");
    succeeds(whoami.bearer_auth(token)).await;
    // The session is used up; old clients show the token without one.
    let (status, _) = answer(register("berta", json!({ "session": session }))).await;
    assert_eq!(status, 401);
    let alone = json!({ "type": "m.login.registration_token", "token": "open sesame" });
    succeeds(register("berta", alone)).await;
}

const PATH: &str = "/_synapse/admin/v1/register";

async fn nonce(server: &Server) -> String {
    let given = succeeds(server.request(Method::GET, PATH)).await;
    given["nonce"].as_str().unwrap().to_owned()
}

/// The request of who knows `secret`: an HMAC-SHA1 over nonce, name, password and whether it is an admin, with zeros between.
fn with_secret(
    server: &Server,
    secret: &str,
    nonce: &str,
    name: &str,
    admin: bool,
) -> RequestBuilder {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    let role = if admin { "admin" } else { "notadmin" };
    mac.update(format!("{nonce}\0{name}\0{PASSWORD}\0{role}").as_bytes());
    let mac = mac.finalize().into_bytes();
    let mac: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    let body = json!({
        "nonce": nonce, "username": name, "password": PASSWORD, "admin": admin, "mac": mac,
        "displayname": "Someone",
    });
    server.request(Method::POST, PATH).json(&body)
}

async fn who_knows_the_shared_secret_makes_users_and_admins(engine: Engine) {
    let server = Server::start_with(engine, |config| {
        config.registration.open = false;
        config.registration.shared_secret = "between us".to_owned();
    });
    let server = server.await;
    let closed = json!({ "username": "eve", "password": PASSWORD });
    let request = server.request(Method::POST, "/_matrix/client/v3/register");
    refused(request.json(&closed), 403, "M_FORBIDDEN").await;
    let wrong = with_secret(&server, "guessed", &nonce(&server).await, "eve", true);
    refused(wrong, 403, "M_FORBIDDEN").await;

    let once = nonce(&server).await;
    let made = succeeds(with_secret(&server, "between us", &once, "ana", true)).await;
    assert_eq!(made["user_id"], "@ana:localhost");
    let again = with_secret(&server, "between us", &once, "berta", true);
    refused(again, 400, "M_BAD_JSON").await;
    let once = nonce(&server).await;
    succeeds(with_secret(&server, "between us", &once, "berta", false)).await;
    let taken = nonce(&server).await;
    let taken = with_secret(&server, "between us", &taken, "berta", false);
    refused(taken, 400, "M_USER_IN_USE").await;

    // An admin may ask about others, a user may not: the flag is what was signed.
    let (ana, berta) = (server.login("ana").await, server.login("berta").await);
    let whois = |of: &str| format!("/admin/whois/{}", encoded(of));
    assert_eq!(
        ana.get(&whois(&berta.id)).await["user_id"],
        berta.id.as_str()
    );
    let asked = berta.request(Method::GET, &whois(&ana.id));
    refused(asked, 403, "M_FORBIDDEN").await;
    let name = format!("/profile/{}/displayname", encoded(&ana.id));
    assert_eq!(berta.get(&name).await["displayname"], "Someone");
}
