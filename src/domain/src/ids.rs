//! Interning: users, rooms and state keys get short numbers once, so that keys are short and sets are sets of integers.
//!
//! Everyone who writes rows calls [`Ids`]. An id that is handed out is durable: interning a new name waits for its
//! rows, so that no later batch can mention a number that a crash has forgotten. Event ids are not interned here:
//! `rooms` writes them in the batch that stores the event.

use std::{hash::Hash, sync::Arc};

use quick_cache::sync::Cache;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use vatra_store::{Batch, CommitError, Key, Map, Store, StoreError, Value, View};

use crate::schema::{self, RoomSid, StateKeySid, UserSid};

/// Why a name could not be interned.
#[derive(Debug, thiserror::Error)]
pub enum IdError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take the rows.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// An event type and a state key.
pub type StateKeyName = Arc<(String, String)>;

/// The names and numbers of users, rooms and state keys. Cheap to clone.
#[derive(Clone)]
pub struct Ids {
    store: Store,
    users: Arc<Names<OwnedUserId, UserSid>>,
    rooms: Arc<Names<OwnedRoomId, RoomSid>>,
    state_keys: Arc<Names<StateKeyName, StateKeySid>>,
}

impl Ids {
    /// Names of `store`; each of the three caches keeps at most `capacity` names.
    pub fn new(store: Store, capacity: usize) -> Self {
        Self {
            store,
            users: Arc::new(Names::new(capacity)),
            rooms: Arc::new(Names::new(capacity)),
            state_keys: Arc::new(Names::new(capacity)),
        }
    }

    /// Reads names and numbers anew from now on.
    pub fn forget(&self) {
        self.users.forget();
        self.rooms.forget();
        self.state_keys.forget();
    }

    /// The number of a user, if this server has ever heard of them.
    pub async fn user(&self, user: &UserId) -> Result<Option<UserSid>, StoreError> {
        let view = self.store.view();
        self.users
            .find(
                &view,
                &user.to_owned(),
                &schema::USER_SIDS,
                &user.as_str().to_owned(),
            )
            .await
    }

    /// The number of a user, given out now if need be.
    pub async fn intern_user(&self, user: &UserId) -> Result<UserSid, IdError> {
        let rows = Rows {
            forward: &schema::USER_SIDS,
            backward: &schema::USER_IDS,
        };
        self.users
            .intern(
                &self.store,
                user.to_owned(),
                user.as_str().to_owned(),
                rows,
                UserSid,
            )
            .await
    }

    /// Gives numbers to many users at once, so that [`Ids::intern_user`] finds them.
    pub async fn intern_users(&self, users: &[OwnedUserId]) -> Result<(), IdError> {
        let rows = Rows {
            forward: &schema::USER_SIDS,
            backward: &schema::USER_IDS,
        };
        let names = users
            .iter()
            .map(|user| (user.clone(), user.as_str().to_owned()));
        self.users
            .intern_many(&self.store, names.collect(), rows, UserSid)
            .await
    }

    /// The user id behind a number; `None` for a number that was never given out.
    pub async fn user_id(&self, sid: UserSid) -> Result<Option<OwnedUserId>, StoreError> {
        let parse = |name: String| UserId::parse(name).ok();
        self.users
            .name(&self.store.view(), sid, &schema::USER_IDS, parse)
            .await
    }

    /// The number of a room, if this server knows the room.
    pub async fn room(&self, room: &RoomId) -> Result<Option<RoomSid>, StoreError> {
        let view = self.store.view();
        self.rooms
            .find(
                &view,
                &room.to_owned(),
                &schema::ROOM_SIDS,
                &room.as_str().to_owned(),
            )
            .await
    }

    /// The room id behind a number.
    pub async fn room_id(&self, sid: RoomSid) -> Result<Option<OwnedRoomId>, StoreError> {
        let parse = |row: schema::RoomRow| RoomId::parse(row.room_id).ok();
        self.rooms
            .name(&self.store.view(), sid, &schema::ROOMS, parse)
            .await
    }

    /// The number of an (event type, state key), if any room has ever had it.
    pub async fn state_key(
        &self,
        kind: &str,
        key: &str,
    ) -> Result<Option<StateKeySid>, StoreError> {
        let name = (kind.to_owned(), key.to_owned());
        self.state_keys
            .find(
                &self.store.view(),
                &Arc::new(name.clone()),
                &schema::STATE_KEY_SIDS,
                &name,
            )
            .await
    }

    /// The number of an (event type, state key), given out now if need be.
    pub async fn intern_state_key(&self, kind: &str, key: &str) -> Result<StateKeySid, IdError> {
        let name = (kind.to_owned(), key.to_owned());
        let rows = Rows {
            forward: &schema::STATE_KEY_SIDS,
            backward: &schema::STATE_KEYS,
        };
        self.state_keys
            .intern(&self.store, Arc::new(name.clone()), name, rows, StateKeySid)
            .await
    }

