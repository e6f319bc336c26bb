//! The `tokenizers` library, kept from what it cannot survive.

use super::{Backend, Tokens};
use crate::error::{Error, Kind, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::Tokenizer;

/// The most that normalizing or decoding may lengthen a text.
const GROWTH: usize = 64;

/// The library's tokenizer.
pub struct Reference {
    library: Tokenizer,
    /// The same, but the text of a special token is text.
    literal: Tokenizer,
}

fn bad(why: impl ToString) -> Error {
    Error::new(Kind::Tokenizer, "tokenizer.json cannot be used").because(why).fix("get the model's files again")
}

/// A tokenizer.json without what is not for us: padding, truncation and the post-processor, which adds control tokens
/// that templates write themselves.
///
/// # Errors
/// It is not JSON, two tokens have one id, or it would lengthen texts without measure.
pub fn read(tokenizer_json: &[u8]) -> Result<Value> {
    let mut json: Value = serde_json::from_slice(tokenizer_json).map_err(bad)?;
    let Some(object) = json.as_object_mut() else { return Err(bad("it is not a JSON object")) };
    for name in ["padding", "truncation", "post_processor"] {
        object.insert(name.into(), Value::Null);
    }
    for part in ["normalizer", "pre_tokenizer", "decoder"] {
        if growth(&json[part]) > GROWTH {
            return Err(bad(format!("its {part} may lengthen a text more than {GROWTH} times")));
        }
    }
    ids_are_unique(&json)?;
    Ok(json)
}

impl Reference {
    /// The library's tokenizer of what [`read`] gave.
    ///
    /// # Errors
    /// The library refuses it, breaks on it, or gives tokens other ids than the file.
    pub fn new(json: &Value) -> Result<Self> {
        let made =
            catch_unwind(|| Tokenizer::deserialize(json)).map_err(|_| bad("it breaks the tokenizers library"))?;
        let library = made.map_err(bad)?;
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            let content = token["content"].as_str().unwrap_or_default();
            let id = library.token_to_id(content).map(u64::from);
            if !content.is_empty() && id != token["id"].as_u64() {
                let given = id.map_or("none".into(), |id| id.to_string());
                return Err(bad(format!("the added token {content:?} has id {}, and would get {given}", token["id"])));
            }
        }
        let mut literal = library.clone();
        literal.set_encode_special_tokens(true);
        let reference = Self { library, literal };
        // One that fails on any text is better told now than in the first row.
        reference.encode("A probe: 1 line\n", false, &mut Tokens::default()).map_err(bad)?;
        Ok(reference)
    }

    /// The library's own object.
    #[must_use]
    pub fn library(&self) -> &Tokenizer {
        &self.library
    }
}

impl Backend for Reference {
    fn encode(&self, text: &str, literal: bool, out: &mut Tokens) -> Result<()> {
        if u32::try_from(text.len()).is_err() {
            return Err(Error::data("a text is longer than 4 GiB"));
        }
        let library = if literal { &self.literal } else { &self.library };
        // It panics where its regular expressions give up; that is a bad row, not the end of the run.
        let fails = || Error::data("the tokenizer fails on this text");
        let encoding = catch_unwind(AssertUnwindSafe(|| library.encode(text, false)))
            .map_err(|_| fails().because("it panicked"))?
            .map_err(|error| fails().because(error))?;
        out.restart(encoding.len());
        for (&id, &(start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            out.push(id, start..end);
        }
        Ok(())
    }
}

/// How many times longer a text may become, at most.
fn growth(part: &Value) -> usize {
    let steps = ["normalizers", "pretokenizers", "decoders"].iter().filter_map(|name| part[*name].as_array());
    let steps = steps.flatten().fold(1_usize, |all, step| all.saturating_mul(growth(step)));
    let content = part["content"].as_str().unwrap_or_default().len();
    match (part["type"].as_str(), part["pattern"]["String"].as_str()) {
        (Some("Replace"), Some(pattern)) if !pattern.is_empty() => content.div_ceil(pattern.len()).max(1),
        // A regular expression may match nothing, between all bytes.
        (Some("Replace"), _) => content + 1,
        _ => steps,
    }
}

fn ids_are_unique(json: &Value) -> Result<()> {
    let Some(vocab) = json["model"]["vocab"].as_object() else { return Ok(()) };
    let mut seen: HashMap<u64, &str> = HashMap::with_capacity(vocab.len());
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let added = added.filter_map(|token| Some((token["content"].as_str()?, token["id"].as_u64()?)));
    let vocab = vocab.iter().filter_map(|(text, id)| Some((text.as_str(), id.as_u64()?)));
    for (text, id) in vocab.chain(added) {
        if let Some(other) = seen.insert(id, text)
            && other != text
        {
            return Err(bad(format!("the tokens {other:?} and {text:?} have one id, {id}")));
        }
    }
    Ok(())
}
