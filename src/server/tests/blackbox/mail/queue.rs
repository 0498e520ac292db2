//! Letters when the mail server is away, says no, or the server stops; and what an operator sees of it.

use reqwest::Method;
use vatra::operate::{self, Command};

use super::{World, sink::Sink, through};
use crate::harness::{Engine, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_server_that_comes_back_gets_every_letter_once_also_after_a_restart() {
    let mut world = World::start_with(Engine::RocksDb, |_| {}).await;
    world.sink.stop().await;
    for number in 0..5 {
        let email = format!("user{number}@example.org");
        world.ask("/register", &email, "s3cret").await;
    }
    world.server.restart().await;
    world.sink.start_again().await;
    world.sink.letter(5).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let mut to: Vec<_> = world
        .sink
        .letters()
        .into_iter()
        .map(|letter| letter.to)
        .collect();
    to.sort();
    let all: Vec<_> = (0..5)
        .map(|number| format!("user{number}@example.org"))
        .collect();
    assert_eq!(to, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_is_put_off_comes_later_and_one_that_is_refused_never() {
    let world = World::start_with(Engine::Memory, |config| {
        config.metrics.listen = "127.0.0.1:0".to_owned();
    })
    .await;
    world.sink.answer_next("450 busy");
    world.ask("/register", "later@example.org", "s3cret").await;
    assert_eq!(world.sink.letter(1).await.to, "later@example.org");
    world.sink.answer_next("550 nobody here");
    world.ask("/register", "never@example.org", "s3cret").await;
    world.ask("/register", "third@example.org", "s3cret").await;
    assert_eq!(world.sink.letter(2).await.to, "third@example.org");
    let address = world.server.running().metrics.unwrap();
    let wanted = [
        "vatra_mail_queued_total 3",
        "vatra_mail_sent_total 2",
        "vatra_mail_failed_total 1",
        "vatra_mail_put_off_total 1",
        "vatra_mail_lag_seconds 0",
    ];
    let mut page = String::new();
    for _ in 0..200 {
        let request = world.browser.get(format!("http://{address}/metrics"));
        page = request.send().await.unwrap().text().await.unwrap();
        if wanted.iter().all(|line| page.contains(line)) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_tries_the_settings() {
    let mut world = World::start_with(Engine::RocksDb, |_| {}).await;
    let test = |address: &str| {
        let command = Command::MailTest {
            address: address.to_owned(),
        };
        operate::run(world.server.config().clone(), command)
    };
    let told = test("ana@example.org").await.unwrap();
    assert!(
        told[0].contains("took a letter to ana@example.org"),
        "{told:?}"
    );
    assert!(
        world
            .sink
            .letter(1)
            .await
            .text
            .contains("whether mail arrives")
    );
    assert!(
        test("no address")
            .await
            .unwrap_err()
            .contains("no e-mail address")
    );
    world.sink.answer_next("550 nobody here");
    let told = test("bob@example.org").await.unwrap_err();
    assert!(told.contains("nobody here"), "{told}");
    world.sink.stop().await;
    let told = operate::run(
        world.server.config().clone(),
        Command::MailTest {
            address: "ana@example.org".to_owned(),
        },
    )
    .await
    .unwrap_err();
    assert!(
        told.contains("127.0.0.1") && told.contains("cannot be used"),
        "{told}"
    );
    // The server does not run.
    world.sink.start_again().await;
    world.server.stop().await;
    let command = Command::MailTest {
        address: "ana@example.org".to_owned(),
    };
    operate::run(world.server.config().clone(), command)
        .await
        .unwrap();
    let off = Server::start(Engine::RocksDb).await;
    let command = Command::MailTest {
        address: "ana@example.org".to_owned(),
    };
    let told = operate::run(off.config().clone(), command)
        .await
        .unwrap_err();
    assert!(told.contains("smtp.host"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_templates_are_used_and_a_mistake_in_them_stops_the_start() {
    let sink = Sink::start().await;
    let folder = tempfile::tempdir().unwrap();
    let german = folder.path().join("de");
    std::fs::create_dir(&german).unwrap();
    let text = "Subject: Hallo von {{ server }}\n\n{{ link }}\n";
    std::fs::write(german.join("register.txt"), text).unwrap();
    std::fs::write(german.join("register.html"), "<p>{{ link }}</p>").unwrap();
    let mail = through(&sink);
    let server = Server::start_with(Engine::Memory, |config| {
        mail(config);
        config.email.templates_dir = folder.path().to_owned();
    })
    .await;
    let body =
        serde_json::json!({ "client_secret": "s", "email": "a@example.org", "send_attempt": 1 });
    let request = server.request(
        Method::POST,
        "/_matrix/client/v3/register/email/requestToken",
    );
    let request = request.header("accept-language", "de-AT").json(&body);
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(
        sink.letter(1).await.header("Subject"),
        "Hallo von localhost"
    );
    std::fs::write(german.join("register.txt"), "Subject: {{ sever }}\n").unwrap();
    let engine = std::sync::Arc::new(vatra_store::MemoryEngine::new());
    let error = vatra::server::start(server.config().clone(), engine)
        .await
        .err()
        .unwrap();
    let error = error.to_string();
    assert!(
        error.contains("email.templates_dir") && error.contains("de/register"),
        "{error}"
    );
}
