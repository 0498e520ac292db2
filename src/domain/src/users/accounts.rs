//! Accounts come, change and go.

use ruma::{OwnedUserId, UserId};
use vatra_store::{Batch, CommitError, Range};

use super::{Identity, Users, UsersError, ValidatedEmail};
use crate::{
    appservice::Service,
    e2ee, random,
    schema::{self, AccountFlags, AccountRow, UserSid},
};

/// An account to make.
#[derive(Debug, Default, Clone)]
pub struct NewAccount {
    /// The local part; a random one if there is none.
    pub name: Option<String>,
    /// The password; without one nobody can log in by password.
    pub password: Option<String>,
    /// May use the admin API.
    pub admin: bool,
    /// An e-mail address that its owner has shown to be theirs.
    pub email: Option<ValidatedEmail>,
    /// Of someone who has not registered.
    pub guest: bool,
    /// Who it belongs to in the eyes of an identity provider.
    pub identity: Option<Identity>,
}

impl Users {
    /// The user id of a local part that may be registered.
    ///
    /// # Errors
    /// [`UsersError::BadName`] for what the grammar of the spec does not allow, [`UsersError::NameTaken`],
    /// [`UsersError::Exclusive`] for what an application service has for itself.
    pub async fn available(&self, name: &str) -> Result<OwnedUserId, UsersError> {
        self.available_to(None, name).await
    }

