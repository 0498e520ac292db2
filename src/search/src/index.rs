//! The index: documents that are put, removed and searched.

use std::{
    fs, io,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tantivy::{
    Index as Tantivy, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term,
    directory::{MmapDirectory, error::OpenDirectoryError},
    indexer::{IndexWriterOptions, LogMergePolicy},
    query::{
        Bm25StatisticsProvider, BooleanQuery, ConstScoreQuery, Query as TantivyQuery, TermQuery,
        TermSetQuery,
    },
    schema::{
        FAST, Field, INDEXED, IndexRecordOption, Schema, SchemaBuilder, TextFieldIndexing,
        TextOptions,
    },
};

use crate::{
    terms::{Terms, analyzer},
    top::{Order, Place, Top},
};

/// The name of the tokenizer, as it stands in the index: what is cut in another way needs another name, and so a new index.
const TOKENIZER: &str = "every_script_1";
/// The least memory that tantivy's writer takes for what is not committed, in bytes.
const LEAST_MEMORY: usize = 15_000_000;
/// How much of a segment may be removed documents before it is written anew.
const REMOVED: f32 = 0.3;

/// A text to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The number of the item that is found by it. An item has one document at most.
    pub item: u64,
    /// The number of the item whose text it is: itself, or another that has replaced what it said.
    pub source: u64,
    /// The number of the room that it is in.
    pub room: u64,
    /// The number of who has sent it.
    pub sender: u64,
    /// Which kind of text it is.
    pub kind: u64,
    /// When it was sent: what is greater is newer.
    pub time: u64,
    /// The text.
    pub text: String,
}

/// Something to be done to the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Puts a document in place of the item's old one.
    Put(Document),
    /// Removes the document of an item, if there is one.
    Remove(u64),
}

/// What is searched for, and where.
#[derive(Debug, Clone)]
pub struct Query {
    /// What the text must have.
    pub terms: Terms,
    /// Kinds of texts.
    pub kinds: Vec<u64>,
    /// Rooms.
    pub rooms: Vec<u64>,
    /// Who has sent it; whoever it was, if absent.
    pub senders: Option<Vec<u64>>,
    /// In which order matches come.
    pub order: Order,
    /// Only what comes after this.
    pub after: Option<Place>,
    /// How many are given.
    pub limit: usize,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The first matches.
    pub hits: Vec<Hit>,
    /// How many match in all, wherever they come in the order.
    pub total: u64,
}

/// A match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The item.
    pub item: u64,
    /// The item whose text it was.
    pub source: u64,
    /// Its room.
    pub room: u64,
    /// Who has sent it.
    pub sender: u64,
    /// When it was sent.
    pub time: u64,
    /// How well it matches: higher is better.
    pub score: f32,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// What lies there is no index of this kind, or a damaged one: it must be made anew.
    #[error("the index is damaged or of another kind: {0}")]
    Damaged(String),
    /// It could not be read or written: maybe it can later.
    #[error("the index cannot be used: {0}")]
    Failed(String),
    /// It was closed.
    #[error("the index is closed")]
    Closed,
}

impl From<TantivyError> for IndexError {
    fn from(error: TantivyError) -> Self {
        use tantivy::directory::error::OpenReadError::IoError;
        let text = error.to_string();
        match error {
            TantivyError::OpenReadError(IoError { .. })
            | TantivyError::OpenWriteError(_)
            | TantivyError::IoError(_)
            | TantivyError::LockFailure(..)
            | TantivyError::SystemError(_)
            | TantivyError::Poisoned
            | TantivyError::ErrorInThread(_) => Self::Failed(text),
            TantivyError::OpenDirectoryError(error) => match error {
                OpenDirectoryError::NotADirectory(_) => Self::Damaged(text),
                _ => Self::Failed(text),
            },
            _ => Self::Damaged(text),
        }
    }
}

/// The fields of a document.
#[derive(Clone, Copy)]
struct Fields {
    item: Field,
    source: Field,
    room: Field,
    sender: Field,
    kind: Field,
    time: Field,
    text: Field,
}

fn schema() -> (Schema, Fields) {
    let mut builder = SchemaBuilder::new();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(TOKENIZER)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions);
    let fields = Fields {
        item: builder.add_u64_field("item", INDEXED | FAST),
        source: builder.add_u64_field("source", INDEXED | FAST),
        room: builder.add_u64_field("room", INDEXED | FAST),
        sender: builder.add_u64_field("sender", INDEXED | FAST),
        kind: builder.add_u64_field("kind", INDEXED),
        time: builder.add_u64_field("time", FAST),
        text: builder.add_text_field(
            "text",
            TextOptions::default().set_indexing_options(indexing),
        ),
    };
    (builder.build(), fields)
}

/// An open index. One process, and one of these, may have a folder open.
pub struct Index {
    tantivy: Tantivy,
    fields: Fields,
    reader: IndexReader,
    writer: Mutex<Option<IndexWriter>>,
    note: Option<String>,
    /// How many bytes of text are not committed.
    pending: AtomicU64,
}

