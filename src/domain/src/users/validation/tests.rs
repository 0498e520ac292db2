//! Addresses, with a mail server that keeps what it is sent and a clock that stands still.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use async_trait::async_trait;
use ruma::server_name;
use tokio::sync::Mutex;
use vatra_store::{Direction, MemoryEngine, Options, Range, Store};

use super::{Ask, PAGE, ValidatedEmail, Validations};
use crate::{
    clock::ManualClock,
    ids::Ids,
    mail::{self, Letter, Mailer, Round, SendError, SendMail, Urgency, templates::Templates},
    random::SystemRandom,
    schema::{self, EmailPurpose, UserSid, migrations},
    users::{NewAccount, Users, UsersError},
};

const HOUR: u64 = 3_600_000;

#[derive(Default)]
struct Mailbox(Mutex<Vec<Letter>>);

#[async_trait]
impl SendMail for Mailbox {
    async fn send(&self, letter: &Letter) -> Result<(), SendError> {
        self.0.lock().await.push(letter.clone());
        Ok(())
    }
}

struct World {
    store: Store,
    clock: Arc<ManualClock>,
    users: Users,
    mailer: Mailer,
    mailbox: Arc<Mailbox>,
    validations: Validations,
}

impl World {
    async fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let store = Store::open(engine, Options::default(), migrations())
            .await
            .unwrap();
        let clock = ManualClock::new(1_800_000_000_000);
        let (random, name) = (Arc::new(SystemRandom), server_name!("example.org"));
        let ids = Ids::new(store.clone(), 100);
        let users = Users::new(
            store.clone(),
            ids,
            clock.clone(),
            random.clone(),
            name.to_owned(),
        );
        let mailbox = Arc::<Mailbox>::default();
        let mailer = Mailer::new(mail::Parts {
            store: store.clone(),
            clock: clock.clone(),
            random,
            sender: mailbox.clone(),
            server_name: name.to_owned(),
            max_per_hour: 1_000,
        });
        let templates = Arc::new(Templates::new(Vec::new()).unwrap());
        let url = "https://matrix.example.org/";
        let validations = Validations::new(users.clone(), mailer.clone(), templates, url);
        Self {
            store,
            clock,
            users,
            mailer,
            mailbox,
            validations,
        }
    }

    async fn account(&self, name: &str) -> UserSid {
        let new = NewAccount {
            name: Some(name.to_owned()),
            password: Some("old password".to_owned()),
            ..NewAccount::default()
        };
        self.users.register(new).await.unwrap().1
    }

    async fn ask(&self, purpose: EmailPurpose, address: &str) -> String {
        let ask = ask(purpose, address, 1);
        self.validations.request(ask).await.unwrap()
    }

    /// The letters since it was last asked.
    async fn letters(&self) -> Vec<Letter> {
        while self.mailer.round(Urgency::Urgent).await.unwrap() == Round::Again {}
        std::mem::take(&mut *self.mailbox.0.lock().await)
    }

    /// The token in the one letter since it was last asked.
    async fn token(&self) -> String {
        let letters = self.letters().await;
        let [letter] = letters.as_slice() else {
            panic!("not one letter: {letters:?}");
        };
        let (_, after) = letter.text.split_once("&token=").unwrap();
        after.split_whitespace().next().unwrap().to_owned()
    }

    async fn validate(&self, purpose: EmailPurpose, address: &str) -> ValidatedEmail {
        let sid = self.ask(purpose, address).await;
        let token = self.token().await;
        let row = self.users.submit_token(&sid, &token, None).await.unwrap();
        assert!(row.is_some());
        self.users.validated(&sid, "secret", purpose).await.unwrap()
    }
}

fn ask(purpose: EmailPurpose, address: &str, attempt: u64) -> Ask {
    Ask {
        purpose,
        address: address.to_owned(),
        secret: "secret".to_owned(),
        attempt,
        next_link: None,
        languages: String::new(),
    }
}

