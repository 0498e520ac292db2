//! Every field of every body that the API takes, with values of every wrong kind; and bodies that no client sends.
//!
//! Bodies that are taken stand in [`bodies()`]; each of their fields, however deep, is replaced by each of [`wrong`]. A route that has
//! no body there gets all field names of all others.

mod bodies;

use reqwest::Method;
use serde_json::{Map, Value, json};

use self::bodies::bodies;
use crate::harness::{
    Engine, Server, User, answer, both_engines, encoded, on_both_engines, refused, succeeds,
};

both_engines!(
    bodies_that_no_client_sends_are_refused,
    parameters_of_every_wrong_kind_are_refused,
    words_that_are_none_of_a_few_are_refused,
);
on_both_engines!(fields_of_every_wrong_kind_are_never_the_servers_fault,);

/// What stands where something else belongs.
fn wrong() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(9_007_199_254_740_993_u64),
        json!(1.5),
        json!(""),
        json!("\u{0}\u{fffd}"),
        json!([]),
        json!([[{}]]),
        json!({}),
        json!({ "": { "a": [] } }),
    ]
}

/// Someone in a room, with an event, an alias and a filter.
struct World {
    server: Server,
    alice: User,
    room: String,
    event: String,
}

async fn world(server: Server) -> World {
    let alice = server.register("alice").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "hearth" }))
        .await;
    let event = alice.send(&room, "hello").await;
    World {
        server,
        alice,
        room,
        event,
    }
}

impl World {
    /// A routed path with arguments that are there, as far as the part before them tells.
    fn filled(&self, path: &str) -> String {
        let mut before = "";
        let parts = path.split('/').map(|part| {
            let argument = match before {
                _ if !part.starts_with('{') => part.to_owned(),
                "rooms" | "join" | "knock" => encoded(&self.room),
                "user" | "profile" | "presence" => encoded(&self.alice.id),
                "event" | "context" | "relations" | "redact" => encoded(&self.event),
                "receipt" => "m.read".to_owned(),
                "devices" => encoded(&self.alice.device),
                "state" | "send" => "org.example.test".to_owned(),
                "account_data" => "org.example.data".to_owned(),
                "list" => encoded(&self.room),
                "room" => encoded("#other:localhost"),
                "global" => "content".to_owned(),
                "download" | "thumbnail" | "upload" => "localhost".to_owned(),
                "m.read" => encoded(&self.event),
                _ => "argument".to_owned(),
            };
            before = if part.starts_with('{') { "" } else { part };
            if part == "{p7}" && path.contains("/receipt/") {
                return encoded(&self.event);
            }
            argument
        });
        parts.collect::<Vec<_>>().join("/")
    }

    /// Sends a body as it is; it is never the server's fault.
    async fn send(&self, method: &Method, path: &str, body: Vec<u8>) -> (u16, Value) {
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let request = self
            .server
            .request(method.clone(), path)
            .bearer_auth(&self.alice.token)
            .body(body);
        let (status, answer) = answer(request).await;
        assert!(
            status < 500,
            "{method} {path} with {shown}: {status} {answer}"
        );
        if status >= 400 {
            let code = answer["errcode"].as_str().unwrap_or_default();
            let good = code.starts_with("M_") || answer["flows"].is_array();
            assert!(good, "{method} {path} with {shown}: {status} {answer}");
        }
        (status, answer)
    }

    /// The server and the user's clients still work.
    async fn still_well(&self) {
        self.alice.sync(None).await;
        self.alice.send(&self.room, "and on it goes").await;
        let messages = format!("/rooms/{}/messages?dir=b&limit=50", encoded(&self.room));
        self.alice.get(&messages).await;
        succeeds(self.server.request(Method::GET, "/health/ready")).await;
    }
}

/// Routes with bodies: not those that end the session, and of the same path in two versions only one.
fn routes() -> impl Iterator<Item = (Method, String)> {
    vatra::http::routes().into_iter().filter(|(method, path)| {
        *method != Method::GET
            && !path.contains("/logout")
            && !path.contains("/deactivate")
            && !path.contains("/r0/")
            && !path.ends_with('/')
    })
}

