//! Guests: people who look around without an account of their own. The server makes one for them, which can do little, and which
//! becomes theirs when they register.
//!
//! What a guest may ask is judged where a request comes in; which rooms let guests in, by `flows/guests`.
//! <https://spec.matrix.org/v1.19/client-server-api/#guest-access>

use ruma::OwnedUserId;
use vatra_store::{Batch, CommitError};

use super::{AuthFailure, NewAccount, Requester, Users, UsersError};
use crate::schema::{self, UserSid};

impl Users {
    /// Makes a guest, with a name of this server's choice.
    ///
    /// # Errors
    /// The store's.
    pub async fn register_guest(&self) -> Result<(OwnedUserId, UserSid), UsersError> {
        let new = NewAccount {
            guest: true,
            ..NewAccount::default()
        };
        self.register(new).await
    }

    /// The guest whose token it is, who wants to register by the name that they have.
    ///
    /// # Errors
    /// [`UsersError::NoGuest`], [`UsersError::NotTheGuest`].
    pub async fn guest(&self, token: &str, name: Option<&str>) -> Result<Requester, UsersError> {
        let guest = match self.authenticate(token).await {
            Ok(requester) if requester.guest => requester,
            Err(AuthFailure::Store(error)) => return Err(error.into()),
            _ => return Err(UsersError::NoGuest),
        };
        if name.map(str::to_lowercase).as_deref() != Some(guest.user.localpart()) {
            return Err(UsersError::NotTheGuest);
        }
        Ok(guest)
    }

    /// Makes a guest's account their own: the user id, the rooms and the devices stay. The account's name stays what it is.
    ///
    /// # Errors
    /// [`UsersError::NoGuest`] for who is none any more, [`UsersError::WeakPassword`], and what is wrong with the e-mail address.
    pub async fn upgrade_guest(&self, guest: UserSid, new: NewAccount) -> Result<(), UsersError> {
        let password = match new.password {
            Some(password) => Some(self.hash_password(password).await?),
            None => None,
        };
        loop {
            let view = self.inner.store.view();
            let old = view.get(&schema::ACCOUNTS, &guest).await?;
            let old = old.filter(|account| !account.deactivated);
            let old = old.ok_or(UsersError::NoGuest)?;
            if !view.contains(&schema::GUESTS, &guest).await? {
                return Err(UsersError::NoGuest);
            }
            let mut row = old.clone();
            row.password.clone_from(&password);
            let mut batch = Batch::new();
            batch.assert_equals(&schema::ACCOUNTS, &guest, &old);
            batch.put(&schema::ACCOUNTS, &guest, &row);
            batch.assert_equals(&schema::GUESTS, &guest, &());
            batch.delete(&schema::GUESTS, &guest);
            if let Some(email) = &new.email {
                self.is_unused(email).await?;
                if self.email_owner(email.address()).await?.is_some() {
                    return Err(UsersError::EmailInUse);
                }
                self.give_email(&view, &mut batch, guest, email).await?;
            }
            match self.inner.store.write(batch).await {
                // Something of it has changed: what is there now decides.
                Err(CommitError::AssertFailed) => {}
                other => {
                    other?;
                    self.forget_tokens_of(guest);
                    return Ok(());
                }
            }
        }
    }
}
