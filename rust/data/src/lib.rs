//! alignite's data path: file rows to exact training batches, in pure Rust.
//!
//! [`source`] lines -> [`conversation`] -> [`chat`] text and scored parts -> [`encode`] ids and labels -> [`pack`]
//! windows -> [`prepare`] an Arrow file -> [`prepared`] batches, read in the [`order`] of an epoch. [`survey`] goes the
//! same way up to the windows and tells what it saw.

pub mod chat;
pub mod conversation;
pub mod encode;
pub mod error;
pub mod gguf_tokenizer;
pub mod instruct;
mod mapped;
pub mod order;
pub mod pack;
pub mod prepare;
pub mod prepared;
pub mod record;
pub mod rows;
pub mod source;
pub mod survey;
pub mod template;
