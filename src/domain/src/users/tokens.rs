//! Access tokens and refresh tokens. Only their SHA-256 is stored: who reads the store cannot log in with it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens>: a refreshed token's predecessor stays
//! valid until the new access token is first used, so that an answer that is lost costs no session.

use std::sync::{Arc, atomic::Ordering};

use ruma::{OwnedDeviceId, OwnedUserId};
use sha2::{Digest, Sha256};
use vatra_store::{Batch, CommitError, Direction, Range};

use super::{
    AuthFailure, Known, Requester, Users, UsersError,
    devices::{check_id, check_name},
};
use crate::{
    e2ee, random,
    schema::{self, DeviceRow, RefreshRow, TokenRow, UserSid},
};

/// How long an access token lives that came with a refresh token, in milliseconds.
pub const ACCESS_LIFETIME_MS: u64 = 60 * 60 * 1000;

/// What a client asks for at login.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// Its device; a new one if there is none.
    pub device: Option<OwnedDeviceId>,
    /// The name of a new device.
    pub display_name: Option<String>,
    /// Whether it can refresh its token; then the token ends.
    pub refresh: bool,
}

/// What a client gets.
#[derive(Debug, Clone)]
pub struct Session {
    /// Who.
    pub user: OwnedUserId,
    /// The device.
    pub device: OwnedDeviceId,
    /// The access token.
    pub access_token: String,
    /// The refresh token, if the client can use one.
    pub refresh_token: Option<String>,
    /// For how long the access token is valid, in milliseconds.
    pub expires_in_ms: Option<u64>,
}

impl Login {
    /// Whether a device can have that id and name: to be asked before an account is made for it.
    ///
    /// # Errors
    /// [`UsersError::BadDeviceId`], [`UsersError::DeviceNameTooLong`].
    pub fn check(&self) -> Result<(), UsersError> {
        if let Some(device) = &self.device {
            check_id(device.as_str())?;
        }
        check_name(self.display_name.as_deref())
    }
}

impl Users {
    /// Who a token stands for. From memory after the first time.
    ///
    /// # Errors
    /// [`AuthFailure::Locked`] if the account is locked.
    pub async fn authenticate(&self, token: &str) -> Result<Requester, AuthFailure> {
        let known = self.known(token).await?;
        if known.locked {
            return Err(AuthFailure::Locked);
        }
        Ok(known.requester.clone())
    }

    /// The same for what a user may do though the account is locked: log out.
    pub async fn authenticate_even_locked(&self, token: &str) -> Result<Requester, AuthFailure> {
        Ok(self.known(token).await?.requester.clone())
    }

    async fn known(&self, token: &str) -> Result<Arc<Known>, AuthFailure> {
        let hash = hash(token);
        let known = match self.inner.tokens.get(&hash) {
            Some(known) => known,
            None => self.read_token(hash).await?,
        };
        if known
            .row
            .expires
            .is_some_and(|expires| expires <= self.now())
        {
            return Err(AuthFailure::Expired);
        }
        Ok(known)
    }

    /// A token's first use in this process: from now on the one it replaced is void.
    async fn read_token(&self, hash: [u8; 32]) -> Result<Arc<Known>, AuthFailure> {
        let removals = self.inner.removals.load(Ordering::Acquire);
        let view = self.inner.store.view();
        let row = view
            .get(&schema::TOKENS, &hash)
            .await?
            .ok_or(AuthFailure::Unknown)?;
        let account = view
            .get(&schema::ACCOUNTS, &row.user)
            .await?
            .ok_or(AuthFailure::Unknown)?;
        let user = self
            .inner
            .ids
            .user_id(row.user)
            .await?
            .ok_or(AuthFailure::Unknown)?;
        if account.deactivated {
            return Err(AuthFailure::Unknown);
        }
        if let Some(old) = row.replaces
            && let Some(refresh) = view.get(&schema::REFRESH_TOKENS, &old).await?
        {
            let mut batch = Batch::new();
            batch.delete(&schema::REFRESH_TOKENS, &old);
            self.remove_token(&mut batch, row.user, &refresh.device, refresh.access);
            // Best kept, not needed for this answer: the next use tries again.
            drop(self.inner.store.submit(batch));
        }
        let requester = Requester {
            user,
            sid: row.user,
            device: Some(OwnedDeviceId::from(row.device.clone())),
            admin: account.admin,
            service: None,
            suspended: account.flags.suspended,
            guest: view.contains(&schema::GUESTS, &row.user).await?,
        };
        let known = Arc::new(Known {
            row,
            requester,
            locked: account.flags.locked,
        });
        if self.inner.removals.load(Ordering::Acquire) == removals {
            self.inner.tokens.insert(hash, Arc::clone(&known));
        }
        Ok(known)
    }

    /// Logs a user in: a device, a token, maybe a refresh token. The device's earlier tokens end.
    ///
    /// # Errors
    /// [`UsersError::Locked`], and what [`Login::check`] says.
    pub async fn login(
        &self,
        user: OwnedUserId,
        sid: UserSid,
        login: Login,
    ) -> Result<Session, UsersError> {
        login.check()?;
        self.must_not_be_locked(sid).await?;
        let random = &*self.inner.random;
        let device = login
            .device
            .map_or_else(|| random::device_id(random), |device| device.to_string());
        let view = self.inner.store.view();
        let mut batch = Batch::new();
        match view.get(&schema::DEVICES, &(sid, device.clone())).await? {
            Some(_) => self.remove_tokens_of(&mut batch, sid, &device).await?,
            None => {
                self.check_new_device(&view, sid, &device).await?;
                // A message that was under way when an earlier device of this id went is not for this one.
                e2ee::forget_device(&view, &mut batch, sid, &device).await?;
                let row = DeviceRow {
                    display_name: login.display_name,
                    last_seen: None,
                    last_seen_ip: None,
                };
                batch.put(&schema::DEVICES, &(sid, device.clone()), &row);
                batch.wake(schema::topic::user(sid));
            }
        }
        let session = self.issue(&mut batch, user, sid, device, login.refresh, None);
        self.inner.store.write(batch).await?;
        Ok(session)
    }

