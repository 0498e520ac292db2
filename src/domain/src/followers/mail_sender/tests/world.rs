//! A server with a mail server in memory, and a clock that stands still.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use ruma::{OwnedRoomId, server_name};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use vatra_store::Batch;

use super::super::{MailSender, Parts};
use crate::{
    clock::Millis,
    followers::push_sender::tests::world::{World, draft},
    mail::{self, Letter, Mailer, SendError, SendMail, templates::Templates},
    random::SystemRandom,
    schema::{self, EmailRow},
    users::{
        Requester,
        pushers::{PusherError, SetPusher, Ways},
    },
};

pub(super) const MINUTE: Millis = 60_000;
pub(super) const HOUR: Millis = 60 * MINUTE;
pub(super) const DELAY: Millis = 10 * MINUTE;

/// What the mail server does with a letter.
#[derive(Debug, Clone)]
pub(super) enum Mood {
    Fails(SendError),
    /// It takes the letter, and nobody learns of it.
    TakesItAndNeverSays,
}

/// Takes letters, unless it is in another mood.
#[derive(Default)]
pub(super) struct Post {
    pub(super) letters: Mutex<Vec<Letter>>,
    moods: Mutex<VecDeque<Mood>>,
}

#[async_trait]
impl SendMail for Post {
    async fn send(&self, letter: &Letter) -> Result<(), SendError> {
        let mood = self.moods.lock().unwrap().pop_front();
        match mood {
            Some(Mood::Fails(error)) => return Err(error),
            Some(Mood::TakesItAndNeverSays) => {
                self.letters.lock().unwrap().push(letter.clone());
                std::future::pending().await
            }
            None => {}
        }
        self.letters.lock().unwrap().push(letter.clone());
        Ok(())
    }
}

pub(super) struct Mailing {
    pub(super) world: World,
    pub(super) post: Arc<Post>,
    pub(super) sender: MailSender,
    stop: CancellationToken,
}

impl Mailing {
    pub(super) async fn new() -> Self {
        let (world, post) = (World::new().await, Arc::new(Post::default()));
        let stop = CancellationToken::new();
        let sender = sender(&world, &post, &stop);
        Self {
            world,
            post,
            sender,
            stop,
        }
    }

    /// Another sender on the same store, as after a kill.
    pub(super) async fn restart(&mut self) {
        self.stop.cancel();
        self.stop = CancellationToken::new();
        self.sender = sender(&self.world, &self.post, &self.stop);
        self.world.settled().await;
    }

    pub(super) fn moods(&self, moods: impl IntoIterator<Item = Mood>) {
        self.post.moods.lock().unwrap().extend(moods);
    }

    /// The mail server takes letters again.
    pub(super) fn post_is_back(&self) {
        self.post.moods.lock().unwrap().clear();
    }

    /// Gives a user an address.
    pub(super) async fn address(&self, user: &Requester) -> String {
        let address = format!("{}@example.org", user.user.localpart());
        let mut batch = Batch::new();
        batch.put(&schema::EMAIL_OWNERS, &address, &user.sid);
        let row = EmailRow {
            validated: 1,
            added: 1,
        };
        batch.put(&schema::EMAILS, &(user.sid, address.clone()), &row);
        self.world.store.write(batch).await.unwrap();
        address
    }

    pub(super) async fn set(
        &self,
        user: &Requester,
        address: &str,
        change: Value,
    ) -> Result<(), PusherError> {
        let mut asked = json!({
            "kind": "email", "app_id": "m.email", "pushkey": address, "app_display_name": "a", "device_display_name": "d",
            "lang": "en", "data": {},
        });
        for (name, value) in change.as_object().into_iter().flatten() {
            asked[name] = value.clone();
        }
        let asked: SetPusher = serde_json::from_value(asked).unwrap();
        let ways = Ways {
            email: true,
            plain_http: false,
        };
        self.world.users.set_pusher(user, asked, ways).await
    }

    /// Alice, and Bob, who is written to, in a room.
    pub(super) async fn two(&self, data: Value) -> (Requester, Requester, OwnedRoomId) {
        let world = &self.world;
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = world.room(&alice).await;
        world.join(&room, &bob).await;
        let name = json!({ "name": "Hearth" });
        let name = draft("@alice:here", "m.room.name", Some(""), name);
        world.send(&room, name).await;
        let address = self.address(&bob).await;
        let change = json!({ "data": data });
        self.set(&bob, &address, change).await.unwrap();
        world.settled().await;
        (alice, bob, room)
    }

    /// Time passes, and all is done that was to be done meanwhile.
    pub(super) async fn pass(&self, millis: Millis) {
        self.world.settled().await;
        let mut left = millis;
        loop {
            let step = left.min(MINUTE);
            self.world.clock.advance(step);
            left -= step;
            while self.sender.round().await {}
            if left == 0 {
                return;
            }
        }
    }

    /// The letters since this was last asked.
    pub(super) fn letters(&self) -> Vec<Letter> {
        std::mem::take(&mut *self.post.letters.lock().unwrap())
    }

    pub(super) fn letter(&self) -> Letter {
        let letters = self.letters();
        assert_eq!(letters.len(), 1, "{letters:?}");
        letters[0].clone()
    }

    pub(super) fn none(&self) {
        assert_eq!(self.letters(), []);
    }
}

fn sender(world: &World, post: &Arc<Post>, stop: &CancellationToken) -> MailSender {
    let mailer = Mailer::new(mail::Parts {
        store: world.store.clone(),
        clock: world.clock.clone(),
        random: Arc::new(SystemRandom),
        sender: post.clone(),
        server_name: server_name!("here").to_owned(),
        max_per_hour: 100,
    });
    let sender = MailSender::new(Parts {
        notices: world.notices.clone(),
        rooms: world.rooms.clone(),
        users: world.users.clone(),
        server_notices: None,
        mailer,
        templates: Arc::new(Templates::new(Vec::new()).unwrap()),
        base_url: "https://matrix.here".to_owned(),
        delay_ms: DELAY,
        clock: world.clock.clone(),
        shutdown: stop.clone(),
    });
    let listening = sender.clone();
    tokio::spawn(async move { listening.listen().await });
    sender
}
