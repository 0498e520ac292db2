//! What is found by whom, and what a crash, an edit, a redaction or damage changes of that.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::slice::from_ref;

use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Value, json};
use tempfile::TempDir;
use vatra_search::Order;
use vatra_store::Position;

use super::{
    super::push_sender::tests::world::{World, draft, member},
    *,
};
use crate::{
    event::build::Draft,
    flows::membership,
    rooms::visible::Viewer,
    schema::RoomSid,
    search::{
        Asked, Found, SearchError,
        texts::Kind,
        token::{Group, SearchToken},
    },
    users::Requester,
};

/// A server, and its index, which is brought up to date when a test says so.
struct Bench {
    world: World,
    folder: TempDir,
    search: Search,
    indexing: Indexing,
}

impl Bench {
    async fn new() -> Self {
        let world = World::new().await;
        let folder = tempfile::tempdir().unwrap();
        let search = Search::new(world.rooms.clone());
        let indexing = Indexing::new(parts(&world, &folder, &search), Status::new(NAME));
        Self {
            world,
            folder,
            search,
            indexing,
        }
    }

    /// The process was killed: what was not committed is gone.
    fn crash(&mut self) {
        self.indexing.close_index();
        self.indexing = Indexing::new(
            parts(&self.world, &self.folder, &self.search),
            Status::new(NAME),
        );
    }

    /// Everything that happened is in the index, but not committed.
    async fn followed(&mut self) {
        while let Turn::More = self.indexing.turn(false).await.unwrap() {}
    }

    /// Everything that happened can be found.
    async fn indexed(&mut self) {
        self.followed().await;
        let index = self.indexing.index.clone().unwrap();
        self.indexing.commit(&index).await.unwrap();
    }

    async fn find(&self, who: &Requester, term: &str, change: impl FnOnce(&mut Asked)) -> Found {
        let mut asked = Asked {
            term: term.to_owned(),
            kinds: Kind::ALL.to_vec(),
            filter: ruma::api::client::filter::RoomEventFilter::default(),
            order: Order::Recent,
            from: None,
        };
        change(&mut asked);
        let ignored = self.world.users.ignored(who.sid).await.unwrap();
        let found = self.search.find(&viewer(who), &ignored, &asked).await;
        found.unwrap()
    }

    /// The ids of what is found, and that they are counted.
    async fn found(&self, who: &Requester, term: &str) -> Vec<OwnedEventId> {
        let found = self.find(who, term, |_| {}).await;
        let ids = ids(&found);
        assert_eq!(found.count, u64::try_from(ids.len()).unwrap(), "{term}");
        ids
    }

    async fn edit(&self, room: &OwnedRoomId, of: &OwnedEventId, text: &str) -> OwnedEventId {
        let content = json!({
            "msgtype": "m.text", "body": format!("* {text}"),
            "m.new_content": { "msgtype": "m.text", "body": text },
            "m.relates_to": { "rel_type": "m.replace", "event_id": of },
        });
        let edit = draft("@alice:here", "m.room.message", None, content);
        self.world.send(room, edit).await
    }

    async fn redact(&self, room: &OwnedRoomId, what: &OwnedEventId) {
        let redaction = Draft {
            redacts: Some(what.clone()),
            ..draft("@alice:here", "m.room.redaction", None, json!({}))
        };
        self.world.send(room, redaction).await;
    }

    async fn state(&self, room: &OwnedRoomId, kind: &str, content: Value) -> OwnedEventId {
        let state = draft("@alice:here", kind, Some(""), content);
        self.world.send(room, state).await
    }
}

fn parts(world: &World, folder: &TempDir, search: &Search) -> Parts {
    Parts {
        rooms: world.rooms.clone(),
        search: search.clone(),
        clock: world.clock.clone(),
        folder: folder.path().join("search"),
        memory_bytes: 1 << 20,
    }
}

fn viewer(who: &Requester) -> Viewer {
    Viewer {
        user: who.user.clone(),
        sid: who.sid,
        device: None,
    }
}

fn ids(found: &Found) -> Vec<OwnedEventId> {
    let ids = found.results.iter().map(|it| it.event.pdu.event_id.clone());
    ids.collect()
}

const NONE: [OwnedEventId; 0] = [];

