//! Accounts of people whom someone else vouches for, as the operator has arranged it: they come without a password.

use ruma::OwnedUserId;

use super::{NewAccount, Users, UsersError};
use crate::schema::UserSid;

impl Users {
    /// The account of a local part; with `make`, made if there is none.
    ///
    /// # Errors
    /// [`UsersError::NotFound`], [`UsersError::Deactivated`]; for a new account those of [`Users::register`].
    pub async fn vouched_for(
        &self,
        name: &str,
        make: bool,
    ) -> Result<(OwnedUserId, UserSid), UsersError> {
        let name = name.to_lowercase();
        // A whole user id would name an account as well.
        if name.starts_with('@') {
            return Err(UsersError::BadName);
        }
        if let Some(found) = self.find(&name).await? {
            return self.in_force(found).await;
        }
        if !make {
            return Err(UsersError::NotFound);
        }
        let new = NewAccount {
            name: Some(name.clone()),
            ..NewAccount::default()
        };
        match self.register(new).await {
            // Two logins at once: the other has made it.
            Err(UsersError::NameTaken) => {
                let found = self.find(&name).await?.ok_or(UsersError::NameTaken)?;
                self.in_force(found).await
            }
            other => other,
        }
    }

    async fn in_force(
        &self,
        (user, sid): (OwnedUserId, UserSid),
    ) -> Result<(OwnedUserId, UserSid), UsersError> {
        let account = self.account(sid).await?.ok_or(UsersError::NotFound)?;
        if account.deactivated {
            return Err(UsersError::Deactivated);
        }
        Ok((user, sid))
    }
}