    /// New tokens for a refresh token. The old ones stay until the new access token is used.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Session, UsersError> {
        let old = hash(refresh_token);
        let view = self.inner.store.view();
        let row = view
            .get(&schema::REFRESH_TOKENS, &old)
            .await?
            .ok_or(UsersError::UnknownRefreshToken)?;
        self.must_not_be_locked(row.user).await?;
        let user = self
            .inner
            .ids
            .user_id(row.user)
            .await?
            .ok_or(UsersError::UnknownRefreshToken)?;
        let mut batch = Batch::new();
        batch.assert_equals(&schema::REFRESH_TOKENS, &old, &row);
        let session = self.issue(&mut batch, user, row.user, row.device, true, Some(old));
        match self.inner.store.write(batch).await {
            Ok(_) => Ok(session),
            // It was used up, or its device logged out, a moment ago.
            Err(CommitError::AssertFailed) => Err(UsersError::UnknownRefreshToken),
            Err(error) => Err(error.into()),
        }
    }

    fn issue(
        &self,
        batch: &mut Batch,
        user: OwnedUserId,
        sid: UserSid,
        device: String,
        refresh: bool,
        replaces: Option<[u8; 32]>,
    ) -> Session {
        let random = &*self.inner.random;
        let access_token = format!("vat_{}", random::token(random, 43));
        let refresh_token = refresh.then(|| format!("vrt_{}", random::token(random, 43)));
        let access = hash(&access_token);
        let expires = refresh.then(|| self.now().saturating_add(ACCESS_LIFETIME_MS));
        let row = TokenRow {
            user: sid,
            device: device.clone(),
            expires,
            refresh: refresh_token.as_deref().map(hash),
            replaces,
        };
        batch.put(&schema::TOKENS, &access, &row);
        batch.put(&schema::DEVICE_TOKENS, &(sid, device.clone(), access), &());
        if let Some(refresh) = row.refresh {
            let row = RefreshRow {
                user: sid,
                device: device.clone(),
                access,
            };
            batch.put(&schema::REFRESH_TOKENS, &refresh, &row);
        }
        Session {
            user,
            device: OwnedDeviceId::from(device),
            access_token,
            refresh_token,
            expires_in_ms: refresh.then_some(ACCESS_LIFETIME_MS),
        }
    }

    /// Ends a device: its tokens, its keys and unread messages, its pushers, and the device itself.
    pub async fn logout(&self, user: UserSid, device: &str) -> Result<(), UsersError> {
        loop {
            let mut batch = Batch::new();
            self.remove_tokens_of(&mut batch, user, device).await?;
            let view = self.inner.store.view();
            e2ee::forget_device(&view, &mut batch, user, device).await?;
            self.forget_settings_of(&view, &mut batch, user, device)
                .await?;
            self.forget_pushers_of(&view, &mut batch, user, device)
                .await?;
            batch.delete(&schema::DEVICES, &(user, device.to_owned()));
            batch.wake(schema::topic::user(user));
            match self.inner.store.write(batch).await {
                // Its user has changed something of it meanwhile.
                Err(CommitError::AssertFailed) => {}
                other => return other.map(|_| ()).map_err(Into::into),
            }
        }
    }

    /// Ends all devices but `keep`.
    pub async fn logout_all(&self, user: UserSid, keep: Option<&str>) -> Result<(), UsersError> {
        let view = self.inner.store.view();
        let range = Range::prefix(&(user,));
        let devices = view
            .range(&schema::DEVICES, range, Direction::Forward, usize::MAX)
            .await?;
        for ((_, device), _) in devices {
            if Some(device.as_str()) != keep {
                self.logout(user, &device).await?;
            }
        }
        Ok(())
    }

    async fn remove_tokens_of(
        &self,
        batch: &mut Batch,
        user: UserSid,
        device: &str,
    ) -> Result<(), UsersError> {
        let view = self.inner.store.view();
        let range = Range::prefix(&(user, device.to_owned()));
        let tokens = view
            .range(
                &schema::DEVICE_TOKENS,
                range,
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        for ((_, _, token), ()) in tokens {
            if let Some(refresh) = view
                .get(&schema::TOKENS, &token)
                .await?
                .and_then(|row| row.refresh)
            {
                batch.delete(&schema::REFRESH_TOKENS, &refresh);
            }
            self.remove_token(batch, user, device, token);
        }
        Ok(())
    }

    fn remove_token(&self, batch: &mut Batch, user: UserSid, device: &str, token: [u8; 32]) {
        batch.delete(&schema::TOKENS, &token);
        batch.delete(&schema::DEVICE_TOKENS, &(user, device.to_owned(), token));
        let inner = Arc::clone(&self.inner);
        batch.then(move |_| {
            inner.removals.fetch_add(1, Ordering::AcqRel);
            inner.tokens.remove(&token);
        });
    }

    /// Makes the next use of any token read its account again.
    pub(super) fn forget_tokens_of(&self, user: UserSid) {
        self.inner.removals.fetch_add(1, Ordering::AcqRel);
        self.inner
            .tokens
            .retain(|_, known| known.requester.sid != user);
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
