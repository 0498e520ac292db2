//! The queue with a mail server that fails in every way, and a clock that stands still.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use ruma::server_name;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use vatra_store::{Batch, Direction, MemoryEngine, Options, Range, Store};

use super::{
    Delivery, Letter, Mailer, Parts, Round, SendError, SendMail, Urgency, templates::Rendered,
};
use crate::{
    clock::ManualClock,
    random::SystemRandom,
    schema::{self, migrations},
};

const START: u64 = 1_800_000_000_000;
const HOUR: u64 = 3_600_000;

/// Answers as it is told, then takes everything; remembers every letter it was shown.
#[derive(Default)]
struct FakeServer {
    answers: Mutex<VecDeque<SendError>>,
    seen: Mutex<Vec<Letter>>,
    /// Closed after the letter was taken and before that is recorded: a kill at the worst moment.
    dies_of: Mutex<Option<Store>>,
}

#[async_trait]
impl SendMail for FakeServer {
    async fn send(&self, letter: &Letter) -> Result<(), SendError> {
        self.seen.lock().await.push(letter.clone());
        if let Some(store) = self.dies_of.lock().await.take() {
            store.close().await;
        }
        match self.answers.lock().await.pop_front() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

struct World {
    engine: Arc<MemoryEngine>,
    store: Store,
    clock: Arc<ManualClock>,
    server: Arc<FakeServer>,
    mailer: Mailer,
}

impl World {
    async fn new(max_per_hour: usize) -> Self {
        let engine = Arc::new(MemoryEngine::new());
        Self::on(
            engine,
            ManualClock::new(START),
            Arc::default(),
            max_per_hour,
        )
        .await
    }

    async fn on(
        engine: Arc<MemoryEngine>,
        clock: Arc<ManualClock>,
        server: Arc<FakeServer>,
        max_per_hour: usize,
    ) -> Self {
        let store = Store::open(engine.clone(), Options::default(), migrations())
            .await
            .unwrap();
        let mailer = Mailer::new(Parts {
            store: store.clone(),
            clock: clock.clone(),
            random: Arc::new(SystemRandom),
            sender: server.clone(),
            server_name: server_name!("example.org").to_owned(),
            max_per_hour,
        });
        Self {
            engine,
            store,
            clock,
            server,
            mailer,
        }
    }

    /// The same after the process has ended and begun again.
    async fn restarted(self, max_per_hour: usize) -> Self {
        self.store.close().await;
        Self::on(self.engine, self.clock, self.server, max_per_hour).await
    }

    async fn queue(&self, to: &str, urgency: Urgency) -> String {
        let content = Rendered {
            subject: "Hello".to_owned(),
            text: "text".to_owned(),
            html: "<p>html</p>".to_owned(),
        };
        let letter = Letter::new(self.mailer.message_id(), to.to_owned(), content);
        let delivery = Delivery {
            urgency,
            due: self.mailer.now(),
            give_up: self.mailer.now() + 72 * HOUR,
        };
        let mut batch = Batch::new();
        self.mailer.queue(&mut batch, &letter, delivery);
        self.store.write(batch).await.unwrap();
        letter.id
    }

    async fn answers(&self, answers: impl IntoIterator<Item = SendError>) {
        self.server.answers.lock().await.extend(answers);
    }

    async fn round(&self) -> Round {
        self.mailer.round(Urgency::Other).await.unwrap()
    }

    /// The ids of the letters that the server was shown, since it was last asked.
    async fn seen(&self) -> Vec<String> {
        let seen = std::mem::take(&mut *self.server.seen.lock().await);
        seen.into_iter().map(|letter| letter.id).collect()
    }

    async fn outcomes(&self) -> Vec<(u64, Option<String>)> {
        let view = self.store.view();
        let rows = view
            .range(
                &schema::MAIL_OUTCOMES,
                Range::all(),
                Direction::Forward,
                100,
            )
            .await
            .unwrap();
        rows.into_iter()
            .map(|((kind, ..), row)| (kind, row.error))
            .collect()
    }
}

fn later() -> SendError {
    SendError::Later("450 busy".to_owned())
}

#[tokio::test]
async fn a_letter_is_sent_once_and_leaves_the_queue() {
    let world = World::new(100).await;
    let id = world.queue("ana@example.org", Urgency::Other).await;
    assert_eq!(world.round().await, Round::Again);
    assert_eq!(world.round().await, Round::Idle);
    assert_eq!(world.seen().await, [id]);
    assert_eq!(world.outcomes().await, [(0, None)]);
    let counts = world.mailer.counts();
    assert_eq!((counts.queued(), counts.sent(), counts.failed()), (1, 1, 0));
    assert_eq!(world.mailer.lag_ms().await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_put_off_waits_longer_each_time_and_is_the_same_letter() {
    let world = World::new(100).await;
    let id = world.queue("ana@example.org", Urgency::Other).await;
    world.answers((0..4).map(|_| later())).await;
    let mut waits = Vec::new();
    for _ in 0..4 {
        assert_eq!(world.round().await, Round::Again);
        let Round::Until(due) = world.round().await else {
            panic!("the letter does not wait");
        };
        let wait = due - world.mailer.now();
        waits.push(wait);
        world.clock.advance(wait - 1);
        assert_eq!(
            world.round().await,
            Round::Until(due),
            "not a moment earlier"
        );
        world.clock.advance(1);
    }
    assert_eq!(
        world.mailer.lag_ms().await.unwrap(),
        waits.iter().sum::<u64>()
    );
    assert_eq!(world.round().await, Round::Again);
    assert_eq!(world.seen().await, vec![id; 5]);
    for (number, wait) in waits.iter().enumerate() {
        let middle = 5_000_u64 << number;
        assert!(
            (middle / 4 * 3..=middle / 4 * 5).contains(wait),
            "{waits:?}"
        );
    }
}

#[tokio::test]
async fn what_is_refused_ends_and_is_recorded_and_its_neighbours_go() {
    let world = World::new(100).await;
    for to in ["ana@example.org", "ion@example.org", "eva@example.org"] {
        world.queue(to, Urgency::Other).await;
    }
    world
        .answers([SendError::Never("550 no such user".to_owned())])
        .await;
    assert_eq!(world.round().await, Round::Again);
    assert_eq!(world.round().await, Round::Idle);
    assert_eq!(world.seen().await.len(), 3);
    let failed = (1, Some("550 no such user".to_owned()));
    assert_eq!(world.outcomes().await, [(0, None), (0, None), failed]);
    assert_eq!(world.mailer.counts().failed(), 1);
}

#[tokio::test]
async fn a_mail_server_that_is_down_for_an_hour_loses_and_doubles_nothing() {
    let world = World::new(100).await;
    let mut ids = Vec::new();
    for number in 0..6 {
        let to = format!("user{number}@example.org");
        ids.push(world.queue(&to, Urgency::Other).await);
    }
    for _ in 0..60 {
        let down = (0..6).map(|_| SendError::Unreachable("connection refused".to_owned()));
        world.answers(down).await;
        assert_eq!(world.round().await, Round::Unreachable);
        world.clock.advance(60_000);
    }
    world.seen().await;
    let world = world.restarted(100).await;
    while world.round().await == Round::Again {}
    let mut seen = world.seen().await;
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn a_letter_over_which_the_mail_server_breaks_off_holds_up_no_other() {
    let world = World::new(100).await;
    let breaks = SendError::Unreachable("connection reset".to_owned());
    let first = world.queue("ana@example.org", Urgency::Other).await;
    world.answers([breaks.clone()]).await;
    assert_eq!(world.round().await, Round::Unreachable);
    let second = world.queue("ion@example.org", Urgency::Other).await;
    // The order of letters that are due at once is that of their ids.
    let breaks_first = first < second;
    let later = SendError::Later("450 busy".to_owned());
    let answers = if breaks_first {
        [breaks, later]
    } else {
        [later, breaks]
    };
    world.answers(answers).await;
    assert_eq!(world.round().await, Round::Again);
    assert!(matches!(world.round().await, Round::Until(_)));
    world.clock.advance(HOUR);
    while world.round().await == Round::Again {}
    assert_eq!(world.mailer.counts().sent(), 2);
}

#[tokio::test]
async fn a_kill_between_sending_and_recording_sends_the_same_letter_once_more() {
    let world = World::new(100).await;
    let id = world.queue("ana@example.org", Urgency::Other).await;
    *world.server.dies_of.lock().await = Some(world.store.clone());
    world.mailer.round(Urgency::Other).await.unwrap_err();
    let world = world.restarted(100).await;
    while world.round().await == Round::Again {}
    assert_eq!(world.seen().await, [id.clone(), id]);
}

#[tokio::test]
async fn a_letter_that_comes_too_late_is_given_up() {
    let world = World::new(100).await;
    world.queue("ana@example.org", Urgency::Other).await;
    world.clock.advance(72 * HOUR);
    assert_eq!(world.round().await, Round::Again);
    assert_eq!(world.seen().await, [""; 0]);
    assert_eq!(world.mailer.counts().failed(), 1);
}

#[tokio::test]
async fn the_hour_has_its_limit_also_over_a_restart_and_urgent_letters_have_a_tenth_of_it() {
    let world = World::new(20).await;
    for number in 0..30 {
        world
            .queue(&format!("user{number}@example.org"), Urgency::Other)
            .await;
    }
    while world.round().await == Round::Again {}
    assert_eq!(world.seen().await.len(), 18);
    assert_eq!(world.round().await, Round::Until(START + HOUR));
    let world = world.restarted(20).await;
    assert_eq!(world.round().await, Round::Until(START + HOUR));
    for number in 0..3 {
        world
            .queue(&format!("urgent{number}@example.org"), Urgency::Urgent)
            .await;
    }
    while world.mailer.round(Urgency::Urgent).await.unwrap() == Round::Again {}
    assert_eq!(world.seen().await.len(), 2);
    world.clock.advance(HOUR);
    while world.mailer.round(Urgency::Urgent).await.unwrap() == Round::Again {}
    while world.round().await == Round::Again {}
    assert_eq!(world.seen().await.len(), 13);
}

#[tokio::test]
async fn a_letter_that_is_due_later_waits() {
    let world = World::new(100).await;
    let content = Rendered {
        subject: "s".to_owned(),
        text: "x".repeat(200_000),
        html: "y".repeat(200_000),
    };
    let letter = Letter::new(
        world.mailer.message_id(),
        "a@example.org".to_owned(),
        content,
    );
    let delivery = Delivery {
        urgency: Urgency::Other,
        due: START + HOUR,
        give_up: START + 2 * HOUR,
    };
    let mut batch = Batch::new();
    world.mailer.queue(&mut batch, &letter, delivery);
    world.store.write(batch).await.unwrap();
    assert_eq!(world.round().await, Round::Until(START + HOUR));
    assert_eq!(world.mailer.lag_ms().await.unwrap(), 0);
    world.clock.advance(HOUR);
    assert_eq!(world.round().await, Round::Again);
    let seen = world.server.seen.lock().await;
    assert!(
        seen.iter()
            .all(|letter| letter.text.len() < 50_000 && letter.html.is_empty())
    );
}

#[tokio::test]
async fn a_queued_letter_wakes_its_task() {
    let world = World::new(100).await;
    let stop = CancellationToken::new();
    let task = tokio::spawn(world.mailer.clone().run(Urgency::Urgent, stop.clone()));
    for number in 0..3 {
        world
            .queue(&format!("user{number}@example.org"), Urgency::Urgent)
            .await;
        let mut waited = 0;
        while world.mailer.counts().sent() <= number {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            waited += 1;
            assert!(waited < 1_000, "nobody sends it");
        }
    }
    stop.cancel();
    task.await.unwrap();
}
