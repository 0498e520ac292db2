//! What a message costs whose readers are away, some of them with phones and letters: figures for docs/performance.md, made by `make bench`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ruma::UserId;
use serde_json::{Value, json};
use vatra::{config::SmtpTls, server};
use vatra_domain::{
    schema::{self, EmailRow},
    users::{NewAccount, Requester, pushers::Ways},
};
use vatra_store::Batch;

use crate::large_room::{caught_up, config, cpu_ms, draft, room};

const MEMBERS: usize = 1_000;
/// Whose phones are woken, and who gets letters.
const PHONES: usize = 25;
const LETTERS: usize = 25;
const MESSAGES: usize = 200;

/// A push gateway whose own cost can be told from the server's.
#[derive(Clone, Default)]
struct Gateway {
    got: Arc<AtomicUsize>,
    threads: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    fn start() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let gateway = Self::default();
        let listening = gateway.clone();
        std::thread::spawn(move || {
            listening.counted();
            for stream in listener.incoming() {
                let talking = listening.clone();
                std::thread::spawn(move || talking.talk(stream.unwrap()));
            }
        });
        (gateway, port)
    }

    fn counted(&self) {
        let thread = std::fs::read_link("/proc/thread-self").unwrap();
        let name = thread.to_str().unwrap().to_owned();
        self.threads.lock().unwrap().push(name);
    }

    fn talk(&self, stream: TcpStream) {
        self.counted();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        loop {
            let (mut length, mut line) = (0, String::new());
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"rejected\":[]}";
            writer.write_all(answer.as_bytes()).unwrap();
            self.got.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The time of its threads, in steps of 10 ms each.
    fn cpu_ms(&self) -> u64 {
        let threads = self.threads.lock().unwrap();
        let spent = threads.iter().map(|thread| {
            let stat = std::fs::read_to_string(format!("/proc/{thread}/stat")).unwrap();
            let (_, fields) = stat.rsplit_once(')').unwrap();
            let fields: Vec<&str> = fields.split_whitespace().collect();
            let ticks = |place: usize| fields[place].parse::<u64>().unwrap();
            (ticks(11) + ticks(12)) * 10
        });
        spent.sum()
    }
}

fn asked(kind: &str, pushkey: &str, data: Value) -> Value {
    json!({
        "kind": kind, "app_id": "org.example", "pushkey": pushkey, "app_display_name": "a", "device_display_name": "d",
        "lang": "en", "data": data,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of a minute; make bench runs it"]
async fn a_message_to_a_thousand_who_are_away_costs_under_2_ms() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, port) = Gateway::start();
    let mut config = config(&folder);
    config.push.allow_loopback = true;
    config.client.base_url = "https://matrix.example.org".to_owned();
    config.smtp.host = "127.0.0.1".to_owned();
    config.smtp.tls = SmtpTls::None;
    config.smtp.from = "hearth@example.org".to_owned();
    let engine = server::open_engine(&config).await.unwrap();
    let running = server::start(config, engine).await.unwrap();
    let app = &running.app;
    let room = room(&app.rooms, MEMBERS).await;
    for number in 1..MEMBERS {
        let new = NewAccount {
            name: Some(format!("member{number}")),
            ..NewAccount::default()
        };
        let (user, sid) = app.users.register(new).await.unwrap();
        let (kind, pushkey, data) = match number {
            ..=PHONES => {
                let url = format!("http://127.0.0.1:{port}/_matrix/push/v1/notify");
                ("http", format!("phone {number}"), json!({ "url": url }))
            }
            number if number <= PHONES + LETTERS => {
                let address = format!("member{number}@example.org");
                let mut batch = Batch::new();
                batch.put(&schema::EMAIL_OWNERS, &address, &sid);
                let row = EmailRow {
                    validated: 1,
                    added: 1,
                };
                batch.put(&schema::EMAILS, &(sid, address.clone()), &row);
                app.store.write(batch).await.unwrap();
                ("email", address, json!({}))
            }
            _ => continue,
        };
        let caller = Requester {
            user: UserId::parse(user.as_str()).unwrap(),
            sid,
            device: None,
            service: None,
            admin: false,
            suspended: false,
            guest: false,
        };
        let asked = serde_json::from_value(asked(kind, &pushkey, data)).unwrap();
        let ways = Ways {
            email: true,
            plain_http: true,
        };
        app.users.set_pusher(&caller, asked, ways).await.unwrap();
    }
    let say = async |number: usize| {
        let content =
            json!({ "msgtype": "m.text", "body": format!("message {number} of some length") });
        let draft = draft("@owner:localhost", "m.room.message", None, content);
        app.rooms.send_one(&room, draft, None).await.unwrap();
        caught_up(&running).await;
        while gateway.got.load(Ordering::SeqCst) < (number + 1) * PHONES {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    for number in 0..20 {
        say(number).await;
    }
    let spent = || cpu_ms() - gateway.cpu_ms();
    let before = spent();
    for number in 20..20 + MESSAGES {
        say(number).await;
    }
    let messages = u64::try_from(MESSAGES).unwrap();
    let micros = (spent() - before) * 1_000 / messages;
    println!(
        "{MEMBERS} members who are away, {PHONES} of them with phones and {LETTERS} with letters to come: {micros} us of CPU a message, sent, \
         followed and pushed"
    );
    running.stop().await;
    assert!(micros < 2_000, "{micros} us");
}
