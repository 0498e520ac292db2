//! Tokens that prove to a third party who someone is, and nothing else.
//! <https://spec.matrix.org/v1.19/client-server-api/#openid>

use ruma::OwnedUserId;
use sha2::{Digest, Sha256};
use vatra_store::{Batch, Range};

use super::{Users, UsersError};
use crate::{
    clock::Millis,
    random::token,
    schema::{self, UserSid},
};

/// How long a token lives, in milliseconds.
pub const OPENID_LIFE_MS: Millis = 3_600_000;

impl Users {
    /// A new token; the expired ones of everybody go with it. Only its hash is stored.
    pub async fn issue_openid(&self, user: UserSid) -> Result<String, UsersError> {
        let now = self.now();
        let expires = now.saturating_add(OPENID_LIFE_MS);
        let token = format!("{expires}_{}", token(&**self.random(), 32));
        let mut batch = Batch::new();
        batch.delete_range(&schema::OPENID_TOKENS, Range::all().before(&(now, [0; 32])));
        batch.put(&schema::OPENID_TOKENS, &(expires, hash(&token)), &user);
        self.inner.store.write(batch).await?;
        Ok(token)
    }

    /// Whose a token is; `None` once it has expired or its user is gone.
    pub async fn openid_user(&self, token: &str) -> Result<Option<OwnedUserId>, UsersError> {
        let expires = token
            .split_once('_')
            .and_then(|(expires, _)| expires.parse().ok());
        let Some(expires) = expires.filter(|expires: &Millis| *expires > self.now()) else {
            return Ok(None);
        };
        let view = self.inner.store.view();
        let Some(user) = view
            .get(&schema::OPENID_TOKENS, &(expires, hash(token)))
            .await?
        else {
            return Ok(None);
        };
        let account = self.account(user).await?;
        if account.is_none_or(|account| account.deactivated) {
            return Ok(None);
        }
        Ok(self.inner.ids.user_id(user).await?)
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
