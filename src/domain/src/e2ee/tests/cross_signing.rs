//! Cross-signing keys, who signed what, and who may see it.

use super::*;

/// A user's three keys.
struct Keys {
    user: OwnedUserId,
    master: SigningKey,
    self_signing: SigningKey,
    user_signing: SigningKey,
}

impl Keys {
    fn new(of: &Device) -> Self {
        Self {
            user: of.user.clone(),
            master: SigningKey::new("master"),
            self_signing: SigningKey::new("self_signing"),
            user_signing: SigningKey::new("user_signing"),
        }
    }

    fn upload(&self) -> SigningKeys {
        let signed = |key: &SigningKey| self.master.sign(key.object(&self.user), &self.user);
        SigningKeys {
            master: Some(raw(&self.master.object(&self.user))),
            self_signing: Some(raw(&signed(&self.self_signing))),
            user_signing: Some(raw(&signed(&self.user_signing))),
        }
    }
}

impl World {
    async fn sign_up(&self, device: &Device, keys: &SigningKeys, authenticated: bool) -> Uploaded {
        self.try_sign_up(device, keys, authenticated).await.unwrap()
    }

    async fn try_sign_up(
        &self,
        device: &Device,
        keys: &SigningKeys,
        authenticated: bool,
    ) -> Result<Uploaded, E2eeError> {
        self.e2ee
            .upload_signing_keys(&device.user, device.sid, keys, authenticated)
            .await
    }

    /// Uploads one signed object; gives the failure.
    async fn add(
        &self,
        signer: &Device,
        of: &Device,
        name: &str,
        object: &Value,
    ) -> Option<Failure> {
        let objects = BTreeMap::from([(name.to_owned(), raw(object))]);
        let objects = SignedObjects::from([(of.user.clone(), objects)]);
        let failures = self
            .e2ee
            .upload_signatures(&signer.user, signer.sid, &objects)
            .await
            .unwrap();
        failures.get(&of.user).and_then(|of| of.get(name)).cloned()
    }
}

#[tokio::test]
async fn the_first_keys_and_the_same_keys_need_no_authentication_and_others_do() {
    let world = world().await;
    let alice = world.user("alice").await;
    let keys = Keys::new(&alice);
    assert_eq!(
        world.sign_up(&alice, &keys.upload(), false).await,
        Uploaded::Done
    );
    assert_eq!(
        world.sign_up(&alice, &keys.upload(), false).await,
        Uploaded::Done
    );
    let only_master = SigningKeys {
        master: keys.upload().master,
        ..SigningKeys::default()
    };
    assert_eq!(
        world.sign_up(&alice, &only_master, false).await,
        Uploaded::Done
    );

    let mut replaced = Keys::new(&alice);
    replaced.master = SigningKey {
        secret: Ed25519SecretKey::from_slice(&keys.master.secret.to_bytes()),
        ..SigningKey::new("master")
    };
    let new = SigningKeys {
        self_signing: replaced.upload().self_signing,
        ..SigningKeys::default()
    };
    let wanted = Uploaded::NeedsAuthentication;
    assert_eq!(world.sign_up(&alice, &new, false).await, wanted);
    let shown = world.keys(&alice, &alice).await.self_signing.unwrap();
    assert!(shown.get().contains(&keys.self_signing.public()), "not yet");
    assert_eq!(world.sign_up(&alice, &new, true).await, Uploaded::Done);
    let shown = world.keys(&alice, &alice).await.self_signing.unwrap();
    assert!(shown.get().contains(&replaced.self_signing.public()));
}

#[tokio::test]
async fn a_new_master_key_ends_what_the_old_one_had_signed() {
    let world = world().await;
    let alice = world.user("alice").await;
    let keys = Keys::new(&alice);
    world.sign_up(&alice, &keys.upload(), false).await;
    let other = Keys::new(&alice);
    let master = SigningKeys {
        master: other.upload().master,
        ..SigningKeys::default()
    };
    world.sign_up(&alice, &master, true).await;
    let shown = world.keys(&alice, &alice).await;
    assert!(shown.master.unwrap().get().contains(&other.master.public()));
    assert!(shown.self_signing.is_none() && shown.user_signing.is_none());
}