    /// Gives numbers to many (event type, state key) at once, so that [`Ids::intern_state_key`] finds them.
    pub async fn intern_state_keys(&self, keys: &[(String, String)]) -> Result<(), IdError> {
        let rows = Rows {
            forward: &schema::STATE_KEY_SIDS,
            backward: &schema::STATE_KEYS,
        };
        let names = keys.iter().map(|key| (Arc::new(key.clone()), key.clone()));
        self.state_keys
            .intern_many(&self.store, names.collect(), rows, StateKeySid)
            .await
    }

    /// The event type and state key behind a number.
    pub async fn state_key_name(
        &self,
        sid: StateKeySid,
    ) -> Result<Option<StateKeyName>, StoreError> {
        self.state_keys
            .name(&self.store.view(), sid, &schema::STATE_KEYS, |name| {
                Some(Arc::new(name))
            })
            .await
    }
}

/// The two maps of a kind of name.
struct Rows<'a, N, S> {
    forward: &'a Map<N, S>,
    backward: &'a Map<S, N>,
}

/// One kind of name, cached both ways.
struct Names<N, S> {
    sids: Cache<N, S>,
    names: Cache<S, N>,
}

impl<N, S> Names<N, S>
where
    N: Clone + Eq + Hash,
    S: Copy + Eq + Hash + Key + Value,
{
    fn new(capacity: usize) -> Self {
        Self {
            sids: Cache::new(capacity),
            names: Cache::new(capacity),
        }
    }

    fn forget(&self) {
        self.sids.clear();
        self.names.clear();
    }

    async fn find<R: Key>(
        &self,
        view: &View,
        name: &N,
        map: &Map<R, S>,
        row: &R,
    ) -> Result<Option<S>, StoreError> {
        if let Some(sid) = self.sids.get(name) {
            return Ok(Some(sid));
        }
        let found = view.get(map, row).await?;
        if let Some(sid) = found {
            self.sids.insert(name.clone(), sid);
        }
        Ok(found)
    }

    async fn name<R: Value>(
        &self,
        view: &View,
        sid: S,
        map: &Map<S, R>,
        parse: impl FnOnce(R) -> Option<N>,
    ) -> Result<Option<N>, StoreError> {
        if let Some(name) = self.names.get(&sid) {
            return Ok(Some(name));
        }
        let name = view.get(map, &sid).await?.and_then(parse);
        if let Some(name) = &name {
            self.names.insert(sid, name.clone());
        }
        Ok(name)
    }

    /// Many names in few batches. When another caller is faster with one of them, each is interned by itself.
    async fn intern_many<R: Key + Value + Clone>(
        &self,
        store: &Store,
        names: Vec<(N, R)>,
        maps: Rows<'_, R, S>,
        make: fn(u64) -> S,
    ) -> Result<(), IdError> {
        for chunk in names.chunks(500) {
            let rows: Vec<R> = chunk.iter().map(|(_, row)| row.clone()).collect();
            let known = store.view().get_many(maps.forward, &rows).await?;
            let mut batch = Batch::new();
            let mut new = Vec::new();
            let mut seen = std::collections::HashSet::new();
            for ((name, row), known) in chunk.iter().zip(known) {
                if known.is_some() || !seen.insert(name) {
                    continue;
                }
                let sid = make(store.fresh_id()?);
                batch.assert_absent(maps.forward, row);
                batch.put(maps.forward, row, &sid);
                batch.put(maps.backward, &sid, row);
                new.push((name, sid));
            }
            if batch.is_empty() {
                continue;
            }
            match store.write(batch).await {
                Ok(_) => {
                    for (name, sid) in new {
                        self.sids.insert(name.clone(), sid);
                    }
                }
                Err(CommitError::AssertFailed) => {
                    for (name, row) in chunk {
                        let rows = Rows {
                            forward: maps.forward,
                            backward: maps.backward,
                        };
                        self.intern(store, name.clone(), row.clone(), rows, make)
                            .await?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Two callers may race for a new name: the rows assert that it is absent, and the loser reads the winner's.
    async fn intern<R: Key + Value>(
        &self,
        store: &Store,
        name: N,
        row: R,
        maps: Rows<'_, R, S>,
        make: fn(u64) -> S,
    ) -> Result<S, IdError> {
        loop {
            if let Some(sid) = self.find(&store.view(), &name, maps.forward, &row).await? {
                return Ok(sid);
            }
            let sid = make(store.fresh_id()?);
            let mut batch = Batch::new();
            batch.assert_absent(maps.forward, &row);
            batch.put(maps.forward, &row, &sid);
            batch.put(maps.backward, &sid, &row);
            match store.write(batch).await {
                Ok(_) => self.sids.insert(name.clone(), sid),
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
