//! Spaces and what rooms look like from outside. <https://spec.matrix.org/v1.19/client-server-api/#spaces>

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, User, both_engines, encoded, refused, succeeds};

both_engines!(
    a_space_is_walked_depth_first,
    a_second_page_goes_on_where_the_first_ended,
    rooms_that_one_may_not_know_of_are_left_out,
    a_loop_of_spaces_ends,
    a_room_is_summarised_for_who_may_know_of_it,
);

async fn space(user: &User, name: &str) -> String {
    let body =
        json!({ "preset": "public_chat", "name": name, "creation_content": { "type": "m.space" } });
    user.create_room(body).await
}

async fn room(user: &User, name: &str) -> String {
    user.create_room(json!({ "preset": "public_chat", "name": name }))
        .await
}

async fn link(user: &User, space: &str, child: &str, content: Value) {
    let path = format!(
        "/rooms/{}/state/m.space.child/{}",
        encoded(space),
        encoded(child)
    );
    user.put(&path, content).await;
    // The next link is younger.
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
}

fn path(room: &str, query: &str) -> String {
    format!(
        "/_matrix/client/v1/rooms/{}/hierarchy?{query}",
        encoded(room)
    )
}

async fn names(user: &User, room: &str, query: &str) -> Vec<String> {
    let page = user.get(&path(room, query)).await;
    let rooms = page["rooms"].as_array().unwrap();
    rooms
        .iter()
        .map(|room| room["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Root: a, B (c, D (e)), f; f is said to come first.
async fn tree(user: &User) -> String {
    let root = space(user, "root").await;
    let via = || json!({ "via": ["localhost"] });
    let (b, d) = (space(user, "B").await, space(user, "D").await);
    link(user, &root, &room(user, "a").await, via()).await;
    link(user, &root, &b, via()).await;
    let first = json!({ "via": ["localhost"], "order": "1", "suggested": true });
    link(user, &root, &room(user, "f").await, first).await;
    link(user, &b, &room(user, "c").await, via()).await;
    link(user, &b, &d, via()).await;
    link(user, &d, &room(user, "e").await, via()).await;
    // Taken away, or never a link.
    link(user, &root, &room(user, "gone").await, json!({})).await;
    link(user, &root, "no room", via()).await;
    link(user, &root, "!unknown:elsewhere.example", via()).await;
    root
}

async fn a_space_is_walked_depth_first(server: Server) {
    let alice = server.register("alice").await;
    let root = tree(&alice).await;
    assert_eq!(
        names(&alice, &root, "").await,
        ["root", "f", "a", "B", "c", "D", "e"]
    );
    assert_eq!(
        names(&alice, &root, "max_depth=1").await,
        ["root", "f", "a", "B"]
    );
    assert_eq!(
        names(&alice, &root, "suggested_only=true").await,
        ["root", "f"]
    );
    let page = alice.get(&path(&root, "max_depth=0")).await;
    let children = page["rooms"][0]["children_state"].as_array().unwrap();
    assert_eq!(children.len(), 4);
    assert_eq!(children[0]["content"]["order"], "1");
    for query in [
        "limit=0",
        "limit=x",
        "max_depth=-1",
        "suggested_only=maybe",
        "from=x",
    ] {
        let request = alice.request(Method::GET, &path(&root, query));
        refused(request, 400, "M_INVALID_PARAM").await;
    }
}

async fn a_second_page_goes_on_where_the_first_ended(server: Server) {
    let alice = server.register("alice").await;
    let root = tree(&alice).await;
    let mut seen = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let page = alice.get(&path(&root, &query)).await;
        let rooms = page["rooms"].as_array().unwrap();
        seen.extend(
            rooms
                .iter()
                .map(|room| room["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next_batch"].as_str() else {
            break;
        };
        query = format!("limit=2&from={next}");
    }
    assert_eq!(seen, ["root", "f", "a", "B", "c", "D", "e"]);
    // A token belongs to the walk that it was given for.
    let request = alice.request(Method::GET, &path(&root, &format!("{query}&max_depth=1")));
    refused(request, 400, "M_INVALID_PARAM").await;
}

async fn rooms_that_one_may_not_know_of_are_left_out(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let root = space(&alice, "root").await;
    let hidden = alice.create_room(json!({ "name": "hidden" })).await;
    link(&alice, &root, &hidden, json!({ "via": ["localhost"] })).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": root }]);
    let rules = json!({ "join_rule": "restricted", "allow": allow });
    let members = alice
        .create_room(json!({ "name": "members", "initial_state": [{ "type": "m.room.join_rules", "content": rules }] }))
        .await;
    link(&alice, &root, &members, json!({ "via": ["localhost"] })).await;
    assert_eq!(names(&bob, &root, "").await, ["root"]);
    bob.join(&root).await;
    assert_eq!(names(&bob, &root, "").await, ["root", "members"]);
    alice.invite(&hidden, &bob).await;
    assert_eq!(names(&bob, &root, "").await, ["root", "hidden", "members"]);
    let carol = server.register("carol").await;
    let request = carol.request(Method::GET, &path(&hidden, ""));
    refused(request, 403, "M_FORBIDDEN").await;
}

async fn a_loop_of_spaces_ends(server: Server) {
    let alice = server.register("alice").await;
    let (one, two) = (space(&alice, "one").await, space(&alice, "two").await);
    let via = || json!({ "via": ["localhost"] });
    link(&alice, &one, &two, via()).await;
    link(&alice, &two, &one, via()).await;
    link(&alice, &two, &two, via()).await;
    assert_eq!(names(&alice, &one, "").await, ["one", "two"]);
}

async fn a_room_is_summarised_for_who_may_know_of_it(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let open = room(&alice, "open").await;
    let closed = alice.create_room(json!({ "name": "closed" })).await;
    let path = |room: &str| format!("/_matrix/client/v1/room_summary/{}", encoded(room));
    let summary = alice.get(&path(&open)).await;
    assert_eq!(
        (
            &summary["name"],
            &summary["membership"],
            &summary["num_joined_members"],
            &summary["room_version"]
        ),
        (&json!("open"), &json!("join"), &json!(1), &json!("12"))
    );
    assert_eq!(bob.get(&path(&open)).await["membership"], "leave");
    let anyone = succeeds(server.request(Method::GET, &path(&open))).await;
    assert!(anyone["membership"].is_null());
    assert_eq!(alice.get(&path(&closed)).await["name"], "closed");
    refused(bob.request(Method::GET, &path(&closed)), 404, "M_NOT_FOUND").await;
    refused(
        server.request(Method::GET, &path(&closed)),
        404,
        "M_NOT_FOUND",
    )
    .await;
    refused(
        bob.request(Method::GET, &path("#none:localhost")),
        404,
        "M_NOT_FOUND",
    )
    .await;
}
