//! Accounts that an admin has locked or suspended: neither ends anything, and both can be taken back.
//!
//! - *locked*: its user can only log out; the sessions are kept. Judged where a token is ([`Users::authenticate`]) and where one is given.
//! - *suspended*: its user can read, leave and take back, but not speak or come. Judged where they try ([`Requester::must_be_free`]).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-moderation>

use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use super::{Requester, Users, UsersError};
use crate::schema::{AccountRow, UserSid};

/// What an admin can do to an account and take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Its user is kept out.
    Lock,
    /// Its user may read, and hardly write.
    Suspend,
}

impl Measure {
    /// Whether it is in force.
    fn of(self, account: &AccountRow) -> bool {
        match self {
            Self::Lock => account.flags.locked,
            Self::Suspend => account.flags.suspended,
        }
    }

    fn set(self, account: &mut AccountRow, on: bool) {
        match self {
            Self::Lock => account.flags.locked = on,
            Self::Suspend => account.flags.suspended = on,
        }
    }
}

impl Requester {
    /// For what a suspended user may not do.
    ///
    /// # Errors
    /// [`UsersError::Suspended`].
    pub fn must_be_free(&self) -> Result<(), UsersError> {
        if self.suspended {
            Err(UsersError::Suspended)
        } else {
            Ok(())
        }
    }
}

impl Requester {
    /// For what only admins may do.
    ///
    /// # Errors
    /// [`UsersError::NotForYou`].
    pub fn must_be_admin(&self) -> Result<(), UsersError> {
        if self.admin {
            Ok(())
        } else {
            Err(UsersError::NotForYou("only admins may do that"))
        }
    }
}

impl Users {
    /// A user of this server whose account is in use.
    ///
    /// # Errors
    /// [`UsersError::Elsewhere`], [`UsersError::NotFound`].
    pub async fn local(&self, user: &UserId) -> Result<(OwnedUserId, UserSid), UsersError> {
        let (id, sid, _) = self.in_use(user).await?;
        Ok((id, sid))
    }

    async fn in_use(
        &self,
        user: &UserId,
    ) -> Result<(OwnedUserId, UserSid, AccountRow), UsersError> {
        if user.server_name() != self.server_name() {
            return Err(UsersError::Elsewhere);
        }
        let found = self.find(user.as_str()).await?;
        let (user, sid) = found.ok_or(UsersError::NotFound)?;
        let account = self.account(sid).await?;
        let account = account.filter(|account| !account.deactivated);
        Ok((user, sid, account.ok_or(UsersError::NotFound)?))
    }

    /// Whether a measure is in force for a user of this server. Only admins may ask, and of no other admin.
    ///
    /// # Errors
    /// [`UsersError::NotForYou`] before anything is looked up; [`UsersError::Elsewhere`]; [`UsersError::NotFound`], also if the account is
    /// deactivated.
    pub async fn is_under(
        &self,
        by: &Requester,
        of: &UserId,
        measure: Measure,
    ) -> Result<bool, UsersError> {
        let (sid, account) = self.moderated(by, of).await?;
        if account.admin && sid != by.sid {
            return Err(UsersError::NotForYou("that user is an admin too"));
        }
        Ok(measure.of(&account))
    }

    /// Takes a measure or takes it back, as an admin asks: not for themselves, nor for another admin.
    ///
    /// # Errors
    /// As [`Users::is_under`].
    pub async fn moderate(
        &self,
        by: &Requester,
        of: &UserId,
        measure: Measure,
        on: bool,
    ) -> Result<(), UsersError> {
        let (sid, account) = self.moderated(by, of).await?;
        if sid == by.sid {
            return Err(UsersError::NotForYou("that is your own account"));
        }
        if account.admin {
            return Err(UsersError::NotForYou("that user is an admin too"));
        }
        self.set_measure(sid, measure, on).await
    }

    /// The same for whom the caller has found; for operators.
    ///
    /// # Errors
    /// [`UsersError::NotFound`].
    pub async fn set_measure(
        &self,
        user: UserSid,
        measure: Measure,
        on: bool,
    ) -> Result<(), UsersError> {
        self.change_account(user, |row| measure.set(row, on))
            .await?;
        self.forget_tokens_of(user);
        Ok(())
    }

    async fn moderated(
        &self,
        by: &Requester,
        of: &UserId,
    ) -> Result<(UserSid, AccountRow), UsersError> {
        // First of all: nobody else learns who has an account here.
        by.must_be_admin()?;
        let (_, sid, account) = self.in_use(of).await?;
        Ok((sid, account))
    }

    pub(super) async fn must_not_be_locked(&self, user: UserSid) -> Result<(), UsersError> {
        let account = self.account(user).await?;
        if account.is_some_and(|account| account.flags.locked) {
            return Err(UsersError::Locked);
        }
        Ok(())
    }
}