#[tokio::test]
async fn messages_names_and_topics_are_found_by_members_only() {
    let mut bench = Bench::new().await;
    let (alice, bob) = (
        bench.world.user("alice").await,
        bench.world.user("bob").await,
    );
    let room = bench.world.room(&alice).await;
    let said = bench.world.say(&room, &alice, "Café über der Stadt").await;
    let name = bench
        .state(&room, "m.room.name", json!({ "name": "Stadt" }))
        .await;
    let topic = json!({ "topic": "Land", "m.topic": { "m.text": [
        { "mimetype": "text/html", "body": "<b>Markup</b>" }, { "body": "Stadt und Land" },
    ] } });
    let topic = bench.state(&room, "m.room.topic", topic).await;
    bench.indexed().await;
    let all = [topic.clone(), name.clone(), said.clone()];
    assert_eq!(bench.found(&alice, "STADT").await, all);
    assert_eq!(bench.found(&alice, "cafe uber").await, from_ref(&said));
    assert_eq!(bench.found(&alice, "markup").await, NONE);
    let names = bench.find(&alice, "stadt", |asked| asked.kinds = vec![Kind::Name]);
    assert_eq!(ids(&names.await), [name]);
    let messages = bench.find(&alice, "stadt", |asked| {
        asked.filter.types = Some(vec!["m.room.mess*".to_owned()]);
    });
    let messages = messages.await;
    assert_eq!(ids(&messages), [said]);
    assert_eq!(messages.highlights, ["stadt"]);
    assert_eq!(bench.found(&bob, "stadt").await, NONE, "Bob is not there");
    bench.world.join(&room, &bob).await;
    bench.indexed().await;
    assert_eq!(bench.found(&bob, "land").await, [topic], "shared history");
    bench.world.stopped().await;
}

#[tokio::test]
async fn a_message_is_found_by_what_it_says_now() {
    let mut bench = Bench::new().await;
    let alice = bench.world.user("alice").await;
    let room = bench.world.room(&alice).await;
    let said = bench.world.say(&room, &alice, "one").await;
    bench.indexed().await;
    let second = bench.edit(&room, &said, "two").await;
    bench.indexed().await;
    assert_eq!(bench.found(&alice, "one").await, NONE);
    let found = bench.find(&alice, "two", |_| {}).await;
    assert_eq!(ids(&found), from_ref(&said), "not the edit");
    assert_eq!(found.highlights, ["two"]);
    // Two changes between two commits.
    let third = bench.edit(&room, &said, "three").await;
    bench.followed().await;
    bench.redact(&room, &third).await;
    bench.indexed().await;
    assert_eq!(bench.found(&alice, "three").await, NONE);
    assert_eq!(bench.found(&alice, "two").await, from_ref(&said));
    bench.redact(&room, &second).await;
    bench.indexed().await;
    assert_eq!(bench.found(&alice, "two").await, NONE);
    assert_eq!(bench.found(&alice, "one").await, from_ref(&said));
    bench.redact(&room, &said).await;
    // Gone at once, whatever the index says.
    let found = bench.find(&alice, "one", |_| {}).await;
    assert_eq!((ids(&found).len(), found.count), (0, 0));
    bench.indexed().await;
    assert_eq!(bench.found(&alice, "one").await, NONE);
    bench.world.stopped().await;
}

#[tokio::test]
async fn nobody_edits_the_words_of_others() {
    let mut bench = Bench::new().await;
    let (alice, bob) = (
        bench.world.user("alice").await,
        bench.world.user("bob").await,
    );
    let room = bench.world.room(&alice).await;
    bench.world.join(&room, &bob).await;
    let said = bench.world.say(&room, &bob, "mine").await;
    bench.edit(&room, &said, "forged").await;
    bench.indexed().await;
    assert_eq!(bench.found(&bob, "mine").await, [said]);
    assert_eq!(bench.found(&bob, "forged").await, NONE);
    bench.world.stopped().await;
}

#[tokio::test]
async fn nothing_is_found_of_what_follows_encryption() {
    let mut bench = Bench::new().await;
    let alice = bench.world.user("alice").await;
    let room = bench.world.room(&alice).await;
    let before = bench.world.say(&room, &alice, "open words").await;
    let edited = bench.world.say(&room, &alice, "more words").await;
    let algorithm = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    bench.state(&room, "m.room.encryption", algorithm).await;
    bench.world.say(&room, &alice, "secret words").await;
    bench
        .state(&room, "m.room.name", json!({ "name": "words" }))
        .await;
    bench.edit(&room, &edited, "edited words").await;
    bench.indexed().await;
    assert_eq!(bench.found(&alice, "words").await, [before]);
    bench.world.stopped().await;
}

