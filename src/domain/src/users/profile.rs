//! Profiles: a map of fields, two of which every client knows.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#profiles>. That a name or picture must also change in the user's rooms is
//! `flows`' affair.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use vatra_store::{Batch, Direction, Range};

use super::{Users, UsersError};
use crate::schema::{self, UserSid};

/// The largest profile, in bytes of JSON.
const LARGEST: usize = 64 << 10;
/// The longest field name.
const LONGEST_NAME: usize = 255;

/// A profile's fields.
pub type Profile = BTreeMap<String, Json>;

impl Users {
    /// All fields.
    pub async fn profile(&self, user: UserSid) -> Result<Profile, UsersError> {
        let view = self.inner.store.view();
        let rows = view
            .range(
                &schema::PROFILES,
                Range::prefix(&(user,)),
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        Ok(rows
            .into_iter()
            .filter_map(|((_, name), json)| Some((name, serde_json::from_str(&json).ok()?)))
            .collect())
    }

    /// One field.
    pub async fn profile_field(
        &self,
        user: UserSid,
        name: &str,
    ) -> Result<Option<Json>, UsersError> {
        let row = self
            .inner
            .store
            .view()
            .get(&schema::PROFILES, &(user, name.to_owned()))
            .await?;
        Ok(row.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// Sets a field; `None`, null and (for the two old fields) the empty string remove it. Says whether anything changed.
    pub async fn set_profile_field(
        &self,
        user: UserSid,
        name: &str,
        value: Option<Json>,
    ) -> Result<bool, UsersError> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Err(UsersError::KeyTooLarge);
        }
        let classic = name == "displayname" || name == "avatar_url";
        let value = value
            .filter(|value| !value.is_null())
            .filter(|value| !(classic && value.as_str() == Some("")));
        match (name, &value) {
            ("displayname", Some(value)) if !value.is_string() => {
                return Err(UsersError::BadValue("displayname is a string"));
            }
            ("avatar_url", Some(value)) => match value.as_str() {
                // Not held to be an mxc:// URI: other servers' profiles are not either, and clients cope.
                Some(url) if url.len() <= 1000 => {}
                _ => {
                    return Err(UsersError::BadValue(
                        "avatar_url is a string of at most 1000 bytes",
                    ));
                }
            },
            _ => {}
        }
        let mut profile = self.profile(user).await?;
        let old = match &value {
            Some(value) => profile.insert(name.to_owned(), value.clone()),
            None => profile.remove(name),
        };
        if old == value {
            return Ok(false);
        }
        if serde_json::to_string(&profile).is_ok_and(|json| json.len() > LARGEST) {
            return Err(UsersError::ProfileTooLarge);
        }
        let mut batch = Batch::new();
        match value {
            Some(value) => batch.put(
                &schema::PROFILES,
                &(user, name.to_owned()),
                &value.to_string(),
            ),
            None => batch.delete(&schema::PROFILES, &(user, name.to_owned())),
        };
        self.inner.store.write(batch).await?;
        Ok(true)
    }
}
