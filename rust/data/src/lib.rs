//! alignite's data path: file rows to exact training batches, in pure Rust.
//!
//! [`source`] lines -> [`formats`] records -> [`chat`] text and scored parts -> [`encode`] ids and labels -> [`pack`]
//! windows -> [`prepare`] an Arrow file -> [`prepared`] batches, read in the [`order`] of an epoch. [`survey`] goes the
//! same way up to the windows and tells what it saw.

pub mod batching;
pub mod chat;
pub mod clean;
pub mod conversation;
pub mod convert;
pub mod encode;
pub mod error;
pub mod export;
mod feedback;
pub mod formats;
pub mod gguf_tokenizer;
mod hashing;
pub mod instruct;
mod mapped;
pub mod mixture;
pub mod order;
pub mod pack;
pub mod prepare;
pub mod prepared;
pub mod preprocess;
pub mod record;
pub mod reservoir;
pub mod rows;
pub mod sample;
pub mod source;
pub mod stages;
pub mod survey;
pub mod template;
pub mod tokenize;
