//! Tokens with which a session lets another device log in, once and soon.
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token>

use sha2::{Digest, Sha256};
use vatra_store::{Batch, CommitError, Range};

use super::{Users, UsersError};
use crate::{
    clock::Millis,
    random::token,
    schema::{self, UserSid},
};

/// How long a token lives, in milliseconds.
pub const LOGIN_TOKEN_LIFE_MS: Millis = 120_000;

impl Users {
    /// A new token; the expired ones of everybody go with it. Only its hash is stored.
    ///
    /// # Errors
    /// The store's.
    pub async fn issue_login_token(&self, user: UserSid) -> Result<String, UsersError> {
        self.issue_login_token_for(user, LOGIN_TOKEN_LIFE_MS).await
    }

    /// The same with another life.
    ///
    /// # Errors
    /// The store's.
    pub async fn issue_login_token_for(
        &self,
        user: UserSid,
        life: Millis,
    ) -> Result<String, UsersError> {
        let now = self.now();
        let expires = now.saturating_add(life);
        let token = format!("{expires}_{}", token(&**self.random(), 32));
        let mut batch = Batch::new();
        batch.delete_range(&schema::LOGIN_TOKENS, Range::all().before(&(now, [0; 32])));
        batch.put(&schema::LOGIN_TOKENS, &(expires, hash(&token)), &user);
        self.inner.store.write(batch).await?;
        Ok(token)
    }

    /// Whose a token is; it is worth nothing from then on. `None` for one that is unknown, expired or used.
    ///
    /// # Errors
    /// The store's.
    pub async fn take_login_token(&self, token: &str) -> Result<Option<UserSid>, UsersError> {
        let expires = token
            .split_once('_')
            .and_then(|(expires, _)| expires.parse().ok());
        let Some(expires) = expires.filter(|expires: &Millis| *expires > self.now()) else {
            return Ok(None);
        };
        let key = (expires, hash(token));
        let view = self.inner.store.view();
        let Some(user) = view.get(&schema::LOGIN_TOKENS, &key).await? else {
            return Ok(None);
        };
        let mut batch = Batch::new();
        batch.assert_equals(&schema::LOGIN_TOKENS, &key, &user);
        batch.delete(&schema::LOGIN_TOKENS, &key);
        match self.inner.store.write(batch).await {
            Ok(_) => Ok(Some(user)),
            // Somebody else was quicker with it.
            Err(CommitError::AssertFailed) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
