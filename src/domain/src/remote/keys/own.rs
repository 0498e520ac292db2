//! This server's own keys: the one in use and those it no longer uses, kept in the store and published.

use ruma::{CanonicalJsonObject, CanonicalJsonValue, ServerName, serde::Base64};
use vatra_store::{Batch, CommitError, Direction, Range, Store, StoreError};

use super::{Keys, Parts};
use crate::{
    clock::Millis,
    schema::{self, ServerKeyRow},
};

/// For how long this server vouches for its keys, in milliseconds.
const OWN_VALIDITY_MS: Millis = 24 * 3_600_000;

impl Keys {
    /// What this server publishes of its keys, signed with the one in use.
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server>
    ///
    /// # Errors
    /// The store's.
    pub async fn published(&self) -> Result<CanonicalJsonObject, StoreError> {
        let inner = &*self.inner;
        let name = inner.signer.server_name();
        let rows = own_rows(&inner.store, name).await?;
        let key_of = |row: &ServerKeyRow| {
            CanonicalJsonValue::String(
                Base64::<ruma::serde::base64::Standard, _>::new(row.key).encode(),
            )
        };
        let (mut in_use, mut retired) = (CanonicalJsonObject::new(), CanonicalJsonObject::new());
        for ((_, id), row) in &rows {
            let mut entry = CanonicalJsonObject::from([("key".to_owned(), key_of(row))]);
            if row.retired {
                entry.insert("expired_ts".to_owned(), integer(row.valid_until));
                retired.insert(id.clone(), CanonicalJsonValue::Object(entry));
            } else {
                in_use.insert(id.clone(), CanonicalJsonValue::Object(entry));
            }
        }
        let until = inner.clock.now().saturating_add(OWN_VALIDITY_MS);
        let mut document = CanonicalJsonObject::from([
            (
                "server_name".to_owned(),
                CanonicalJsonValue::String(name.to_string()),
            ),
            ("valid_until_ts".to_owned(), integer(until)),
            ("verify_keys".to_owned(), CanonicalJsonValue::Object(in_use)),
            (
                "old_verify_keys".to_owned(),
                CanonicalJsonValue::Object(retired),
            ),
        ]);
        inner
            .signer
            .sign_json(&mut document)
            .map_err(StoreError::corrupt)?;
        Ok(document)
    }
}

/// Why the store does not take this server's own keys.
#[derive(Debug, thiserror::Error)]
pub enum CommitOrRead {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] StoreError),
    /// It cannot be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

async fn own_rows(
    store: &Store,
    name: &ServerName,
) -> Result<Vec<((String, String), ServerKeyRow)>, StoreError> {
    let range = Range::prefix(&(name.to_string(),));
    store
        .view()
        .range(&schema::SERVER_KEYS, range, Direction::Forward, 1000)
        .await
}

/// Writes down the key in use, and that others are used no longer.
pub(super) async fn retire(parts: &Parts) -> Result<(), CommitOrRead> {
    let (name, now) = (parts.signer.server_name(), parts.clock.now());
    let in_use = (name.to_string(), parts.signer.key_id());
    let mut batch = Batch::new();
    let row = ServerKeyRow {
        key: parts.signer.public_key(),
        valid_until: Millis::MAX,
        retired: false,
    };
    let rows = own_rows(&parts.store, name).await?;
    if !rows
        .iter()
        .any(|(id, known)| *id == in_use && *known == row)
    {
        batch.put(&schema::SERVER_KEYS, &in_use, &row);
    }
    for (id, mut known) in rows {
        if id != in_use && !known.retired {
            known.retired = true;
            known.valid_until = now;
            batch.put(&schema::SERVER_KEYS, &id, &known);
        }
    }
    if !batch.is_empty() {
        parts.store.write(batch).await?;
    }
    Ok(())
}

fn integer(millis: Millis) -> CanonicalJsonValue {
    let largest = ruma::Int::MAX;
    CanonicalJsonValue::Integer(ruma::Int::try_from(millis).unwrap_or(largest))
}
