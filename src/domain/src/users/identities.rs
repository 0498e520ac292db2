//! Who accounts belong to in the eyes of identity providers: people log in with what they are there.
//!
//! An identity belongs to one account, and keeps doing so when that account ends: who was deactivated does not come back under another name. Only
//! erasing the account lets go of it. <https://spec.matrix.org/v1.19/client-server-api/#sso-client-loginauthentication>

use vatra_store::{Batch, Direction, Range};

use super::{Users, UsersError};
use crate::schema::{self, UserSid};

/// The longest name that a provider may have for someone, in bytes: OpenID Connect allows as much.
const LONGEST: usize = 255;

/// Someone, as an identity provider knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The provider's id.
    pub provider: String,
    /// What it calls them: it never changes, and is nobody else's.
    pub subject: String,
}

impl Identity {
    /// One as a provider tells it; `None` if it cannot be one.
    pub fn new(provider: &str, subject: &str) -> Option<Self> {
        let fits = !subject.is_empty() && subject.len() <= LONGEST;
        fits.then(|| Self {
            provider: provider.to_owned(),
            subject: subject.to_owned(),
        })
    }

    fn key(&self) -> (String, String) {
        (self.provider.clone(), self.subject.clone())
    }
}

impl Users {
    /// Whose account an identity has, in use or ended.
    ///
    /// # Errors
    /// The store's.
    pub async fn identity_owner(&self, identity: &Identity) -> Result<Option<UserSid>, UsersError> {
        let view = self.inner.store.view();
        Ok(view.get(&schema::IDENTITIES, &identity.key()).await?)
    }

    /// The identities of an account.
    ///
    /// # Errors
    /// The store's.
    pub async fn identities(&self, user: UserSid) -> Result<Vec<Identity>, UsersError> {
        let view = self.inner.store.view();
        let rows = view
            .range(
                &schema::USER_IDENTITIES,
                Range::prefix(&(user,)),
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        let identity = |((_, provider, subject), ())| Identity { provider, subject };
        Ok(rows.into_iter().map(identity).collect())
    }

    /// Gives a new account an identity, if it is nobody's.
    pub(super) fn give_identity(batch: &mut Batch, user: UserSid, identity: &Identity) {
        let (provider, subject) = identity.key();
        batch.assert_absent(&schema::IDENTITIES, &identity.key());
        batch.put(&schema::IDENTITIES, &identity.key(), &user);
        batch.put(&schema::USER_IDENTITIES, &(user, provider, subject), &());
    }

    pub(super) async fn forget_identities(
        &self,
        batch: &mut Batch,
        user: UserSid,
    ) -> Result<(), UsersError> {
        for identity in self.identities(user).await? {
            let (provider, subject) = identity.key();
            batch.delete(&schema::IDENTITIES, &identity.key());
            batch.delete(&schema::USER_IDENTITIES, &(user, provider, subject));
        }
        Ok(())
    }
}
