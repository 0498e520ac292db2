//! What clients keep on the server for themselves.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, both_engines, encoded, refused, succeeds};

both_engines!(what_is_deleted_is_shown_empty_once_and_then_not_at_all);

const KIND: &str = "org.example.test";

/// MSC3391, whose endpoints have the names that they have until it is in the specification.
async fn what_is_deleted_is_shown_empty_once_and_then_not_at_all(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({})).await;
    let me = encoded(&alice.id);
    let events = |sync: &Value, of_room: bool| -> Vec<Value> {
        let data = if of_room {
            &sync["rooms"]["join"][&room]["account_data"]["events"]
        } else {
            &sync["account_data"]["events"]
        };
        let all = data.as_array().into_iter().flatten();
        all.filter(|event| event["type"] == KIND).cloned().collect()
    };
    for (of_room, rest) in [
        (false, format!("account_data/{KIND}")),
        (
            true,
            format!("rooms/{}/account_data/{KIND}", encoded(&room)),
        ),
    ] {
        let path = format!("/user/{me}/{rest}");
        let delete = format!("/_matrix/client/unstable/org.matrix.msc3391/user/{me}/{rest}");
        for by_delete in [true, false] {
            alice.put(&path, json!({ "a": 1 })).await;
            let since = alice.sync(None).await;
            assert_eq!(events(&since, of_room).len(), 1);
            let since = since["next_batch"].as_str().unwrap().to_owned();
            if by_delete {
                refused(bob.request(Method::DELETE, &delete), 403, "M_FORBIDDEN").await;
                succeeds(alice.request(Method::DELETE, &delete)).await;
            } else {
                alice.put(&path, json!({})).await;
            }
            let told = events(&alice.sync(Some(&since)).await, of_room);
            assert_eq!(told, [json!({ "type": KIND, "content": {} })]);
            assert!(events(&alice.sync(None).await, of_room).is_empty());
            refused(alice.request(Method::GET, &path), 404, "M_NOT_FOUND").await;
        }
    }
    let managed = "/_matrix/client/unstable/org.matrix.msc3391/user";
    let managed = format!("{managed}/{me}/account_data/m.push_rules");
    refused(alice.request(Method::DELETE, &managed), 405, "M_BAD_JSON").await;
}