#[tokio::test]
async fn who_has_left_finds_nothing_of_later() {
    let mut bench = Bench::new().await;
    let (alice, bob) = (
        bench.world.user("alice").await,
        bench.world.user("bob").await,
    );
    let room = bench.world.room(&alice).await;
    bench.world.join(&room, &bob).await;
    let heard = bench.world.say(&room, &alice, "word for all").await;
    let edited = bench.world.say(&room, &alice, "word for all").await;
    let leave = member("@bob:here", "@bob:here", "leave");
    bench.world.send(&room, leave).await;
    bench.world.say(&room, &alice, "word about bob").await;
    bench.edit(&room, &edited, "word about him").await;
    bench.indexed().await;
    assert_eq!(bench.found(&bob, "word").await, from_ref(&heard));
    assert_eq!(bench.found(&bob, "about").await, NONE, "not even a count");
    assert_eq!(bench.found(&alice, "word").await.len(), 3);
    let forgotten = membership::forget(&bench.world.rooms, bob.sid, &room);
    forgotten.await.unwrap();
    assert_eq!(bench.found(&bob, "word").await, NONE);
    bench.world.stopped().await;
}

#[tokio::test]
async fn who_comes_late_finds_what_the_history_shows_them() {
    let mut bench = Bench::new().await;
    let (alice, bob) = (
        bench.world.user("alice").await,
        bench.world.user("bob").await,
    );
    let room = bench.world.room(&alice).await;
    let joined = json!({ "history_visibility": "joined" });
    bench
        .state(&room, "m.room.history_visibility", joined)
        .await;
    let early = bench.world.say(&room, &alice, "early word").await;
    bench.world.join(&room, &bob).await;
    let late = bench.world.say(&room, &alice, "late word").await;
    bench.indexed().await;
    assert_eq!(bench.found(&bob, "word").await, from_ref(&late));
    assert_eq!(bench.found(&bob, "early").await, NONE);
    assert_eq!(bench.found(&alice, "word").await, [late, early]);
    bench.world.stopped().await;
}

#[tokio::test]
async fn a_crash_repeats_work_and_skips_none() {
    let mut bench = Bench::new().await;
    let alice = bench.world.user("alice").await;
    let room = bench.world.room(&alice).await;
    let first = bench.world.say(&room, &alice, "word").await;
    bench.indexed().await;
    let committed = bench.indexing.committed;
    let second = bench.world.say(&room, &alice, "word").await;
    bench.redact(&room, &first).await;
    bench.followed().await;
    assert!(bench.indexing.cursor.log > committed.log);
    bench.crash();
    bench.indexed().await;
    assert_eq!(bench.found(&alice, "word").await, from_ref(&second));
    // What is committed is not done again.
    bench.crash();
    bench.indexing.open().await.unwrap();
    assert!(bench.indexing.cursor.log > committed.log);
    bench.indexed().await;
    assert_eq!(bench.found(&alice, "word").await, [second]);
    bench.world.stopped().await;
}

#[tokio::test]
async fn an_index_that_is_missing_damaged_or_anothers_is_made_anew() {
    let mut bench = Bench::new().await;
    let alice = bench.world.user("alice").await;
    let room = bench.world.room(&alice).await;
    let said = bench.world.say(&room, &alice, "word").await;
    bench.indexed().await;
    let folder = bench.folder.path().join("search");
    let damages: [fn(&std::path::Path); 3] = [
        |folder| std::fs::remove_dir_all(folder).unwrap(),
        |folder| std::fs::write(folder.join("meta.json"), "{").unwrap(),
        |folder| {
            let index = Index::open(folder, 1 << 20).unwrap();
            let other = Cursor::START.note(77);
            index.change(&[]).unwrap();
            index.commit(&other).unwrap();
            index.close();
        },
    ];
    for damage in damages {
        bench.crash();
        damage(&folder);
        bench.indexed().await;
        assert_eq!(bench.found(&alice, "word").await, from_ref(&said));
    }
    // A file whose sum is wrong is noticed when the index is opened.
    bench.crash();
    let files = std::fs::read_dir(&folder).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    let terms = files.find(|file| file.extension().is_some_and(|it| it == "term"));
    let terms = terms.unwrap();
    let mut bytes = std::fs::read(&terms).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&terms, bytes).unwrap();
    assert!(bench.indexing.turn(false).await.is_err());
    bench.indexed().await;
    assert_eq!(bench.found(&alice, "word").await, [said]);
    bench.world.stopped().await;
}

