//! Whether a user takes invites. <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>

use serde::Deserialize;

use super::{Users, UsersError};
use crate::schema::{GLOBAL, UserSid};

/// The type of the account data that says so.
const KIND: &str = "m.invite_permission_config";

#[derive(Deserialize)]
struct Config {
    default_action: String,
}

impl Users {
    /// Whether a local user has said that they want no invites. What is not readable says nothing.
    pub async fn blocks_invites(&self, user: UserSid) -> Result<bool, UsersError> {
        let config = self.account_data(user, GLOBAL, KIND).await?;
        let config = config.and_then(|json| serde_json::from_str::<Config>(json.get()).ok());
        Ok(config.is_some_and(|config| config.default_action == "block"))
    }
}
