//! Cross-signing keys and signatures.

use super::*;

both_engines!(
    new_cross_signing_keys_want_the_password_and_the_first_do_not,
    signatures_fail_one_by_one,
);

/// A cross-signing key as JSON, signed by another if that is given.
fn signing_key(
    user: &User,
    usage: &str,
    key: &Ed25519SecretKey,
    by: Option<&Ed25519SecretKey>,
) -> Value {
    let id = |key: &Ed25519SecretKey| format!("ed25519:{}", key.public_key().to_base64());
    let mut object = json!({
        "keys": { id(key): key.public_key().to_base64() },
        "usage": [usage],
        "user_id": &user.id,
    });
    if let Some(by) = by {
        let signature = by.sign(object.to_string().as_bytes()).to_base64();
        object["signatures"] = json!({ &user.id: { id(by): signature } });
    }
    object
}

async fn new_cross_signing_keys_want_the_password_and_the_first_do_not(server: Server) {
    let alice = server.register("alice").await;
    let (master, signing) = (Ed25519SecretKey::new(), Ed25519SecretKey::new());
    let body = json!({ "master_key": signing_key(&alice, "master", &master, None) });
    for _ in 0..2 {
        alice
            .post("/keys/device_signing/upload", body.clone())
            .await;
    }
    let mut more = json!({
        "self_signing_key": signing_key(&alice, "self_signing", &signing, Some(&master)),
    });
    let upload = |body: &Value| {
        alice
            .request(Method::POST, "/keys/device_signing/upload")
            .json(body)
    };
    let (status, asked) = crate::harness::answer(upload(&more)).await;
    assert_eq!(status, 401);
    assert!(asked["flows"].is_array(), "{asked}");
    more["auth"] = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": &alice.id },
        "password": PASSWORD,
        "session": asked["session"],
    });
    succeeds(upload(&more)).await;
    succeeds(upload(&more)).await;
    let other = Ed25519SecretKey::new();
    let wrong =
        json!({ "user_signing_key": signing_key(&alice, "user_signing", &other, Some(&other)) });
    refused(upload(&wrong), 400, "M_INVALID_SIGNATURE").await;
    let bob = server.register("bob").await;
    let alone =
        json!({ "self_signing_key": signing_key(&bob, "self_signing", &signing, Some(&master)) });
    let request = bob
        .request(Method::POST, "/keys/device_signing/upload")
        .json(&alone);
    refused(request, 400, "M_MISSING_PARAM").await;
}

async fn signatures_fail_one_by_one(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Device::with_keys(&alice, 0).await;
    let (master, signing) = (Ed25519SecretKey::new(), Ed25519SecretKey::new());
    let body = json!({
        "master_key": signing_key(&alice, "master", &master, None),
        "self_signing_key": signing_key(&alice, "self_signing", &signing, Some(&master)),
    });
    alice.post("/keys/device_signing/upload", body).await;
    let mut object = device.keys();
    object.as_object_mut().unwrap().remove("signatures");
    let signature = signing.sign(object.to_string().as_bytes()).to_base64();
    let id = format!("ed25519:{}", signing.public_key().to_base64());
    object["signatures"] = json!({ &alice.id: { &id: &signature } });
    let mut forged = object.clone();
    forged["signatures"][&alice.id][&id] = json!("A".repeat(86));
    let body = json!({
        &alice.id: { &alice.device: object, "NONE": object },
        &bob.id: { "x": forged },
    });
    let answer = alice.post("/keys/signatures/upload", body).await;
    assert_eq!(
        answer["failures"][&alice.id]["NONE"]["errcode"],
        "M_NOT_FOUND"
    );
    assert_eq!(answer["failures"][&bob.id]["x"]["errcode"], "M_NOT_FOUND");
    assert!(answer["failures"][&alice.id][&alice.device].is_null());
    let body = json!({ &alice.id: { &alice.device: forged } });
    let answer = alice.post("/keys/signatures/upload", body).await;
    let failure = &answer["failures"][&alice.id][&alice.device];
    assert_eq!(failure["errcode"], "M_INVALID_SIGNATURE");
    let query = json!({ "device_keys": { &alice.id: [] } });
    let shown = bob.post("/keys/query", query).await;
    let shown = &shown["device_keys"][&alice.id][&alice.device];
    assert_eq!(shown["signatures"][&alice.id][&id], signature);
}