impl Index {
    /// Opens the index in a folder, or makes an empty one. `memory_bytes` bounds what is kept in memory before it is committed, as far as tantivy
    /// lets itself be bounded: see [`Index::pending_bytes`].
    ///
    /// # Errors
    /// [`IndexError::Damaged`] if what lies there cannot be used: then [`Index::clear`] the folder.
    pub fn open(folder: &Path, memory_bytes: usize) -> Result<Self, IndexError> {
        let failed = |error: io::Error| IndexError::Failed(error.to_string());
        fs::create_dir_all(folder).map_err(failed)?;
        let directory = MmapDirectory::open(folder).map_err(TantivyError::from)?;
        let (schema, fields) = schema();
        let tantivy = Tantivy::open_or_create(directory, schema)?;
        tantivy.tokenizers().register(TOKENIZER, analyzer());
        let note = tantivy.load_metas()?.payload;
        let reader = tantivy
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into()?;
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(memory_bytes.max(LEAST_MEMORY))
            .build();
        let writer: IndexWriter = tantivy.writer_with_options(options)?;
        let mut merging = LogMergePolicy::default();
        merging.set_del_docs_ratio_before_merge(REMOVED);
        writer.set_merge_policy(Box::new(merging));
        Ok(Self {
            tantivy,
            fields,
            reader,
            writer: Mutex::new(Some(writer)),
            note,
            pending: AtomicU64::new(0),
        })
    }

    /// Removes whatever lies in the folder of an index that is not open.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn clear(folder: &Path) -> Result<(), IndexError> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(IndexError::Failed(error.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// The note that was committed last, before the index was opened.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Reads every file and compares it with its sum. Takes as long as that takes.
    ///
    /// # Errors
    /// [`IndexError::Damaged`]
    pub fn verify(&self) -> Result<(), IndexError> {
        let damaged = self.tantivy.validate_checksum()?;
        match damaged.iter().next() {
            Some(file) => Err(IndexError::Damaged(file.display().to_string())),
            None => Ok(()),
        }
    }

    /// Does some changes, in order. They are seen after the next [`Index::commit`].
    ///
    /// # Errors
    /// The index cannot be written; what was done since the last commit is lost.
    pub fn change(&self, changes: &[Change]) -> Result<(), IndexError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = writer.as_ref().ok_or(IndexError::Closed)?;
        for change in changes {
            match change {
                Change::Remove(item) => {
                    writer.delete_term(Term::from_field_u64(self.fields.item, *item));
                }
                Change::Put(document) => {
                    writer.delete_term(Term::from_field_u64(self.fields.item, document.item));
                    writer.add_document(self.document(document))?;
                    let bytes = u64::try_from(document.text.len()).unwrap_or(u64::MAX);
                    self.pending.fetch_add(bytes, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    fn document(&self, document: &Document) -> TantivyDocument {
        let fields = &self.fields;
        let mut made = TantivyDocument::new();
        made.add_u64(fields.item, document.item);
        made.add_u64(fields.source, document.source);
        made.add_u64(fields.room, document.room);
        made.add_u64(fields.sender, document.sender);
        made.add_u64(fields.kind, document.kind);
        made.add_u64(fields.time, document.time);
        made.add_text(fields.text, &document.text);
        made
    }

    /// How many bytes of text were put since the last commit. tantivy takes no bound below 15 MB, so who wants less commits sooner.
    pub fn pending_bytes(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Makes the changes durable and seen, together with a note. Syncs the disk.
    ///
    /// # Errors
    /// The index cannot be written; what was done since the last commit is lost.
    pub fn commit(&self, note: &str) -> Result<(), IndexError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = writer.as_mut().ok_or(IndexError::Closed)?;
        let mut prepared = writer.prepare_commit()?;
        prepared.set_payload(note);
        prepared.commit()?;
        self.reader.reload()?;
        self.pending.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Ends writing, so that the folder can be opened again. What was not committed is lost; searching still works.
    pub fn close(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        drop(writer.take());
    }

    /// The items that are found by the text of another: those that it has replaced.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn replaced_by(&self, source: u64) -> Result<Vec<u64>, IndexError> {
        let term = Term::from_field_u64(self.fields.source, source);
        let query = TermQuery::new(term, IndexRecordOption::Basic);
        let found = self.run(&query, Order::Recent, None, 16)?;
        Ok(found.hits.into_iter().map(|hit| hit.item).collect())
    }

    /// Searches what is committed.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn search(&self, query: &Query) -> Result<Found, IndexError> {
        if query.terms.is_empty() || query.limit == 0 {
            return Ok(Found {
                hits: Vec::new(),
                total: 0,
            });
        }
        let one_of = |field: Field, numbers: &[u64]| -> Box<dyn TantivyQuery> {
            let terms = numbers.iter().map(|it| Term::from_field_u64(field, *it));
            // Where something is does not say how well it matches.
            Box::new(ConstScoreQuery::new(
                Box::new(TermSetQuery::new(terms)),
                0.0,
            ))
        };
        let mut parts = query.terms.queries(self.fields.text);
        parts.push(one_of(self.fields.kind, &query.kinds));
        parts.push(one_of(self.fields.room, &query.rooms));
        if let Some(senders) = &query.senders {
            parts.push(one_of(self.fields.sender, senders));
        }
        let all = BooleanQuery::intersection(parts);
        self.run(&all, query.order, query.after, query.limit)
    }

    fn run(
        &self,
        query: &dyn TantivyQuery,
        order: Order,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Found, IndexError> {
        let top = Top {
            order,
            after,
            limit,
        };
        let searcher = self.reader.searcher();
        Ok(searcher.search_with_statistics_provider(query, &top, &Even)?)
    }
}

/// Statistics that are the same for every word: a rank must not tell how often a word stands in texts that its reader may not see.
struct Even;

impl Bm25StatisticsProvider for Even {
    fn total_num_tokens(&self, _: Field) -> Result<u64, TantivyError> {
        Ok(20_000_000)
    }

    fn total_num_docs(&self) -> Result<u64, TantivyError> {
        Ok(1_000_000)
    }

    fn doc_freq(&self, _: &Term) -> Result<u64, TantivyError> {
        Ok(1_000)
    }
}

#[cfg(test)]
mod tests;
