//! Names and their numbers. A pair of rows; either can be made from the other, except that a room's has its version.

use std::fmt::Debug;

use vatra_store::{Key, Map, Value};

use crate::{
    audit::{Audit, AuditError, PAGE, Pages},
    schema::{ROOM_SIDS, ROOMS, RoomRow, STATE_KEY_SIDS, STATE_KEYS, USER_IDS, USER_SIDS},
};

pub(super) async fn check(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    both_ways(
        audit,
        &USER_IDS,
        &USER_SIDS,
        Clone::clone,
        Some(Clone::clone),
    )
    .await?;
    both_ways(
        audit,
        &STATE_KEYS,
        &STATE_KEY_SIDS,
        Clone::clone,
        Some(Clone::clone),
    )
    .await?;
    let name = |row: &RoomRow| row.room_id.clone();
    both_ways(audit, &ROOMS, &ROOM_SIDS, name, None).await
}

/// `row` makes a number's row from a name, if that can be done.
async fn both_ways<S, R, N>(
    audit: &mut Audit<'_>,
    by_number: &Map<S, R>,
    by_name: &Map<N, S>,
    name: fn(&R) -> N,
    row: Option<fn(&N) -> R>,
) -> Result<(), AuditError>
where
    S: Key + Value + Copy + PartialEq + Debug,
    R: Value + PartialEq,
    N: Key + Clone + PartialEq + Debug,
{
    let view = audit.view();
    let mut names = Pages::new(by_name, PAGE);
    while let Some(page) = names.next(&view, audit).await? {
        let numbers: Vec<S> = page.iter().map(|(_, number)| *number).collect();
        let rows = Audit::read_many(&view, by_number, &numbers).await?;
        for ((key, number), found) in page.iter().zip(rows) {
            match (found, row) {
                (Some(found), _) if name(&found) == *key => {}
                (Some(_), _) => audit.row_is(by_name, key, Some(number), None),
                (None, Some(row)) => audit.row_is(by_number, number, None, Some(&row(key))),
                (None, None) => {
                    audit.damaged(
                        by_number,
                        number,
                        format!("no row, though {key:?} has the number"),
                    );
                }
            }
        }
    }
    let view = audit.view();
    let mut numbers = Pages::new(by_number, PAGE);
    while let Some(page) = numbers.next(&view, audit).await? {
        let wanted = page
            .iter()
            .map(|(number, row)| (name(row), *number))
            .collect();
        audit.rows_are(&view, by_name, wanted).await?;
    }
    Ok(())
}
