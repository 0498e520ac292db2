//! One turn of one pusher: is a letter due, which, and what the mail server's answer means.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::{info, warn};
use vatra_store::{Batch, CommitError, Position};

use super::{
    super::{
        FollowError,
        notices::{Notice, of_users},
    },
    Inner, Parts,
    letter::Writing,
    plan::Plan,
};
use crate::{
    clock::Millis,
    flows::FlowError,
    mail::{Attempt, MailError, SendError, templates::context},
    rooms::Reader,
    schema::{self, GLOBAL, PusherKey, PusherKind, PusherRow, PusherStateRow, ToldRow, UserSid},
    users::pushers::{MailWishes, Mode},
};

/// The wait after the first failure, doubled with each further one up to the longest, in milliseconds: of what the mail server puts
/// off, and without a mail server.
const FIRST_WAIT_MS: Millis = 10_000;
const LONGEST_WAIT_MS: Millis = 30 * 60_000;
const LONGEST_UNREACHABLE_MS: Millis = 5 * 60_000;
/// The wait of a letter that cannot be written, which is the operator's template's fault.
const UNWRITTEN_MS: Millis = 3_600_000;
/// The template of what the server says when an address is refused.
const NOTICE: &str = "address_refused";
/// The longest reason that is kept, in characters.
const REASON_CHARACTERS: usize = 200;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Something was sent; there may be more.
    More,
    /// There is nothing to be told, or the pusher is gone.
    Nothing,
    /// Not before this time.
    Wait(Millis),
}

/// A pusher as it was read.
struct Of {
    user: UserSid,
    key: PusherKey,
    pusher: PusherRow,
    /// What the links of its letters hold.
    link: String,
    state: PusherStateRow,
    told: ToldRow,
}

