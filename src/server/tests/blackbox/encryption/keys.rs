//! Keys of devices: uploaded, asked for, handed out.

use super::*;

both_engines!(
    keys_are_uploaded_queried_and_claimed_and_sync_counts_them,
    users_of_other_servers_are_reported_as_failures,
    hostile_requests_are_refused_and_leave_sync_whole,
);

async fn keys_are_uploaded_queried_and_claimed_and_sync_counts_them(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut device = Device::of(&bob);
    let empty = bob.sync(None).await;
    assert_eq!(
        empty["device_one_time_keys_count"],
        json!({ "signed_curve25519": 0 })
    );
    assert_eq!(empty["device_unused_fallback_key_types"], json!([]));
    device.account.generate_fallback_key();
    let (id, key) = device.account.fallback_key().into_iter().next().unwrap();
    let fallback = device.sign(json!({ "fallback": true, "key": key.to_base64() }));
    let fallback_id = format!("signed_curve25519:{}", id.to_base64());
    let keys = device.one_time_keys(2);
    let body = json!({
        "device_keys": device.keys(),
        "one_time_keys": keys,
        "fallback_keys": { &fallback_id: fallback },
    });
    let uploaded = bob.post("/keys/upload", body).await;
    assert_eq!(
        uploaded,
        json!({ "one_time_key_counts": { "signed_curve25519": 2 } })
    );
    let sync = bob.sync(Some(&token(&empty))).await;
    assert_eq!(
        sync["device_one_time_keys_count"],
        json!({ "signed_curve25519": 2 })
    );
    assert_eq!(
        sync["device_unused_fallback_key_types"],
        json!(["signed_curve25519"])
    );
    assert_eq!(
        sync["device_lists"]["changed"],
        json!([&bob.id]),
        "one's own other devices want to know"
    );

    let query = json!({ "device_keys": { &bob.id: [], &alice.id: [] } });
    let answer = alice.post("/keys/query", query).await;
    assert_eq!(answer["device_keys"][&bob.id][&bob.device], device.keys());
    assert_eq!(answer["device_keys"][&alice.id], json!({}));
    let query = json!({ "device_keys": { &bob.id: ["NONE"] } });
    let answer = alice.post("/keys/query", query).await;
    assert_eq!(answer["device_keys"][&bob.id], json!({}));

    let claimed = [alice.claim(&bob).await, alice.claim(&bob).await];
    assert_ne!(claimed[0], claimed[1]);
    for one in claimed {
        let (id, key) = one.as_object().unwrap().iter().next().unwrap();
        assert_eq!(keys[id], *key);
    }
    assert_eq!(alice.claim(&bob).await, json!({ &fallback_id: fallback }));
    let after = bob.sync(Some(&token(&sync))).await;
    assert_eq!(
        after["device_one_time_keys_count"],
        json!({ "signed_curve25519": 0 })
    );
    assert_eq!(after["device_unused_fallback_key_types"], json!([]));
}

async fn users_of_other_servers_are_reported_as_failures(server: Server) {
    let alice = server.register("alice").await;
    let query = json!({ "device_keys": { "@x:elsewhere.example": [], &alice.id: [] } });
    let answer = alice.post("/keys/query", query).await;
    assert!(
        answer["failures"]["elsewhere.example"].is_object(),
        "{answer}"
    );
    assert_eq!(answer["device_keys"], json!({ &alice.id: {} }));
    let claim =
        json!({ "one_time_keys": { "@x:elsewhere.example": { "D": "signed_curve25519" } } });
    let answer = alice.post("/keys/claim", claim).await;
    assert!(
        answer["failures"]["elsewhere.example"].is_object(),
        "{answer}"
    );
    let body = json!({ "messages": { "@x:elsewhere.example": { "*": {} } } });
    let send = alice
        .request(Method::PUT, "/sendToDevice/m.test/1")
        .json(&body);
    refused(send, 400, "M_INVALID_PARAM").await;
}

async fn hostile_requests_are_refused_and_leave_sync_whole(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let since = token(&bob.sync(None).await);
    let mut foreign = Device::of(&alice).keys();
    foreign["user_id"] = json!(&bob.id);
    let many: serde_json::Map<_, _> = (0..2_000)
        .map(|it| (format!("curve25519:{it}"), json!("x")))
        .collect();
    for (body, status, errcode) in [
        (json!({ "device_keys": foreign }), 400, "M_INVALID_PARAM"),
        (
            json!({ "device_keys": Device::of(&bob).keys() }),
            400,
            "M_INVALID_PARAM",
        ),
        (json!({ "device_keys": [] }), 400, "M_BAD_JSON"),
        (json!({ "one_time_keys": "all" }), 400, "M_BAD_JSON"),
        (
            json!({ "one_time_keys": { "nonsense": {} } }),
            400,
            "M_BAD_JSON",
        ),
        (json!({ "one_time_keys": many }), 413, "M_TOO_LARGE"),
        (json!({ "fallback_keys": { "a:b": 1 } }), 400, "M_BAD_JSON"),
    ] {
        let upload = alice.request(Method::POST, "/keys/upload").json(&body);
        refused(upload, status, errcode).await;
    }
    let large = "x".repeat(70_000);
    for (content, status, errcode) in [
        (json!({ "filling": large }), 413, "M_TOO_LARGE"),
        (json!("text"), 400, "M_BAD_JSON"),
    ] {
        let body = json!({ "messages": { &bob.id: { "*": content } } });
        let send = alice
            .request(Method::PUT, "/sendToDevice/m.test/bad")
            .json(&body);
        refused(send, status, errcode).await;
    }
    for path in ["/keys/query", "/keys/claim"] {
        for body in [json!({}), json!({ "device_keys": [], "one_time_keys": [] })] {
            refused(
                alice.request(Method::POST, path).json(&body),
                400,
                "M_BAD_JSON",
            )
            .await;
        }
        let request = server.request(Method::POST, &format!("/_matrix/client/v3{path}"));
        refused(request.json(&json!({})), 401, "M_MISSING_TOKEN").await;
    }
    let name = json!({ "display_name": "n".repeat(256) });
    let rename = alice
        .request(Method::PUT, &format!("/devices/{}", alice.device))
        .json(&name);
    refused(rename, 413, "M_TOO_LARGE").await;
    let sync = bob.sync(Some(&since)).await;
    assert!(
        sync["to_device"].is_null() && sync["device_lists"].is_null(),
        "{sync}"
    );
}