#[tokio::test]
async fn what_cannot_be_cross_signing_keys_is_refused() {
    let world = world().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let keys = Keys::new(&alice);
    let none = SigningKeys {
        self_signing: keys.upload().self_signing,
        ..SigningKeys::default()
    };
    let refused = world.try_sign_up(&alice, &none, true).await.unwrap_err();
    assert!(matches!(refused, E2eeError::NoMasterKey), "{refused}");
    let refused = world
        .try_sign_up(&bob, &keys.upload(), true)
        .await
        .unwrap_err();
    assert!(matches!(refused, E2eeError::InvalidParam(_)), "{refused}");

    let with = |change: &dyn Fn(&mut Value)| {
        let mut master = keys.master.object(&alice.user);
        change(&mut master);
        SigningKeys {
            master: Some(raw(&master)),
            ..SigningKeys::default()
        }
    };
    let id = keys.master.key_id();
    let unlike = Ed25519SecretKey::new().public_key().to_base64();
    for bad in [
        with(&|key| key["usage"] = json!(["self_signing"])),
        with(&|key| key["usage"] = json!("master")),
        with(&|key| key["keys"] = json!({})),
        with(&|key| key["keys"]["ed25519:other"] = json!(unlike)),
        with(&|key| key["keys"] = json!({ id.clone(): unlike })),
        with(&|key| key["keys"][&id] = json!("short")),
    ] {
        assert!(
            world.try_sign_up(&alice, &bad, true).await.is_err(),
            "{bad:?}"
        );
    }
    let mut wrong = keys.upload();
    let stranger = Keys::new(&alice);
    wrong.user_signing = stranger.upload().user_signing;
    let refused = world.try_sign_up(&alice, &wrong, true).await.unwrap_err();
    assert!(
        matches!(refused, E2eeError::InvalidSignature(_)),
        "{refused}"
    );
    assert!(world.keys(&alice, &alice).await.master.is_none());
}

#[tokio::test]
async fn no_device_and_cross_signing_key_share_a_name() {
    let world = world().await;
    let alice = world.user("alice").await;
    let keys = Keys::new(&alice);
    let login = |name: String| {
        let login = Login {
            device: Some(name.into()),
            ..Login::default()
        };
        world.users.login(alice.user.clone(), alice.sid, login)
    };
    login(keys.master.public()).await.unwrap();
    let refused = world
        .try_sign_up(&alice, &keys.upload(), false)
        .await
        .unwrap_err();
    assert!(matches!(refused, E2eeError::IdInUse), "{refused}");
    let keys = Keys::new(&alice);
    world.sign_up(&alice, &keys.upload(), false).await;
    assert!(login(keys.self_signing.public()).await.is_err());
}

#[tokio::test]
async fn a_signed_device_is_shown_signed_until_the_signing_key_changes() {
    let world = world().await;
    let (mut alice, bob) = (world.user("alice").await, world.user("bob").await);
    let upload = alice.everything(0);
    world.upload(&alice, upload).await.unwrap();
    let keys = Keys::new(&alice);
    world.sign_up(&alice, &keys.upload(), false).await;
    let signed = keys.self_signing.sign(alice.keys(), &alice.user);
    assert_eq!(world.add(&alice, &alice, &alice.id, &signed).await, None);
    assert_eq!(world.shown(&bob, &alice).await, signed);
    // The device repeats its upload without that signature: it stays.
    let upload = alice.everything(0);
    world.upload(&alice, upload).await.unwrap();
    assert_eq!(world.shown(&bob, &alice).await, signed);
    let other = Keys::new(&alice);
    world.sign_up(&alice, &other.upload(), true).await;
    assert_eq!(world.shown(&bob, &alice).await, alice.keys());
}

#[tokio::test]
async fn a_master_key_signed_by_a_device_is_shown_so_to_everyone() {
    let world = world().await;
    let (mut alice, bob) = (world.user("alice").await, world.user("bob").await);
    let upload = alice.everything(0);
    world.upload(&alice, upload).await.unwrap();
    let keys = Keys::new(&alice);
    world.sign_up(&alice, &keys.upload(), false).await;
    let signed = alice.sign(keys.master.object(&alice.user));
    let name = keys.master.public();
    assert_eq!(world.add(&alice, &alice, &name, &signed).await, None);
    let shown = json_of(&world.keys(&bob, &alice).await.master.unwrap());
    assert_eq!(shown, signed);
}