impl Inner {
    /// Writes to a user what is due; says when to look again.
    pub(super) async fn serve(&self, user: UserSid) -> Result<Option<Millis>, FollowError> {
        let pushers = self.parts.users.pushers(user).await?;
        let mut next: Option<Millis> = None;
        for pusher in pushers {
            if !matches!(pusher.kind, PusherKind::Email { .. }) {
                continue;
            }
            let key = (pusher.app_id, pusher.pushkey, user);
            let wait = loop {
                match self.turn(&key).await? {
                    Turn::More => {}
                    Turn::Nothing => break None,
                    Turn::Wait(until) => break Some(until),
                }
            };
            next = match (next, wait) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        Ok(next)
    }

    async fn read(&self, key: &PusherKey) -> Result<Option<Of>, FollowError> {
        let (app_id, address, user) = key;
        let view = self.parts.rooms.store().view();
        let row = view.get(&schema::PUSHERS, user).await?;
        let mut pushers = row.unwrap_or_default().pushers.into_iter();
        let pusher = pushers.find(|it| it.app_id == *app_id && it.pushkey == *address);
        let state = view.get(&schema::PUSHER_STATES, key).await?;
        let Some((pusher, state)) = pusher.zip(state) else {
            return Ok(None);
        };
        let PusherKind::Email { unsubscribe } = &pusher.kind else {
            return Ok(None);
        };
        let told = view
            .get(&schema::TOLD_BY_MAIL, &(*user, address.clone()))
            .await?;
        Ok(Some(Of {
            user: *user,
            key: key.clone(),
            link: unsubscribe.clone(),
            pusher,
            state,
            told: told.unwrap_or_default(),
        }))
    }

    async fn turn(&self, key: &PusherKey) -> Result<Turn, FollowError> {
        let Some(mut of) = self.read(key).await? else {
            return Ok(Turn::Nothing);
        };
        let unread = self.parts.notices.unread(of.user).await?;
        let reader = self.parts.rooms.reader();
        let wishes = MailWishes::of(&of.pusher);
        let after = of.state.sent.max(of.pusher.since);
        let mut pending: Vec<&Notice> = unread.iter().filter(|(at, _)| *at > after).collect();
        if wishes.mode == Mode::Mentions && !pending.is_empty() {
            self.only_mentions(&reader, of.user, &mut pending).await?;
        }
        let Some((newest, _)) = pending.last() else {
            return Ok(Turn::Nothing);
        };
        // A letter that was begun tells no more than it did, unless nothing of it is left.
        let begun = of.told.sending;
        let begun = begun.filter(|upto| pending.first().is_some_and(|(at, _)| at <= upto));
        let upto = begun.unwrap_or(*newest);
        pending.retain(|(at, _)| *at <= upto);
        let there = self.parts.users.last_there(of.user);
        let plan = Plan {
            pending: &pending,
            unread: &unread,
            told: &of.told.rooms,
            wishes: &wishes,
            delay_ms: self.parts.delay_ms,
            there: there.await.map_err(of_users)?,
            retry_at: of.state.retry_at,
        };
        let now = self.parts.clock.now();
        let due = plan.due().max(self.pause().until);
        if due > now {
            return Ok(Turn::Wait(due));
        }
        let rooms = plan.told(now);
        let writing = Writing {
            inner: self,
            reader: &reader,
            user: of.user,
            pusher: &of.pusher,
            link: &of.link,
            wishes: &wishes,
            upto,
        };
        let letter = match writing.letter(&pending, &unread).await? {
            Ok(Some(letter)) => letter,
            Ok(None) => {
                self.sent_up_to(&of, upto, of.told.rooms.clone(), None)
                    .await?;
                return Ok(Turn::More);
            }
            Err(error) => {
                warn!(%error, "a letter cannot be written");
                let wait = now.saturating_add(UNWRITTEN_MS);
                return self.failed(&of, &error.to_string(), wait).await;
            }
        };
        if begun.is_none() && !self.begin_letter(&mut of, upto).await? {
            return Ok(Turn::More);
        }
        let attempt = self.parts.mailer.attempt(&letter).await;
        match attempt.map_err(of_mail)? {
            Attempt::NotBefore(until) => Ok(Turn::Wait(until)),
            Attempt::Made(Ok(())) => {
                info!(id = letter.id, "someone who is away was written to");
                *self.pause() = super::Pause::default();
                self.counts.sent.fetch_add(1, Ordering::Relaxed);
                self.sent_up_to(&of, upto, rooms, Some(&letter.id)).await?;
                Ok(Turn::More)
            }
            Attempt::Made(Err(SendError::Never(reason))) => {
                self.end(&of, &letter.id, &reason).await?;
                Ok(Turn::Nothing)
            }
            Attempt::Made(Err(SendError::Later(reason))) => {
                let wait = doubled(of.state.failures, LONGEST_WAIT_MS);
                self.failed(&of, &reason, now.saturating_add(wait)).await
            }
            Attempt::Made(Err(SendError::Unreachable(reason))) => {
                self.pause_sending(now);
                let wait = doubled(of.state.failures, LONGEST_UNREACHABLE_MS);
                self.failed(&of, &reason, now.saturating_add(wait)).await
            }
        }
    }

    /// What highlights, invites, and what is said in conversations of two.
    async fn only_mentions(
        &self,
        reader: &Reader,
        user: UserSid,
        pending: &mut Vec<&Notice>,
    ) -> Result<(), FollowError> {
        let data = self.parts.users.account_data(user, GLOBAL, "m.direct");
        let data = data.await.map_err(of_users)?;
        let direct: Map<String, Value> = data
            .and_then(|data| serde_json::from_str(data.get()).ok())
            .unwrap_or_default();
        let lists = direct.values().filter_map(|it| {
            let rooms = Vec::<OwnedRoomId>::deserialize(it);
            rooms.ok()
        });
        let direct: BTreeSet<OwnedRoomId> = lists.flatten().collect();
        let rooms: BTreeSet<_> = pending.iter().map(|(_, row)| row.room).collect();
        let mut of_two = BTreeSet::new();
        for sid in rooms {
            let Some(room) = reader.room_by_sid(sid).await? else {
                continue;
            };
            let members = reader.recent(&room).await?.state.members;
            if members <= 2 || direct.contains(&room.id) {
                of_two.insert(sid);
            }
        }
        pending.retain(|(_, row)| row.highlight || row.invite || of_two.contains(&row.room));
        Ok(())
    }

    /// Stores up to where a letter tells; false if the pusher has changed meanwhile.
    async fn begin_letter(&self, of: &mut Of, upto: Position) -> Result<bool, FollowError> {
        of.told.sending = Some(upto);
        let mut batch = Batch::new();
        batch.assert_equals(&schema::PUSHER_STATES, &of.key, &of.state);
        batch.put(&schema::TOLD_BY_MAIL, &of.told_key(), &of.told);
        self.write(batch).await
    }

    /// The pusher is further; `id` is the letter that was sent. It may have been set anew meanwhile, but not be gone.
    async fn sent_up_to(
        &self,
        of: &Of,
        upto: Position,
        rooms: Vec<schema::ToldRoom>,
        id: Option<&str>,
    ) -> Result<(), FollowError> {
        let told = ToldRow {
            sending: None,
            rooms,
        };
        let mut recorded = false;
        loop {
            let view = self.parts.rooms.store().view();
            let state = view.get(&schema::PUSHER_STATES, &of.key).await?;
            let mut batch = Batch::new();
            if let Some(state) = &state {
                let after = PusherStateRow {
                    sent: upto.max(state.sent),
                    ..PusherStateRow::default()
                };
                batch.assert_equals(&schema::PUSHER_STATES, &of.key, state);
                batch.put(&schema::PUSHER_STATES, &of.key, &after);
                batch.put(&schema::TOLD_BY_MAIL, &of.told_key(), &told);
            }
            if let Some(id) = id.filter(|_| !recorded) {
                self.parts.mailer.record(&mut batch, id, None).await;
                recorded = state.is_none();
            }
            if state.is_none() && batch.is_empty() || self.write(batch).await? {
                return Ok(());
            }
        }
    }

    /// The letter is tried again.
    async fn failed(&self, of: &Of, reason: &str, until: Millis) -> Result<Turn, FollowError> {
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
        info!(reason, "a letter to someone who is away waits");
        let after = PusherStateRow {
            failures: of.state.failures.saturating_add(1),
            retry_at: until,
            error: Some(reason.chars().take(REASON_CHARACTERS).collect()),
            ..of.state.clone()
        };
        let mut batch = Batch::new();
        batch.assert_equals(&schema::PUSHER_STATES, &of.key, &of.state);
        batch.put(&schema::PUSHER_STATES, &of.key, &after);
        self.write(batch).await?;
        Ok(Turn::Wait(until))
    }

    /// The address takes no letters: the pusher ends, unless it was set anew meanwhile.
    async fn end(&self, of: &Of, id: &str, reason: &str) -> Result<(), FollowError> {
        self.counts.ended.fetch_add(1, Ordering::Relaxed);
        warn!(
            id,
            reason, "an address is refused: nothing is sent to it any more"
        );
        // First, since whatever is cut off here is tried again.
        if let Err(error) = self.tell(of, id, reason).await {
            warn!(id, %error, "the person is not told that their address is refused");
        }
        let mut batch = Batch::new();
        self.parts.mailer.record(&mut batch, id, Some(reason)).await;
        self.write(batch).await?;
        let this = |it: &PusherRow| *it == of.pusher;
        let dropped = self.parts.users.drop_pushers(of.user, this).await;
        dropped.map_err(of_users)
    }

    /// Tells whose pusher it is that it ends, in the room that the server has with them.
    async fn tell(&self, of: &Of, id: &str, reason: &str) -> Result<(), FlowError> {
        let Parts {
            rooms,
            users,
            templates,
            server_notices: Some(notices),
            ..
        } = &self.parts
        else {
            return Ok(());
        };
        let Some(user) = rooms.reader().user_id(of.user).await? else {
            return Ok(());
        };
        let values = context! {
            server => users.server_name().as_str(), address => of.pusher.pushkey.as_str(), reason => reason,
        };
        let language = templates.language(&of.pusher.lang);
        match templates.notice(language, NOTICE, values) {
            Ok(text) => notices.tell(&user, text, id).await,
            Err(error) => {
                warn!(%error, "a notice cannot be written");
                Ok(())
            }
        }
    }

    /// Says whether what the batch asserts still stood there.
    async fn write(&self, batch: Batch) -> Result<bool, FollowError> {
        match self.parts.rooms.store().write(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::AssertFailed) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Of {
    fn told_key(&self) -> (UserSid, String) {
        (self.user, self.pusher.pushkey.clone())
    }
}

fn of_mail(error: MailError) -> FollowError {
    match error {
        MailError::Store(error) => error.into(),
        MailError::Commit(error) => error.into(),
    }
}

fn doubled(failures: u32, longest: Millis) -> Millis {
    let doubled = FIRST_WAIT_MS.saturating_mul(1 << failures.min(20));
    doubled.min(longest)
}
