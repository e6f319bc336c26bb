//! Byte-level BPE of our own: words by hand-written scanners, tokens from a cache of words.

use super::added::Added;
use super::bpe::Bpe;
use super::cache::Cache;
use super::reference::Reference;
use super::split::Splitter;
use super::{Backend, Tokens};
use crate::error::Result;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

/// The fast backend.
pub struct Fast {
    added: Added,
    splitter: Splitter,
    bpe: Bpe,
    /// Whether text is brought to Unicode's normal form C first.
    normalizes: bool,
    /// What a text goes to that cannot be told here: one that changes in normal form, or with bytes that have no token.
    reference: Arc<Reference>,
    /// One cache for each thread that has been at work.
    caches: Mutex<Vec<Cache>>,
}

impl Fast {
    /// The backend of a tokenizer.json that the reference has read, or why there is none.
    ///
    /// # Errors
    /// It holds something that is not known here.
    pub fn new(reference: &Arc<Reference>, json: &Value) -> std::result::Result<Self, String> {
        let normalizer = &json["normalizer"];
        let nothing = |value: &Value| {
            value.is_null() || value["normalizers"].as_array().is_some_and(|normalizers| normalizers.is_empty())
        };
        let normalizes = normalizer["type"] == "NFC";
        if !normalizes && !nothing(normalizer) {
            return Err("it changes text before it is split".into());
        }
        Ok(Self {
            splitter: Splitter::new(&json["pre_tokenizer"])?,
            bpe: Bpe::new(&json["model"])?,
            added: Added::new(reference.library())?,
            normalizes,
            reference: Arc::clone(reference),
            caches: Mutex::default(),
        })
    }

    fn caches(&self) -> std::sync::MutexGuard<'_, Vec<Cache>> {
        // A cache is given back only when it is whole.
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Fast {
    fn encode(&self, text: &str, literal: bool, out: &mut Tokens) -> Result<()> {
        if u32::try_from(text.len()).is_err() || (self.normalizes && !is_normal(text)) {
            return self.reference.encode(text, literal, out);
        }
        let mut cache = self.caches().pop().unwrap_or_else(Cache::new);
        let bytes = text.as_bytes();
        let (ids, ends) = out.restart(bytes.len() / 3);
        let mut is_whole = true;
        self.added.each(text, literal, &mut |start, end, id| match id {
            Some(id) => {
                ids.push(id);
                ends.push(end as u32);
            }
            None => self.splitter.split(&bytes[start..end], |from, to| {
                is_whole &= cache.encode(&self.bpe, bytes, (start + from, start + to), ids, ends);
            }),
        });
        self.caches().push(cache);
        if is_whole { Ok(()) } else { self.reference.encode(text, literal, out) }
    }
}

/// Whether a text is in normal form C. Nothing below U+0300 composes with what is before it.
fn is_normal(text: &str) -> bool {
    text.bytes().all(|byte| byte < 0xCC) || unicode_normalization::is_nfc(text)
}
