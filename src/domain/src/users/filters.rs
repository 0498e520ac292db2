//! Filters that clients store and name by id.

use vatra_store::Batch;

use super::{Users, UsersError};
use crate::schema::{self, UserSid};

impl Users {
    /// Stores a filter (JSON that the caller has checked) and gives its id.
    pub async fn create_filter(&self, user: UserSid, json: String) -> Result<u64, UsersError> {
        let id = self.inner.store.fresh_id()?;
        let mut batch = Batch::new();
        batch.put(&schema::FILTERS, &(user, id), &json);
        self.inner.store.write(batch).await?;
        Ok(id)
    }

    /// A stored filter's JSON.
    pub async fn filter(&self, user: UserSid, id: &str) -> Result<Option<String>, UsersError> {
        let Ok(id) = id.parse() else { return Ok(None) };
        Ok(self
            .inner
            .store
            .view()
            .get(&schema::FILTERS, &(user, id))
            .await?)
    }
}
