//! Passwords: argon2id, on the blocking pool, few at a time.

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};

use super::{Users, UsersError};
use crate::schema::UserSid;

/// The shortest password.
pub(super) const SHORTEST: usize = 8;

/// The hash that an unknown user's password is checked against, so that the answer takes as long as a known user's.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$EJLk4+GD7nHpFHwKVvsrqbCRdHjBcnRaAjAbSfK/1cI";

impl Users {
    /// The hash to store for a password.
    ///
    /// # Errors
    /// [`UsersError::WeakPassword`] for one that is too short.
    pub(super) async fn hash_password(&self, password: String) -> Result<String, UsersError> {
        if password.chars().count() < SHORTEST {
            return Err(UsersError::WeakPassword);
        }
        self.hashing(
            move || match Argon2::default().hash_password(password.as_bytes()) {
                Ok(hash) => Ok(hash.to_string()),
                Err(error) => Err(UsersError::Hashing(error.to_string())),
            },
        )
        .await?
    }

    /// Whether this is the user's password. Takes as long for users that do not exist.
    pub async fn check_password(
        &self,
        user: Option<UserSid>,
        password: String,
    ) -> Result<bool, UsersError> {
        let account = match user {
            Some(user) => self.account(user).await?,
            None => None,
        };
        let stored = account
            .filter(|account| !account.deactivated)
            .and_then(|account| account.password);
        let known = stored.is_some();
        let hash = stored.unwrap_or_else(|| NOBODY.to_owned());
        let matches = self
            .hashing(move || match PasswordHash::new(&hash) {
                Ok(hash) => Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok(),
                Err(_) => false,
            })
            .await?;
        Ok(known && matches)
    }

    async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, UsersError> {
        let failed = |error: &dyn std::fmt::Display| UsersError::Hashing(error.to_string());
        let _permit = self
            .inner
            .hashing
            .acquire()
            .await
            .map_err(|error| failed(&error))?;
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| failed(&error))
    }
}
