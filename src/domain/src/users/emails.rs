//! E-mail addresses of accounts. An address is one account's at most; the batches that give it say so, so that of two who ask at
//! once one gets it.

use ruma::OwnedUserId;
use vatra_store::{Batch, CommitError, Direction, Range, View};

use super::{Users, UsersError, ValidatedEmail};
use crate::{
    mail::address::canonical,
    schema::{self, EmailRow, UserSid},
};

/// The most addresses that an account has.
const MAX_EMAILS: usize = 20;

/// An address of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    /// The address, canonical.
    pub address: String,
    /// What is known of it.
    pub row: EmailRow,
}

impl Users {
    /// A user's addresses.
    pub async fn emails(&self, user: UserSid) -> Result<Vec<Email>, UsersError> {
        let range = Range::prefix(&(user,));
        let view = self.inner.store.view();
        let rows = view
            .range(&schema::EMAILS, range, Direction::Forward, usize::MAX)
            .await?;
        Ok(rows
            .into_iter()
            .map(|((_, address), row)| Email { address, row })
            .collect())
    }

    /// Whose an address is, in whatever case it is written.
    pub async fn email_owner(&self, address: &str) -> Result<Option<UserSid>, UsersError> {
        let Some(address) = canonical(address) else {
            return Ok(None);
        };
        let view = self.inner.store.view();
        Ok(view.get(&schema::EMAIL_OWNERS, &address).await?)
    }

    /// The local account that a login names by an address.
    pub async fn find_by_email(
        &self,
        address: &str,
    ) -> Result<Option<(OwnedUserId, UserSid)>, UsersError> {
        let Some(sid) = self.email_owner(address).await? else {
            return Ok(None);
        };
        let user = self.inner.ids.user_id(sid).await?;
        Ok(user.map(|user| (user, sid)))
    }

    /// Gives a user an address that was validated. The validation is used up.
    ///
    /// # Errors
    /// [`UsersError::EmailInUse`], [`UsersError::TooManyEmails`], and [`UsersError::EmailNotValidated`] if the validation was used meanwhile.
    pub async fn add_email(&self, user: UserSid, email: &ValidatedEmail) -> Result<(), UsersError> {
        loop {
            let owner = self.email_owner(email.address()).await?;
            if owner.is_some_and(|owner| owner != user) {
                return Err(UsersError::EmailInUse);
            }
            if owner.is_none() && self.emails(user).await?.len() >= MAX_EMAILS {
                return Err(UsersError::TooManyEmails);
            }
            let account = self.account(user).await?.ok_or(UsersError::NotFound)?;
            if account.deactivated {
                return Err(UsersError::Deactivated);
            }
            self.is_unused(email).await?;
            let mut batch = Batch::new();
            // Who is deactivated meanwhile gets no address.
            batch.assert_equals(&schema::ACCOUNTS, &user, &account);
            if owner.is_some() {
                // It is theirs already: the validation is used up all the same.
                email.use_up(&mut batch);
            } else {
                let view = self.inner.store.view();
                self.give_email(&view, &mut batch, user, email).await?;
            }
            match self.inner.store.write(batch).await {
                // Something of it has changed: what is there now decides.
                Err(CommitError::AssertFailed) => {}
                other => return other.map(|_| ()).map_err(Into::into),
            }
        }
    }

    /// Takes an address from a user, and ends the letters to it; false if it was not theirs.
    pub async fn remove_email(&self, user: UserSid, address: &str) -> Result<bool, UsersError> {
        let Some(address) = canonical(address) else {
            return Ok(false);
        };
        loop {
            let view = self.inner.store.view();
            let owner = view.get(&schema::EMAIL_OWNERS, &address).await?;
            if owner != Some(user) {
                return Ok(false);
            }
            let mut batch = Batch::new();
            batch.assert_equals(&schema::EMAIL_OWNERS, &address, &user);
            batch.delete(&schema::EMAIL_OWNERS, &address);
            batch.delete(&schema::EMAILS, &(user, address.clone()));
            self.forget_pusher_to(&view, &mut batch, user, &address)
                .await?;
            match self.inner.store.write(batch).await {
                // Somebody else has taken it away just now, or has changed the user's pushers.
                Err(CommitError::AssertFailed) => {}
                other => return other.map(|_| true).map_err(Into::into),
            }
        }
    }

    /// Gives an address, if it is nobody's and the validation has not been used.
    pub(super) async fn give_email(
        &self,
        view: &View,
        batch: &mut Batch,
        user: UserSid,
        email: &ValidatedEmail,
    ) -> Result<(), UsersError> {
        let address = email.address().to_owned();
        email.use_up(batch);
        batch.assert_absent(&schema::EMAIL_OWNERS, &address);
        batch.put(&schema::EMAIL_OWNERS, &address, &user);
        let row = EmailRow {
            validated: email.validated(),
            added: self.now(),
        };
        batch.put(&schema::EMAILS, &(user, address), &row);
        self.notify_first_email(view, batch, user, email).await?;
        Ok(())
    }

    /// Why a batch with [`Users::give_email`] was not taken.
    pub(super) async fn why_not(&self, email: &ValidatedEmail) -> Result<UsersError, UsersError> {
        if self.email_owner(email.address()).await?.is_some() {
            Ok(UsersError::EmailInUse)
        } else {
            Ok(UsersError::EmailNotValidated)
        }
    }

    /// All addresses of an account that ends.
    pub(super) async fn forget_emails(
        &self,
        batch: &mut Batch,
        user: UserSid,
    ) -> Result<(), UsersError> {
        for email in self.emails(user).await? {
            batch.delete(&schema::EMAIL_OWNERS, &email.address);
            batch.delete(&schema::EMAILS, &(user, email.address));
        }
        Ok(())
    }
}
