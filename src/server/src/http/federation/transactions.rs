//! What other servers tell. <https://spec.matrix.org/v1.19/server-server-api/#transactions>

use ruma::api::federation::transactions::send_transaction_message::v1 as send;
use vatra_domain::federation::transaction::Transaction;

use super::{super::error::Error, Origin};
use crate::wiring::App;

pub(super) async fn take(
    app: App,
    origin: Origin,
    request: send::Request,
) -> Result<send::Response, Error> {
    let transaction = Transaction {
        origin: origin.name().clone(),
        said_origin: request.origin,
        id: request.transaction_id.to_string(),
        events: request.pdus,
        edus: request.edus,
    };
    Ok(send::Response::new(
        app.transactions.take(transaction).await?,
    ))
}