#[tokio::test]
async fn whom_one_has_verified_is_seen_by_oneself_only() {
    let world = world().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let carol = world.user("carol").await;
    let (of_alice, of_bob) = (Keys::new(&alice), Keys::new(&bob));
    world.sign_up(&alice, &of_alice.upload(), false).await;
    world.sign_up(&bob, &of_bob.upload(), false).await;
    let since = world.store.watermark();
    let name = of_bob.master.public();
    let object = of_bob.master.object(&bob.user);
    let signed = of_alice.user_signing.sign(object.clone(), &alice.user);
    assert_eq!(world.add(&alice, &bob, &name, &signed).await, None);
    let master = async |viewer: &Device| json_of(&world.keys(viewer, &bob).await.master.unwrap());
    assert_eq!(master(&alice).await, signed);
    let mut plain = object;
    plain["signatures"] = json!({});
    for viewer in [&bob, &carol] {
        assert_eq!(master(viewer).await, plain, "{}", viewer.user);
    }
    let seen = world.keys(&alice, &bob).await;
    assert!(seen.self_signing.is_some() && seen.user_signing.is_none());
    assert!(world.keys(&bob, &bob).await.user_signing.is_some());
    let view = world.store.view();
    let upto = view.watermark();
    let told = world.e2ee.signed_between(&view, alice.sid, since, upto);
    assert_eq!(
        told.await.unwrap(),
        [bob.sid],
        "alice's other devices want to know"
    );
    let told = world.e2ee.changed_between(&view, since, upto);
    assert_eq!(told.await.unwrap(), [], "and nobody else may");
    // Another user-signing key: what the old one signed is no longer shown.
    let other = Keys::new(&alice);
    world.sign_up(&alice, &other.upload(), true).await;
    assert_eq!(master(&alice).await, plain);
}

#[tokio::test]
async fn each_wrong_signature_fails_by_itself() {
    let world = world().await;
    let (mut alice, bob) = (world.user("alice").await, world.user("bob").await);
    let upload = alice.everything(0);
    world.upload(&alice, upload).await.unwrap();
    let (keys, of_bob) = (Keys::new(&alice), Keys::new(&bob));
    world.sign_up(&alice, &keys.upload(), false).await;
    world.sign_up(&bob, &of_bob.upload(), false).await;
    let invalid = |failure: Option<Failure>| matches!(failure, Some(Failure::InvalidSignature(_)));

    let mut forged = keys.self_signing.sign(alice.keys(), &alice.user);
    forged["signatures"][alice.user.as_str()][keys.self_signing.key_id()] =
        json!(keys.user_signing.secret.sign(b"something else").to_base64());
    assert!(invalid(world.add(&alice, &alice, &alice.id, &forged).await));
    let mut changed = alice.keys();
    changed["algorithms"] = json!([]);
    let changed = keys.self_signing.sign(changed, &alice.user);
    assert!(invalid(
        world.add(&alice, &alice, &alice.id, &changed).await
    ));
    let by_stranger = of_bob
        .self_signing
        .sign(keys.master.object(&alice.user), &alice.user);
    let name = keys.master.public();
    assert!(invalid(
        world.add(&alice, &alice, &name, &by_stranger).await
    ));
    // Bob may not sign for Alice, nor add to her devices.
    let signed = keys.self_signing.sign(alice.keys(), &alice.user);
    let failure = world.add(&bob, &alice, &alice.id, &signed).await;
    assert_eq!(failure, Some(Failure::NotFound));
    let failure = world.add(&bob, &alice, &name, &by_stranger).await;
    assert!(invalid(failure));
    let failure = world.add(&alice, &alice, "NONE", &signed).await;
    assert_eq!(failure, Some(Failure::NotFound));
    let failure = world
        .add(&alice, &alice, &alice.id, &json!({ "signatures": 7 }))
        .await;
    assert!(matches!(failure, Some(Failure::BadJson(_))));
    assert_eq!(world.add(&alice, &alice, &alice.id, &signed).await, None);
}

#[tokio::test]
async fn a_deactivated_account_has_no_keys_left() {
    let world = world().await;
    let (mut alice, bob) = (world.user("alice").await, world.user("bob").await);
    let upload = alice.everything(2);
    world.upload(&alice, upload).await.unwrap();
    world
        .sign_up(&alice, &Keys::new(&alice).upload(), false)
        .await;
    world.users.deactivate(alice.sid, false).await.unwrap();
    let shown = world.keys(&bob, &alice).await;
    assert!(shown.devices.is_empty() && shown.master.is_none());
}
