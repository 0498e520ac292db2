//! What `vatra check` asks of accounts: tokens and account data against the second rows that find them.

use serde_json::value::RawValue;

use super::Users;
use crate::{
    audit::{Audit, AuditError, PAGE, Pages, Problem},
    schema::{ACCOUNT_DATA, ACCOUNT_DATA_LOG, DEVICE_TOKENS, TOKENS},
};

impl Users {
    /// Reads tokens and account data and reports what does not agree; `repair` writes derived rows anew. Gives the number of
    /// problems.
    ///
    /// # Errors
    /// If the store cannot be read, or does not take a repair.
    pub async fn check(
        &self,
        repair: bool,
        mut report: impl FnMut(Problem) + Send,
    ) -> Result<u64, AuditError> {
        let mut audit = Audit::new(self.inner.store.clone(), repair, &mut report);
        tokens(&mut audit).await?;
        account_data(&mut audit).await?;
        Ok(audit.problems())
    }
}

async fn tokens(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&TOKENS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let wanted = page
            .into_iter()
            .map(|(hash, row)| ((row.user, row.device, hash), ()))
            .collect();
        audit.rows_are(&view, &DEVICE_TOKENS, wanted).await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&DEVICE_TOKENS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let hashes: Vec<_> = page.iter().map(|((.., hash), ())| *hash).collect();
        let tokens = Audit::read_many(&view, &TOKENS, &hashes).await?;
        for ((key, ()), token) in page.iter().zip(tokens) {
            if token.is_none_or(|token| token.user != key.0 || token.device != key.1) {
                audit.row_is(&DEVICE_TOKENS, key, Some(&()), None);
            }
        }
    }
    Ok(())
}

async fn account_data(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&ACCOUNT_DATA, PAGE / 10);
    while let Some(page) = rows.next(&view, audit).await? {
        let mut wanted = Vec::with_capacity(page.len());
        for (key, row) in page {
            if RawValue::from_string(row.content).is_err() {
                audit.damaged(&ACCOUNT_DATA, &key, "its content is no JSON");
            }
            wanted.push(((key.0, row.position), key));
        }
        audit.rows_are(&view, &ACCOUNT_DATA_LOG, wanted).await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&ACCOUNT_DATA_LOG, PAGE / 10);
    while let Some(page) = rows.next(&view, audit).await? {
        let keys: Vec<_> = page.iter().map(|(_, key)| key.clone()).collect();
        let data = Audit::read_many(&view, &ACCOUNT_DATA, &keys).await?;
        for ((place, key), row) in page.iter().zip(data) {
            if row.is_none_or(|row| (key.0, row.position) != *place) {
                audit.row_is(&ACCOUNT_DATA_LOG, place, Some(key), None);
            }
        }
    }
    Ok(())
}
