//! A full-text index of short texts in every script. It knows texts and numbers, not Matrix, and is the only code that knows tantivy.
//!
//! - `script`: what a text is cut into: words, and for scripts that are written without spaces, pairs of characters.
//! - `terms`: what someone searches for ([`Terms`]), and which words of a text that meets ([`Terms::found_in`]).
//! - `index`: the [`Index`]: documents are put and removed by the number of their item, and visible after [`Index::commit`], which also
//!   writes down a note of the caller's: how far it has got. Both are on disk together or not at all.
//! - `top`: the best matches, a page at a time.
//!
//! Everything here blocks; async callers use a thread for it. How well something matches depends on its own text only, never on what else is
//! in the index: so a rank tells nothing about texts that its reader may not see, and pages do not shift when others are added.

mod index;
mod script;
mod terms;
mod top;

pub use self::{
    index::{Change, Document, Found, Hit, Index, IndexError, Query},
    terms::{Terms, TooLong},
    top::{Order, Place},
};
