//! A mail server in the test: takes letters and keeps them, or does not.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A letter as it came.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) to: String,
    pub(super) head: String,
    pub(super) text: String,
    pub(super) html: String,
}

impl Letter {
    pub(super) fn header(&self, name: &str) -> String {
        let prefix = format!("{name}: ");
        let line = self
            .head
            .lines()
            .find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_default().to_owned()
    }

    /// The one link in it: its path with its query.
    pub(super) fn link(&self) -> String {
        let (_, link) = self.text.split_once("https://matrix.example.org").unwrap();
        link.split_whitespace().next().unwrap().to_owned()
    }
}

#[derive(Default)]
struct Shared {
    letters: Vec<Letter>,
    /// What is answered to the next letters instead of 250.
    answers: Vec<&'static str>,
}

/// The mail server.
pub(super) struct Sink {
    pub(super) port: u16,
    shared: Arc<Mutex<Shared>>,
    task: Option<JoinHandle<()>>,
}

impl Sink {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sink = Self {
            port: listener.local_addr().unwrap().port(),
            shared: Arc::default(),
            task: None,
        };
        sink.listen(listener);
        sink
    }

    fn listen(&mut self, listener: TcpListener) {
        let shared = self.shared.clone();
        self.task = Some(tokio::spawn(async move {
            // Ends its conversations when it ends.
            let mut talks = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                talks.spawn(talk(stream, shared.clone()));
            }
        }));
    }

    /// Nobody listens any more.
    pub(super) async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens again at the same port.
    pub(super) async fn start_again(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.listen(listener);
    }

    /// What is answered to the next letter instead of taking it.
    pub(super) fn answer_next(&self, answer: &'static str) {
        self.shared.lock().unwrap().answers.push(answer);
    }

    /// The letters so far.
    pub(super) fn letters(&self) -> Vec<Letter> {
        self.shared.lock().unwrap().letters.clone()
    }

    /// Waits until there are so many letters; gives the last.
    pub(super) async fn letter(&self, number: usize) -> Letter {
        for _ in 0..3_000 {
            let letters = self.letters();
            assert!(letters.len() <= number, "more letters than {number}");
            if letters.len() == number {
                return letters.last().unwrap().clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("no letter number {number}: {:?}", self.letters());
    }
}

async fn talk(stream: TcpStream, shared: Arc<Mutex<Shared>>) {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    writer.write_all(b"220 sink\r\n").await.unwrap();
    let mut to = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        let verb = line.to_uppercase();
        let answer = if verb.starts_with("RCPT TO:") {
            line.clone_into(&mut to);
            "250 ok"
        } else if verb.starts_with("DATA") {
            if writer.write_all(b"354 go on\r\n").await.is_err() {
                return;
            }
            let mut data = Vec::new();
            while let Ok(Some(line)) = lines.next_line().await {
                if line == "." {
                    break;
                }
                data.push(line.strip_prefix('.').unwrap_or(&line).to_owned());
            }
            let mut shared = shared.lock().unwrap();
            if shared.answers.is_empty() {
                shared.letters.push(read(&to, &data.join("\n")));
                "250 taken"
            } else {
                shared.answers.remove(0)
            }
        } else if verb.starts_with("QUIT") {
            "221 bye"
        } else {
            "250 ok"
        };
        if writer
            .write_all(format!("{answer}\r\n").as_bytes())
            .await
            .is_err()
        {
            return;
        }
    }
}

fn read(to: &str, message: &str) -> Letter {
    let (head, body) = message.split_once("\n\n").unwrap();
    let head = head.replace("\n ", " ");
    let (_, rest) = head.split_once("boundary=\"").unwrap();
    let boundary = format!("--{}", rest.split('"').next().unwrap());
    let part = |kind: &str| {
        let mut parts = body.split(&boundary);
        let part = parts.find(|part| part.contains(kind)).unwrap();
        let (head, body) = part.trim_start().split_once("\n\n").unwrap();
        decoded(head, body)
    };
    let (_, to) = to.split_once('<').unwrap();
    Letter {
        to: to.split('>').next().unwrap().to_owned(),
        text: part("text/plain"),
        html: part("text/html"),
        head,
    }
}

fn decoded(head: &str, body: &str) -> String {
    let head = head.to_lowercase();
    if head.contains("base64") {
        let packed: String = body.split_whitespace().collect();
        let bytes = base64::engine::general_purpose::STANDARD.decode(packed);
        return String::from_utf8(bytes.unwrap()).unwrap();
    }
    if !head.contains("quoted-printable") {
        return body.to_owned();
    }
    let joined = body.replace("=\n", "");
    let mut bytes = Vec::new();
    let mut parts = joined.split('=');
    bytes.extend(parts.next().unwrap().bytes());
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(part[2..].bytes());
    }
    String::from_utf8(bytes).unwrap()
}
