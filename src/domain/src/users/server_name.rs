//! Whose store this is: every user id and event in it ends in one server's name, which cannot change any more.

use ruma::ServerName;
use vatra_store::{Batch, CommitError, Store, StoreError};

use crate::schema;

/// Why a store cannot serve a server of this name.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// It is another server's.
    #[error("it belongs to {0}")]
    Other(String),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take the name.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Makes a store `name`'s own if it is nobody's yet.
///
/// # Errors
/// [`NameError::Other`] if it is another server's.
pub async fn claim(store: &Store, name: &ServerName) -> Result<(), NameError> {
    match store.view().get(&schema::SERVER_NAME, &0).await? {
        Some(stored) if stored == name.as_str() => Ok(()),
        Some(stored) => Err(NameError::Other(stored)),
        None => {
            let mut batch = Batch::new();
            batch.put(&schema::SERVER_NAME, &0, &name.to_string());
            store.write(batch).await?;
            Ok(())
        }
    }
}