fn is_not_validated<T: std::fmt::Debug>(outcome: Result<T, UsersError>) {
    assert!(
        matches!(outcome, Err(UsersError::EmailNotValidated)),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn an_address_is_validated_once_and_then_given_once() {
    let world = World::new().await;
    let (alice, add) = (world.account("alice").await, EmailPurpose::Add);
    let sid = world.ask(add, "Alice@Example.org").await;
    is_not_validated(world.users.validated(&sid, "secret", add).await);
    let letters = world.letters().await;
    let letter = letters.first().unwrap();
    assert_eq!(letter.to, "alice@example.org");
    let link = format!("https://matrix.example.org{PAGE}?sid={sid}&token=");
    let (_, token) = letter.text.split_once(&link).unwrap();
    let token = token.split_whitespace().next().unwrap();
    assert!(token.len() >= 22, "at least 128 bits");
    for wrong in ["", "x", token.to_lowercase().as_str()] {
        let row = world.users.submit_token(&sid, wrong, None).await.unwrap();
        assert_eq!(row, None);
    }
    let row = world.users.submit_token(&sid, token, Some("other")).await;
    assert_eq!(row.unwrap(), None, "another client's");
    // Looking changes nothing.
    for _ in 0..3 {
        assert!(world.users.linked(&sid, token).await.unwrap().is_some());
    }
    is_not_validated(world.users.validated(&sid, "secret", add).await);
    let row = world.users.submit_token(&sid, token, Some("secret")).await;
    assert!(row.unwrap().is_some());
    let row = world.users.submit_token(&sid, token, Some("secret")).await;
    assert_eq!(row.unwrap(), None, "once");
    is_not_validated(world.users.validated(&sid, "other", add).await);
    is_not_validated(
        world
            .users
            .validated(&sid, "secret", EmailPurpose::Password)
            .await,
    );
    let email = world.users.validated(&sid, "secret", add).await.unwrap();
    world.users.add_email(alice, &email).await.unwrap();
    is_not_validated(world.users.add_email(alice, &email).await);
    let emails = world.users.emails(alice).await.unwrap();
    assert_eq!(emails.first().unwrap().address, "alice@example.org");
    let owner = world.users.email_owner("ALICE@example.ORG").await.unwrap();
    assert_eq!(owner, Some(alice));
}

#[tokio::test]
async fn the_store_holds_neither_secret_nor_token() {
    let world = World::new().await;
    let ask = Ask {
        secret: "very-secret".to_owned(),
        ..ask(EmailPurpose::Register, "a@example.org", 1)
    };
    world.validations.request(ask).await.unwrap();
    let token = world.token().await;
    let view = world.store.view();
    let (key, row) = view
        .first(&schema::EMAIL_SESSIONS, Range::all(), Direction::Forward)
        .await
        .unwrap()
        .unwrap();
    let stored = format!("{key:?} {row:?}");
    assert!(!stored.contains("very-secret") && !stored.contains(&token));
}

#[tokio::test]
async fn a_link_works_for_an_hour_and_a_session_for_a_day() {
    let world = World::new().await;
    let register = EmailPurpose::Register;
    let sid = world.ask(register, "a@example.org").await;
    let token = world.token().await;
    world.clock.advance(HOUR);
    assert_eq!(
        world.users.submit_token(&sid, &token, None).await.unwrap(),
        None
    );
    let email = world.validate(register, "b@example.org").await;
    world.clock.advance(23 * HOUR);
    let sid = email.key.1.clone();
    assert!(
        world
            .users
            .validated(&sid, "secret", register)
            .await
            .is_ok()
    );
    world.clock.advance(HOUR + 1);
    is_not_validated(world.users.validated(&sid, "secret", register).await);
    // The next request sweeps both.
    world.ask(register, "c@example.org").await;
    let view = world.store.view();
    let sessions = view
        .range(&schema::EMAIL_SESSIONS, Range::all(), Direction::Forward, 9)
        .await
        .unwrap();
    let asked = view
        .range(
            &schema::EMAIL_SESSIONS_ASKED,
            Range::all(),
            Direction::Forward,
            9,
        )
        .await
        .unwrap();
    assert_eq!((sessions.len(), asked.len()), (1, 1));
}

#[tokio::test]
async fn an_attempt_gets_one_letter_and_the_newest_letter_counts() {
    let world = World::new().await;
    let request = |attempt| {
        let ask = ask(EmailPurpose::Register, "a@example.org", attempt);
        world.validations.request(ask)
    };
    let sid = request(1).await.unwrap();
    let first = world.token().await;
    assert_eq!(request(1).await.unwrap(), sid);
    assert_eq!(request(0).await.unwrap(), sid);
    assert_eq!(world.letters().await, []);
    assert_eq!(request(2).await.unwrap(), sid);
    let second = world.token().await;
    assert_eq!(
        world.users.submit_token(&sid, &first, None).await.unwrap(),
        None
    );
    assert!(
        world
            .users
            .submit_token(&sid, &second, None)
            .await
            .unwrap()
            .is_some()
    );
    // Validated already: no letter more.
    assert_eq!(request(3).await.unwrap(), sid);
    assert_eq!(world.letters().await, []);
    let (one, two) = tokio::join!(
        world
            .validations
            .request(ask(EmailPurpose::Register, "b@example.org", 1)),
        world
            .validations
            .request(ask(EmailPurpose::Register, "b@example.org", 1)),
    );
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(world.letters().await.len(), 1);
}

#[tokio::test]
async fn only_the_owner_of_an_address_hears_whether_it_has_an_account() {
    let world = World::new().await;
    let alice = world.account("alice").await;
    let email = world.validate(EmailPurpose::Add, "alice@example.org").await;
    world.users.add_email(alice, &email).await.unwrap();
    for purpose in [EmailPurpose::Register, EmailPurpose::Add] {
        let sid = world.ask(purpose, "alice@example.org").await;
        let letters = world.letters().await;
        let text = &letters.first().unwrap().text;
        assert!(
            !text.contains("token") && text.contains("already"),
            "{text}"
        );
        is_not_validated(world.users.validated(&sid, "secret", purpose).await);
    }
    world
        .ask(EmailPurpose::Password, "nobody@example.org")
        .await;
    assert_eq!(world.letters().await, []);
}

#[tokio::test]
async fn of_two_accounts_that_want_an_address_at_once_one_gets_it() {
    let world = World::new().await;
    let (alice, bob) = (world.account("alice").await, world.account("bob").await);
    let one = world.validate(EmailPurpose::Add, "same@example.org").await;
    let ask = Ask {
        secret: "secret2".to_owned(),
        ..ask(EmailPurpose::Add, "same@example.org", 1)
    };
    let sid = world.validations.request(ask).await.unwrap();
    let token = world.token().await;
    world.users.submit_token(&sid, &token, None).await.unwrap();
    let two = world.users.validated(&sid, "secret2", EmailPurpose::Add);
    let two = two.await.unwrap();
    let (first, second) = tokio::join!(
        world.users.add_email(alice, &one),
        world.users.add_email(bob, &two)
    );
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let refused = first.and(second).unwrap_err();
    assert!(matches!(refused, UsersError::EmailInUse), "{refused}");
}

#[tokio::test]
async fn of_two_registrations_with_one_validation_one_is_made() {
    let world = World::new().await;
    let email = world
        .validate(EmailPurpose::Register, "a@example.org")
        .await;
    let new = |name: &str| NewAccount {
        name: Some(name.to_owned()),
        email: Some(email.clone()),
        ..NewAccount::default()
    };
    let (one, two) = tokio::join!(
        world.users.register(new("one")),
        world.users.register(new("two"))
    );
    assert!(one.is_ok() != two.is_ok());
    let refused = one.and(two).unwrap_err();
    assert!(matches!(refused, UsersError::EmailInUse), "{refused}");
}

#[tokio::test]
async fn a_reset_password_is_new_and_its_validation_used_up() {
    let world = World::new().await;
    let alice = world.account("alice").await;
    let email = world.validate(EmailPurpose::Add, "alice@example.org").await;
    world.users.add_email(alice, &email).await.unwrap();
    let email = world
        .validate(EmailPurpose::Password, "alice@example.org")
        .await;
    let weak = world.users.reset_password(&email, "short".to_owned()).await;
    assert!(matches!(weak, Err(UsersError::WeakPassword)));
    let reset = world
        .users
        .reset_password(&email, "new password".to_owned());
    assert_eq!(reset.await.unwrap(), alice);
    let check = |password: &str| world.users.check_password(Some(alice), password.to_owned());
    assert!(check("new password").await.unwrap() && !check("old password").await.unwrap());
    let again = world
        .users
        .reset_password(&email, "other password".to_owned());
    is_not_validated(again.await);
}

#[tokio::test]
async fn an_account_that_ends_lets_its_addresses_go() {
    let world = World::new().await;
    let alice = world.account("alice").await;
    let email = world.validate(EmailPurpose::Add, "alice@example.org").await;
    world.users.add_email(alice, &email).await.unwrap();
    let reset = world
        .validate(EmailPurpose::Password, "alice@example.org")
        .await;
    let more = world.validate(EmailPurpose::Add, "more@example.org").await;
    world.users.deactivate(alice, false).await.unwrap();
    assert_eq!(world.users.emails(alice).await.unwrap(), []);
    assert_eq!(
        world.users.email_owner("alice@example.org").await.unwrap(),
        None
    );
    is_not_validated(
        world
            .users
            .reset_password(&reset, "new password".to_owned())
            .await,
    );
    let late = world.users.add_email(alice, &more).await;
    assert!(matches!(late, Err(UsersError::Deactivated)), "{late:?}");
    let bob = world.account("bob").await;
    let email = world
        .validate(EmailPurpose::Register, "alice@example.org")
        .await;
    world.users.add_email(bob, &email).await.unwrap();
    assert!(
        !world
            .users
            .remove_email(alice, "alice@example.org")
            .await
            .unwrap()
    );
    assert!(
        world
            .users
            .remove_email(bob, "Alice@example.org")
            .await
            .unwrap()
    );
    assert!(
        !world
            .users
            .remove_email(bob, "alice@example.org")
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_sends_nothing() {
    let world = World::new().await;
    let good = ask(EmailPurpose::Register, "a@example.org", 1);
    let bad = [
        Ask {
            address: "no address".to_owned(),
            ..good.clone()
        },
        Ask {
            address: "a@example.org\r\nBcc: b@example.org".to_owned(),
            ..good.clone()
        },
        Ask {
            secret: String::new(),
            ..good.clone()
        },
        Ask {
            secret: "a b".to_owned(),
            ..good.clone()
        },
        Ask {
            secret: "a".repeat(256),
            ..good.clone()
        },
        Ask {
            next_link: Some("javascript:alert(1)".to_owned()),
            ..good.clone()
        },
    ];
    for ask in bad {
        let refused = world.validations.request(ask.clone()).await.unwrap_err();
        assert!(
            matches!(refused, UsersError::BadEmail | UsersError::BadValidation(_)),
            "{ask:?}: {refused}"
        );
    }
    assert_eq!(world.letters().await, []);
    for sid in [
        "",
        ".",
        "x",
        "99999999999999999999999.x",
        "1800000000001.\0",
    ] {
        assert_eq!(
            world.users.submit_token(sid, "x", None).await.unwrap(),
            None
        );
    }
}
