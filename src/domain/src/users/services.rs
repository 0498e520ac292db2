//! Application services as callers: whom their token stands for, and the accounts that they make.
//!
//! <https://spec.matrix.org/v1.19/application-service-api/#identity-assertion>: a service acts as one of its users, whom it names with
//! each request, and has no password, no access token and no device of its own.

use std::sync::Arc;

use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use vatra_store::Batch;

use super::{
    AuthFailure, NewAccount, Requester, Users, UsersError,
    devices::{check_id, check_name},
};
use crate::{
    appservice::{Service, Services},
    e2ee,
    schema::{self, DeviceRow, UserSid, topic},
};

/// What an application service says of itself beside its token.
#[derive(Debug, Clone, Default)]
pub struct Masquerade {
    /// The user that it acts as; its own if it names none.
    pub user: Option<String>,
    /// The device that it acts with; none if it names none.
    pub device: Option<String>,
}

impl Users {
    /// The registered application services.
    pub fn services(&self) -> &Services {
        &self.inner.services
    }

    /// Who makes a request: the user of an access token, or the one whom an application service names. People cannot name anyone.
    pub async fn identify(
        &self,
        token: &str,
        masquerade: impl FnOnce() -> Masquerade,
    ) -> Result<Requester, AuthFailure> {
        match self.services().by_token(token) {
            Some(service) => self.acts_as(service, masquerade()).await,
            None => self.authenticate(token).await,
        }
    }

    async fn acts_as(
        &self,
        service: &Arc<Service>,
        masquerade: Masquerade,
    ) -> Result<Requester, AuthFailure> {
        let user = match masquerade.user {
            Some(user) => UserId::parse(user).map_err(|_| AuthFailure::NoUserId)?,
            None => service.sender.clone(),
        };
        if !service.has_user(&user) {
            return Err(AuthFailure::NotItsUser);
        }
        let sid = self.inner.ids.user(&user).await?;
        let sid = sid.ok_or(AuthFailure::NotRegistered)?;
        let view = self.inner.store.view();
        let account = view.get(&schema::ACCOUNTS, &sid).await?;
        let account = account.ok_or(AuthFailure::NotRegistered)?;
        if account.deactivated {
            return Err(AuthFailure::Deactivated);
        }
        if account.flags.locked {
            return Err(AuthFailure::Locked);
        }
        if let Some(device) = &masquerade.device {
            let key = (sid, device.clone());
            if !view.contains(&schema::DEVICES, &key).await? {
                return Err(AuthFailure::UnknownDevice);
            }
        }
        Ok(Requester {
            user,
            sid,
            device: masquerade.device.map(OwnedDeviceId::from),
            suspended: account.flags.suspended,
            guest: false,
            // A token in a bridge's file is no key to the whole server.
            admin: false,
            service: Some(service.clone()),
        })
    }

    /// Makes an account for an application service, without a password.
    ///
    /// # Errors
    /// [`UsersError::Exclusive`] for a name outside of its namespaces, or in another's; else as [`Users::register`].
    pub async fn register_for(
        &self,
        service: &Service,
        name: String,
    ) -> Result<(OwnedUserId, UserSid), UsersError> {
        let new = NewAccount {
            name: Some(name),
            ..NewAccount::default()
        };
        self.register_by(Some(service), new).await
    }

    /// The account that an application service logs in as.
    ///
    /// # Errors
    /// [`UsersError::Exclusive`] if it is not one of its users, [`UsersError::NotFound`], [`UsersError::Deactivated`].
    pub async fn login_for(
        &self,
        service: &Service,
        name: &str,
    ) -> Result<(OwnedUserId, UserSid), UsersError> {
        let full = if name.starts_with('@') {
            name.to_owned()
        } else {
            format!("@{name}:{}", self.inner.server_name)
        };
        let user = UserId::parse(full.to_lowercase()).map_err(|_| UsersError::BadName)?;
        self.services().check_user(Some(service), &user)?;
        let found = self.find(user.as_str()).await?;
        let (user, sid) = found.ok_or(UsersError::NotFound)?;
        let account = self.account(sid).await?.ok_or(UsersError::NotFound)?;
        if account.deactivated {
            return Err(UsersError::Deactivated);
        }
        Ok((user, sid))
    }

    /// Makes the services' own users, as far as they are not there.
    pub async fn make_senders(&self) -> Result<(), UsersError> {
        for service in self.services().all() {
            let name = service.sender.localpart().to_owned();
            match self.register_for(service, name).await {
                Ok(_) | Err(UsersError::NameTaken) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes a device without a token, for a user of an application service. Says whether it is new; one that is there is named.
    pub async fn put_device(
        &self,
        user: UserSid,
        id: &str,
        name: Option<String>,
    ) -> Result<bool, UsersError> {
        check_id(id)?;
        check_name(name.as_deref())?;
        let view = self.inner.store.view();
        let key = (user, id.to_owned());
        if view.contains(&schema::DEVICES, &key).await? {
            if let Some(name) = name {
                self.rename_device(user, id, Some(name)).await?;
            }
            return Ok(false);
        }
        self.check_new_device(&view, user, id).await?;
        let mut batch = Batch::new();
        e2ee::forget_device(&view, &mut batch, user, id).await?;
        let row = DeviceRow {
            display_name: name,
            last_seen: None,
            last_seen_ip: None,
        };
        batch.assert_absent(&schema::DEVICES, &key);
        batch.put(&schema::DEVICES, &key, &row);
        batch.wake(topic::user(user));
        match self.inner.store.write(batch).await {
            // Someone else made it just now.
            Err(vatra_store::CommitError::AssertFailed) => Ok(false),
            other => Ok(other.map(|_| true)?),
        }
    }
}