    async fn available_to(
        &self,
        by: Option<&Service>,
        name: &str,
    ) -> Result<OwnedUserId, UsersError> {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte)
        };
        if name.is_empty() || !name.bytes().all(allowed) {
            return Err(UsersError::BadName);
        }
        let user = UserId::parse(format!("@{name}:{}", self.inner.server_name))
            .map_err(|_| UsersError::BadName)?;
        if user.as_str().len() > 255 {
            return Err(UsersError::BadName);
        }
        self.services().check_user(by, &user)?;
        match self
            .inner
            .store
            .view()
            .get(&schema::TAKEN_NAMES, &name.to_owned())
            .await?
        {
            Some(_) => Err(UsersError::NameTaken),
            None => Ok(user),
        }
    }

    /// Makes an account. Two requests for one name or one address: the second is told that it is taken.
    pub async fn register(&self, new: NewAccount) -> Result<(OwnedUserId, UserSid), UsersError> {
        self.register_by(None, new).await
    }

    pub(super) async fn register_by(
        &self,
        by: Option<&Service>,
        new: NewAccount,
    ) -> Result<(OwnedUserId, UserSid), UsersError> {
        let name = match new.name {
            Some(name) => name.to_lowercase(),
            None => random::name(&*self.inner.random, 12),
        };
        let user = self.available_to(by, &name).await?;
        let password = match new.password {
            Some(password) => Some(self.hash_password(password).await?),
            None => None,
        };
        let sid = self.inner.ids.intern_user(&user).await?;
        let row = AccountRow {
            password,
            admin: new.admin,
            deactivated: false,
            created: self.now(),
            flags: AccountFlags::default(),
        };
        let mut batch = Batch::new();
        batch.assert_absent(&schema::TAKEN_NAMES, &name);
        batch.put(&schema::TAKEN_NAMES, &name, &sid);
        batch.put(&schema::ACCOUNTS, &sid, &row);
        if new.guest {
            batch.put(&schema::GUESTS, &sid, &());
        }
        if let Some(identity) = &new.identity {
            Self::give_identity(&mut batch, sid, identity);
        }
        if let Some(email) = &new.email {
            let view = self.inner.store.view();
            self.give_email(&view, &mut batch, sid, email).await?;
        }
        match self.inner.store.write(batch).await {
            Ok(_) => Ok((user, sid)),
            Err(CommitError::AssertFailed) => {
                self.available(&name).await?;
                if let Some(identity) = &new.identity
                    && self.identity_owner(identity).await?.is_some()
                {
                    return Err(UsersError::IdentityInUse);
                }
                let email = new.email.ok_or(UsersError::NameTaken)?;
                Err(self.why_not(&email).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// An account's row; `None` for users of other servers and names never registered.
    pub async fn account(&self, user: UserSid) -> Result<Option<AccountRow>, UsersError> {
        Ok(self
            .inner
            .store
            .view()
            .get(&schema::ACCOUNTS, &user)
            .await?)
    }

    /// The local account that a login names: a local part or a whole user id, in any case.
    pub async fn find(&self, name: &str) -> Result<Option<(OwnedUserId, UserSid)>, UsersError> {
        let full = if name.starts_with('@') {
            name.to_owned()
        } else {
            format!("@{name}:{}", self.inner.server_name)
        };
        for candidate in [full.clone(), full.to_lowercase()] {
            let Ok(user) = UserId::parse(candidate) else {
                continue;
            };
            if user.server_name() != self.inner.server_name {
                continue;
            }
            if let Some(sid) = self.inner.ids.user(&user).await?
                && self.account(sid).await?.is_some()
            {
                return Ok(Some((user, sid)));
            }
        }
        Ok(None)
    }

    /// Whether a user has an account here that is in use.
    pub async fn is_active(&self, user: &UserId) -> Result<bool, UsersError> {
        let Some(sid) = self.inner.ids.user(user).await? else {
            return Ok(false);
        };
        Ok(self
            .account(sid)
            .await?
            .is_some_and(|account| !account.deactivated))
    }

    /// Sets a new password.
    pub async fn set_password(&self, user: UserSid, password: String) -> Result<(), UsersError> {
        let hash = self.hash_password(password).await?;
        self.change_account(user, |row| row.password = Some(hash.clone()))
            .await
    }

    /// Gives or takes the right to use the admin API.
    pub async fn set_admin(&self, user: UserSid, admin: bool) -> Result<(), UsersError> {
        self.change_account(user, |row| row.admin = admin).await?;
        self.forget_tokens_of(user);
        Ok(())
    }

    /// Ends an account: no password, no devices, no tokens, no keys, no profile, no account data, no e-mail addresses. The name stays taken. Leaving the
    /// user's rooms is the caller's flow.
    ///
    /// With `erase` nobody is shown any more what the user has said who could not see it before; see `rooms/erased`. An account that was ended
    /// without can be ended again with it.
    pub async fn deactivate(&self, user: UserSid, erase: bool) -> Result<(), UsersError> {
        if erase {
            self.erase(user).await?;
        }
        self.change_account(user, |row| {
            row.deactivated = true;
            row.password = None;
        })
        .await?;
        self.logout_all(user, None).await?;
        // Those that belong to the account, not to a device.
        self.drop_pushers(user, |_| true).await?;
        let mut batch = Batch::new();
        e2ee::forget_account(&self.inner.store.view(), &mut batch, user).await?;
        batch.delete(&schema::GUESTS, &user);
        batch.delete_range(&schema::PROFILES, Range::prefix(&(user,)));
        batch.delete_range(&schema::ACCOUNT_DATA, Range::prefix(&(user,)));
        batch.delete_range(&schema::ACCOUNT_DATA_LOG, Range::prefix(&(user,)));
        batch.delete_range(&schema::FILTERS, Range::prefix(&(user,)));
        self.forget_emails(&mut batch, user).await?;
        if erase {
            self.forget_identities(&mut batch, user).await?;
        }
        self.inner.store.write(batch).await?;
        Ok(())
    }

    /// The first time counts.
    async fn erase(&self, user: UserSid) -> Result<(), UsersError> {
        let mut batch = Batch::new();
        batch.assert_absent(&schema::ERASED, &user);
        batch.put_at_position(&schema::ERASED, move |position| (user, position));
        batch.wake(schema::topic::erased());
        match self.inner.store.write(batch).await {
            Ok(_) | Err(CommitError::AssertFailed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes the row as it stands; whoever comes between makes it try again.
    pub(super) async fn change_account(
        &self,
        user: UserSid,
        change: impl Fn(&mut AccountRow),
    ) -> Result<(), UsersError> {
        loop {
            let old = self.account(user).await?.ok_or(UsersError::NotFound)?;
            let mut new = old.clone();
            change(&mut new);
            let mut batch = Batch::new();
            batch.assert_equals(&schema::ACCOUNTS, &user, &old);
            batch.put(&schema::ACCOUNTS, &user, &new);
            match self.inner.store.write(batch).await {
                Err(CommitError::AssertFailed) => {}
                other => return other.map(|_| ()).map_err(Into::into),
            }
        }
    }
}