#[tokio::test]
async fn what_stands_in_no_log_is_found_too() {
    let mut bench = Bench::new().await;
    let alice = bench.world.user("alice").await;
    let room = bench.world.room(&alice).await;
    let said = bench.world.say(&room, &alice, "word").await;
    let reader = bench.world.rooms.reader();
    let event = reader.event_anywhere(&said).await.unwrap().unwrap();
    let mut batch = Batch::new();
    batch.delete(&schema::LOG, &event.position);
    batch.put(&schema::PAST, &(Position::ZERO, event.sid), &());
    bench.world.store.write(batch).await.unwrap();
    bench.indexed().await;
    assert_eq!(bench.found(&alice, "word").await, from_ref(&said));
    bench.crash();
    bench.indexed().await;
    assert_eq!(bench.found(&alice, "word").await, [said]);
    bench.world.stopped().await;
}

#[tokio::test]
async fn pages_lead_through_everything_and_through_one_group() {
    let mut bench = Bench::new().await;
    let alice = bench.world.user("alice").await;
    let rooms = [
        bench.world.room(&alice).await,
        bench.world.room(&alice).await,
    ];
    let mut said = Vec::new();
    for number in 0..10 {
        let text = "word ".repeat(number % 3 + 1);
        said.push(bench.world.say(&rooms[number % 2], &alice, &text).await);
    }
    bench.indexed().await;
    let page = async |order: Order, from: Option<SearchToken>| {
        let found = bench.find(&alice, "word", |asked| {
            asked.order = order;
            asked.from = from;
            asked.filter.limit = Some(4u32.into());
        });
        found.await
    };
    for order in [Order::Recent, Order::Rank] {
        let mut all = Vec::new();
        let mut from = None;
        for expected in [4, 4, 2] {
            let found = page(order, from).await;
            assert_eq!((found.results.len(), found.count), (expected, 10));
            all.extend(ids(&found));
            from = found.next;
        }
        assert_eq!(from, None);
        if order == Order::Recent {
            said.reverse();
            assert_eq!(all, said);
        } else {
            all.sort();
            said.sort();
            assert_eq!(all, said);
        }
    }
    let first = page(Order::Recent, None).await;
    let group = Group::Room(first.results[0].room.sid);
    let from = SearchToken {
        group,
        ..first.next.unwrap()
    };
    let rest = page(Order::Recent, Some(from)).await;
    assert_eq!(rest.results.len(), 3, "five in the room, two were shown");
    let same = |it: &crate::search::Match| it.room.sid == first.results[0].room.sid;
    assert!(rest.results.iter().all(same));
    let senders = SearchToken {
        group: Group::Sender(alice.sid),
        ..from
    };
    let found = page(Order::Recent, Some(senders)).await;
    assert_eq!(
        (found.results.len(), found.next.unwrap().group),
        (4, senders.group)
    );
    let nowhere = SearchToken {
        group: Group::Room(RoomSid(u64::MAX)),
        ..from
    };
    assert_eq!(page(Order::Recent, Some(nowhere)).await.results.len(), 0);
    bench.world.stopped().await;
}

#[tokio::test]
async fn what_was_just_said_is_found_by_who_asks_at_once() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let parts = bench.indexing.parts.clone();
    let running = tokio::spawn(run(parts, Status::new(NAME), stop.clone()));
    let alice = bench.world.user("alice").await;
    let room = bench.world.room(&alice).await;
    for number in 0..5 {
        let word = format!("word{number}");
        let said = bench.world.say(&room, &alice, &word).await;
        assert_eq!(bench.found(&alice, &word).await, [said]);
    }
    stop.cancel();
    running.await.unwrap();
    let asked = Asked {
        term: "word".to_owned(),
        kinds: vec![Kind::Body],
        filter: ruma::api::client::filter::RoomEventFilter::default(),
        order: Order::Rank,
        from: None,
    };
    let ignored = crate::users::Ignored::default();
    let found = bench.search.find(&viewer(&alice), &ignored, &asked).await;
    assert!(matches!(found, Err(SearchError::NotReady)));
    bench.world.stopped().await;
}
