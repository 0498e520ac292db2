//! An open database with the handles of its column families.

use std::sync::{Arc, Weak};

use rocksdb::{BoundColumnFamily, DB};
use self_cell::self_cell;
use vatra_store::{EngineError, Keyspace, PerKeyspace};

type Handle<'a> = Arc<BoundColumnFamily<'a>>;
type Handles<'a> = PerKeyspace<Handle<'a>>;

self_cell! {
    struct Cell {
        owner: DB,
        #[not_covariant]
        dependent: Handles,
    }
}

/// An open database. Closed when the last one who holds it lets go.
pub(crate) struct Database {
    cell: Cell,
    /// False for one that was opened to read only.
    pub(crate) writable: bool,
    /// Goes last: once it is gone, the folder's lock is.
    open: Arc<()>,
}

impl Database {
    pub(crate) fn new(db: DB, writable: bool) -> Result<Self, EngineError> {
        let cell = Cell::try_new(db, |db| {
            let handle = |keyspace: Keyspace| {
                let name = keyspace.name();
                db.cf_handle(name).ok_or_else(|| {
                    EngineError::Damaged(format!("the store has no column family {name}"))
                })
            };
            Ok::<_, EngineError>(PerKeyspace {
                index: handle(Keyspace::Index)?,
                bulk: handle(Keyspace::Bulk)?,
                stream: handle(Keyspace::Stream)?,
            })
        })?;
        Ok(Self {
            cell,
            writable,
            open: Arc::new(()),
        })
    }

    /// What is gone once the database is closed. (Whoever holds the database is gone when that begins.)
    pub(crate) fn open(&self) -> Weak<()> {
        Arc::downgrade(&self.open)
    }

    pub(crate) fn db(&self) -> &DB {
        self.cell.borrow_owner()
    }

    /// Runs `f` with the handles.
    pub(crate) fn with_families<T>(&self, f: impl FnOnce(&DB, &Handles<'_>) -> T) -> T {
        self.cell.with_dependent(|db, handles| f(db, handles))
    }
}