/// All bodies that come of replacing each value of one, however deep, by a wrong one.
fn spoilt(body: &Value) -> Vec<Value> {
    let mut all = wrong();
    match body {
        Value::Object(fields) => {
            for (name, value) in fields {
                for worse in spoilt(value) {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), worse);
                    all.push(Value::Object(fields));
                }
                let mut fewer = fields.clone();
                fewer.remove(name);
                all.push(Value::Object(fewer));
            }
        }
        Value::Array(values) => {
            if let Some(first) = values.first() {
                all.extend(spoilt(first).into_iter().map(|worse| json!([worse])));
            }
        }
        _ => {}
    }
    all
}

async fn fields_of_every_wrong_kind_are_never_the_servers_fault(engine: Engine) {
    let server = Server::start_with(engine, |config| {
        config.registration.shared_secret = "secret".to_owned();
        // Nobody listens there: letters wait.
        config.smtp.host = "127.0.0.1".to_owned();
        config.smtp.port = 9;
        config.smtp.from = "matrix@example.org".to_owned();
    });
    let world = world(server.await).await;
    let bodies = bodies();
    let mut everything = Map::new();
    for (_, body) in &bodies {
        everything.extend(body.as_object().unwrap().clone());
    }
    let (mut sent, mut unused) = (0, bodies.iter().map(|(path, _)| *path).collect::<Vec<_>>());
    for (method, path) in routes() {
        let known: Vec<&Value> = bodies
            .iter()
            .filter(|(end, _)| path.ends_with(end))
            .map(|(_, body)| body)
            .collect();
        unused.retain(|end| !path.ends_with(end));
        let spoilt = match known.first() {
            Some(body) => spoilt(body),
            None => wrong()
                .into_iter()
                .map(|worse| {
                    let fields = everything.keys();
                    Value::Object(fields.map(|name| (name.clone(), worse.clone())).collect())
                })
                .collect(),
        };
        let filled = world.filled(&path);
        for body in spoilt {
            world.send(&method, &filled, body.to_string().into()).await;
            sent += 1;
            // Some are taken: what follows is about someone who is in the room.
            if path.ends_with("/leave") || path.ends_with("/forget") {
                let join = format!("/join/{}", encoded(&world.room));
                let _ = answer(world.alice.request(Method::POST, &join).body("{}")).await;
            }
        }
    }
    assert!(unused.is_empty(), "bodies of no route: {unused:?}");
    assert!(sent > 1_000, "only {sent} bodies were sent");
    world.still_well().await;
}

/// Bodies that are JSON, or nearly, and that no client sends.
fn monsters() -> Vec<(&'static str, String)> {
    let nested = |open: &str, inner: &str, close: &str, levels: usize| {
        format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
    };
    vec![
        ("objects in objects", nested("{\"a\":", "1", "}", 10_000)),
        (
            "lists in an object",
            format!("{{\"a\":{}}}", nested("[", "", "]", 10_000)),
        ),
        ("objects that do not end", "{\"a\":".repeat(10_000)),
        (
            "lists that do not end",
            format!("{{\"a\":{}", "[".repeat(10_000)),
        ),
        ("a huge number", format!("{{\"a\":{}}}", "9".repeat(5_000))),
        ("a huge exponent", "{\"a\":1e999999999}".to_owned()),
        ("a tiny exponent", "{\"a\":-1e-999999999}".to_owned()),
        (
            "an integer above all",
            "{\"a\":18446744073709551616}".to_owned(),
        ),
        (
            "an integer below all",
            "{\"a\":-9223372036854775809}".to_owned(),
        ),
        (
            "a key twice",
            "{\"a\":1,\"a\":2,\"user_id\":\"@a:b\",\"user_id\":\"@c:d\"}".to_owned(),
        ),
        ("a lone surrogate", "{\"a\":\"\\ud800\"}".to_owned()),
        (
            "surrogates the wrong way round",
            "{\"a\":\"\\udc00\\ud800\"}".to_owned(),
        ),
        ("a lone surrogate as a name", "{\"\\ud800\":1}".to_owned()),
        ("a control character", "{\"a\":\"\u{1}\"}".to_owned()),
        ("a byte order mark", "\u{feff}{}".to_owned()),
        ("something behind it", "{} {}".to_owned()),
        ("many fields", {
            let fields: Vec<String> = (0..20_000)
                .map(|number| format!("\"{number}\":0"))
                .collect();
            format!("{{{}}}", fields.join(","))
        }),
        ("a long name", format!("{{\"{}\":0}}", "n".repeat(200_000))),
    ]
}

