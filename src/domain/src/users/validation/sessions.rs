//! Sessions: found, validated, and used up.

use vatra_store::{Batch, CommitError};

use super::{ValidatedEmail, hash};
use crate::{
    clock::Millis,
    schema::{self, EmailPurpose, EmailSessionRow, UserSid},
    users::{Users, UsersError},
};

impl Users {
    /// A session that a link leads to and whose token is good, before it is used. Changes nothing: mail programs look at links too.
    pub async fn linked(
        &self,
        sid: &str,
        token: &str,
    ) -> Result<Option<EmailSessionRow>, UsersError> {
        let found = self.email_session(sid).await?;
        let now = self.now();
        Ok(found
            .map(|(_, row)| row)
            .filter(|row| row.token == Some(hash(token)) && now < row.token_until))
    }

    /// Uses a token: the address is validated. `None` if it is not good (any more). A client that submits the token itself shows its secret too.
    pub async fn submit_token(
        &self,
        sid: &str,
        token: &str,
        secret: Option<&str>,
    ) -> Result<Option<EmailSessionRow>, UsersError> {
        let Some(row) = self.linked(sid, token).await? else {
            return Ok(None);
        };
        let Some((key, _)) = self.email_session(sid).await? else {
            return Ok(None);
        };
        if secret.is_some_and(|secret| hash(secret) != row.secret) {
            return Ok(None);
        }
        let new = EmailSessionRow {
            token: None,
            validated: Some(self.now()),
            ..row.clone()
        };
        let mut batch = Batch::new();
        batch.assert_equals(&schema::EMAIL_SESSIONS, &key, &row);
        batch.put(&schema::EMAIL_SESSIONS, &key, &new);
        match self.inner.store.write(batch).await {
            // Somebody else was quicker with it.
            Err(CommitError::AssertFailed) => Ok(None),
            other => other.map(|_| Some(new)).map_err(Into::into),
        }
    }

    /// A session whose address was validated for a purpose.
    ///
    /// # Errors
    /// [`UsersError::EmailNotValidated`] if there is none with this id and secret; which of them is wrong is not said.
    pub async fn validated(
        &self,
        sid: &str,
        secret: &str,
        purpose: EmailPurpose,
    ) -> Result<ValidatedEmail, UsersError> {
        let email = self.validated_session(sid, purpose).await?;
        if email.row.secret == hash(secret) {
            Ok(email)
        } else {
            Err(UsersError::EmailNotValidated)
        }
    }

    /// The same for who has shown the secret before.
    ///
    /// # Errors
    /// [`UsersError::EmailNotValidated`].
    pub async fn validated_session(
        &self,
        sid: &str,
        purpose: EmailPurpose,
    ) -> Result<ValidatedEmail, UsersError> {
        match self.email_session(sid).await? {
            Some((key, row)) if row.validated.is_some() && row.purpose == purpose => {
                Ok(ValidatedEmail {
                    key,
                    row,
                    languages: String::new(),
                })
            }
            _ => Err(UsersError::EmailNotValidated),
        }
    }

    /// Sets a new password for the account that has a validated address. The validation is used up.
    ///
    /// # Errors
    /// [`UsersError::WeakPassword`]; [`UsersError::EmailNotValidated`] if no account has the address, or the validation was used meanwhile.
    pub async fn reset_password(
        &self,
        email: &ValidatedEmail,
        password: String,
    ) -> Result<UserSid, UsersError> {
        let hash = self.hash_password(password).await?;
        loop {
            let view = self.inner.store.view();
            let address = email.address().to_owned();
            let owner = view.get(&schema::EMAIL_OWNERS, &address).await?;
            self.is_unused(email).await?;
            let account = match owner {
                Some(owner) => view.get(&schema::ACCOUNTS, &owner).await?,
                None => None,
            };
            let (Some(owner), Some(account)) = (owner, account) else {
                return Err(UsersError::EmailNotValidated);
            };
            if account.deactivated {
                return Err(UsersError::EmailNotValidated);
            }
            if account.flags.locked {
                return Err(UsersError::Locked);
            }
            let mut batch = Batch::new();
            email.use_up(&mut batch);
            batch.assert_equals(&schema::EMAIL_OWNERS, &address, &owner);
            batch.assert_equals(&schema::ACCOUNTS, &owner, &account);
            let mut new = account;
            new.password = Some(hash.clone());
            batch.put(&schema::ACCOUNTS, &owner, &new);
            match self.inner.store.write(batch).await {
                // Something of it has changed: what is there now decides.
                Err(CommitError::AssertFailed) => {}
                other => return other.map(|_| owner).map_err(Into::into),
            }
        }
    }

    /// Whether a validation is still there to be used.
    ///
    /// # Errors
    /// [`UsersError::EmailNotValidated`] if it is not.
    pub(in crate::users) async fn is_unused(
        &self,
        email: &ValidatedEmail,
    ) -> Result<(), UsersError> {
        let view = self.inner.store.view();
        let session = view.get(&schema::EMAIL_SESSIONS, &email.key).await?;
        if session.as_ref() == Some(&email.row) {
            Ok(())
        } else {
            Err(UsersError::EmailNotValidated)
        }
    }

    /// A session that has not ended.
    pub(super) async fn email_session(
        &self,
        sid: &str,
    ) -> Result<Option<((u64, String), EmailSessionRow)>, UsersError> {
        let expires = sid
            .split_once('.')
            .and_then(|(expires, _)| expires.parse().ok());
        let Some(expires) = expires.filter(|expires: &Millis| *expires > self.now()) else {
            return Ok(None);
        };
        let key = (expires, sid.to_owned());
        let view = self.inner.store.view();
        let row = view.get(&schema::EMAIL_SESSIONS, &key).await?;
        Ok(row.map(|row| (key, row)))
    }
}