async fn bodies_that_no_client_sends_are_refused(server: Server) {
    let world = world(server).await;
    for (what, body) in monsters() {
        for (method, path) in routes() {
            let filled = world.filled(&path);
            world.send(&method, &filled, body.clone().into()).await;
        }
        let _ = answer(
            world
                .alice
                .request(Method::POST, &format!("/join/{}", encoded(&world.room)))
                .body("{}"),
        )
        .await;
        // What is no JSON, or goes deeper than anyone reads, is never kept.
        let kept = [
            "a key twice",
            "many fields",
            "a long name",
            "a huge number",
            "a huge exponent",
            "a tiny exponent",
        ];
        let kept = kept.contains(&what) || what.starts_with("an integer");
        let data = format!(
            "/_matrix/client/v3/user/{}/account_data/org.example.monster",
            encoded(&world.alice.id)
        );
        let (status, answer) = world.send(&Method::PUT, &data, body.clone().into()).await;
        assert!(status == 400 || kept, "{what}: {status} {answer}");
        // Events hold canonical JSON: integers only, and none that JavaScript cannot count to.
        let send = format!(
            "/_matrix/client/v3/rooms/{}/send/org.example.monster/{}",
            encoded(&world.room),
            encoded(what)
        );
        let (status, answer) = world.send(&Method::PUT, &send, body.into()).await;
        assert!(
            (400..500).contains(&status) || what == "a key twice",
            "{what}: {status} {answer}"
        );
    }
    let mut bytes = b"{\"a\":\"".to_vec();
    bytes.extend([0xff, 0xfe, 0xc0, 0x80]);
    bytes.extend(b"\"}");
    for (method, path) in routes() {
        let filled = world.filled(&path);
        world.send(&method, &filled, bytes.clone()).await;
    }
    world.still_well().await;
}

const QUERIES: [&str; 12] = [
    "limit=-1&dir=b",
    "limit=99999999999999999999&dir=f",
    "limit=1.5&dir=b",
    "dir=sideways",
    "dir=b&from=junk&to=junk",
    "dir=b&from=t18446744073709551615&to=t0&limit=0",
    "since=junk&timeout=-5",
    "since=s18446744073709551615_18446744073709551615&timeout=0&full_state=maybe",
    "filter=%7B&at=junk&membership=x&not_membership=x",
    "width=-1&height=a&method=z&timeout_ms=99999999999999999999&allow_redirect=maybe",
    "format=junk&kind=junk&username=%00&token=%FF&server_name=%FF",
    "%FF=%FF&&=&a&set_presence=junk&user_id=junk&org.matrix.msc4115.membership_on_events=junk",
];

async fn parameters_of_every_wrong_kind_are_refused(server: Server) {
    let world = world(server).await;
    let deep = format!(
        "filter={}1{}&dir=b&timeout=0",
        "%7B%22room%22:".repeat(3_000),
        "%7D".repeat(3_000)
    );
    for (method, path) in vatra::http::routes() {
        if path.contains("/logout") || path.contains("/deactivate") {
            continue;
        }
        let filled = world.filled(&path);
        for query in QUERIES.into_iter().chain([deep.as_str()]) {
            let path = format!("{filled}?{query}");
            world.send(&method, &path, Vec::new()).await;
        }
    }
    let join = format!("/join/{}", encoded(&world.room));
    let _ = answer(world.alice.request(Method::POST, &join).body("{}")).await;
    world.still_well().await;
}

async fn words_that_are_none_of_a_few_are_refused(server: Server) {
    let world = world(server).await;
    let alice = &world.alice;
    for body in [
        json!({ "preset": "cosy_chat" }),
        json!({ "visibility": "sometimes" }),
    ] {
        let request = alice.request(Method::POST, "/createRoom").json(&body);
        refused(request, 400, "M_BAD_JSON").await;
    }
    let request = alice.request(Method::GET, "/sync?full_state=maybe");
    refused(request, 400, "M_INVALID_PARAM").await;
    let levels = format!("/rooms/{}/state/m.room.power_levels", encoded(&world.room));
    for body in [
        json!({ "users": 5 }),
        json!({ "users": { "bad": 5 } }),
        json!({ "ban": [] }),
        json!({ "events": { "a": "b" } }),
    ] {
        let request = alice.request(Method::PUT, &levels).json(&body);
        refused(request, 400, "M_BAD_JSON").await;
    }
}
