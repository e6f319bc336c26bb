//! Text to ids and labels. A token is scored if and only if it lies wholly inside what the model must emit.

use crate::chat::{Chat, Rendered, Span, holds_marks};
use crate::conversation::{Format, Message};
use crate::error::{Error, Kind, Result};
use crate::record::Context;
use serde_json::{Map, Value};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::Tokenizer;

/// The label of a token that is not scored.
pub const IGNORE: i32 = -100;

/// How a row was shortened to the longest length allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Not at all.
    Whole,
    /// After its last turn that fits whole.
    AtTurn,
    /// Inside its first answer, which does not fit whole.
    Tail,
}

/// One row as ids and labels.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<i32>,
    /// The id where the token is scored, else [`IGNORE`]; never scored at the first token.
    pub labels: Vec<i32>,
    /// What each token's loss is multiplied by, where that is not 1 everywhere.
    pub weights: Option<Vec<f32>>,
    /// How it was shortened.
    pub cut: Cut,
    /// Whether a content held the text of a control token, which was kept as text.
    pub control_text: bool,
}

/// A row as tokens, before anything is cut.
#[derive(Debug, Clone)]
pub struct Whole {
    /// What the tokenizer saw. Ranges are bytes of it; the end token of raw text lies one byte behind it.
    pub text: String,
    /// The tokens, in order.
    pub tokens: Vec<Token>,
    /// As in [`Encoded`], one for each token.
    pub labels: Vec<i32>,
    /// As in [`Encoded`].
    pub weights: Option<Vec<f32>>,
    /// The end of each scored turn.
    pub ends: Vec<usize>,
    /// What the row itself says, in the order of the text, and who says it; the rest is the template's.
    pub contents: Vec<(String, Range<usize>)>,
    /// As in [`Encoded`].
    pub control_text: bool,
}

/// One token and the bytes of the text that it stands for. Tokens that are parts of one character share its bytes.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its bytes.
    pub range: Range<usize>,
}

/// Why a row is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left(pub &'static str);

/// Something of a row, or why the row is left out.
pub type Kept<T> = std::result::Result<T, Left>;

/// What became of a row that could be read.
pub enum Outcome {
    /// It is trained on.
    Used(Encoded),
    /// It is not, for this reason.
    Dropped(&'static str),
}

/// Encodes rows for one tokenizer and template.
pub struct Encoder {
    tokenizer: Tokenizer,
    /// The same, but the text of a control token is text.
    literal: Tokenizer,
    control: Vec<(String, u32)>,
    chat: Option<Chat>,
    eos: Option<u32>,
    max_length: usize,
}

impl Encoder {
    /// An encoder of a tokenizer.json; without a `chat` rows are raw text, and `eos_token` ends them.
    ///
    /// # Errors
    /// The tokenizer cannot be read, or has no such token.
    pub fn new(
        tokenizer_json: &[u8],
        chat: impl FnOnce(Vec<String>) -> Result<Option<Chat>>,
        eos_token: Option<&str>,
        max_length: usize,
    ) -> Result<Self> {
        let bad = |why: String| {
            Error::new(Kind::Tokenizer, "tokenizer.json cannot be used").because(why).fix("get the model's files again")
        };
        let read = catch_unwind(|| Tokenizer::from_bytes(tokenizer_json))
            .map_err(|_| bad("it breaks the tokenizers library".into()))?;
        let mut tokenizer = read.map_err(|error| bad(error.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| bad(error.to_string()))?;
        // It adds control tokens, which templates write themselves, and may trim offsets, which masks are made of.
        tokenizer.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        let mut control: Vec<(String, u32)> = tokenizer
            .get_added_tokens_decoder()
            .iter()
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .map(|(&id, token)| (token.content.clone(), id))
            .collect();
        control.sort();
        let eos = match eos_token {
            None => None,
            Some(token) => Some(
                tokenizer
                    .token_to_id(token)
                    .ok_or_else(|| bad(format!("it has no token {token:?}, the model's eos_token")))?,
            ),
        };
        let mut literal = tokenizer.clone();
        literal.set_encode_special_tokens(true);
        let chat = chat(control.iter().map(|(text, _)| text.clone()).collect())?;
        Ok(Self { tokenizer, literal, control, chat, eos, max_length })
    }

    /// The renderer of conversations.
    #[must_use]
    pub fn chat(&self) -> Option<&Chat> {
        self.chat.as_ref()
    }

    /// Ids of a text as it stands, control tokens and all.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(encode(&self.tokenizer, text)?.get_ids().to_vec())
    }

    /// The text of ids.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.tokenizer
            .decode(ids, skip_special_tokens)
            .map_err(|error| Error::new(Kind::Tokenizer, "ids cannot be decoded").because(error))
    }

    /// A row of this format.
    ///
    /// # Errors
    /// The row does not fit the format, or its scored tokens cannot be told.
    pub fn row(&self, format: &Format, row: &Map<String, Value>) -> Result<Outcome> {
        let encoded = self.whole(format, row)?.and_then(|whole| {
            let (length, cut) = self.cut(&whole)?;
            let ids = whole.tokens[..length].iter().map(|token| token.id.cast_signed()).collect();
            let mut labels = whole.labels;
            labels.truncate(length);
            let mut weights = whole.weights;
            weights.iter_mut().for_each(|weights| weights.truncate(length));
            Ok(Encoded { ids, labels, weights, cut, control_text: whole.control_text })
        });
        Ok(encoded.map_or_else(|Left(reason)| Outcome::Dropped(reason), Outcome::Used))
    }

    /// A row of this format as it would be without a longest length, or why it is left out whatever its length.
    ///
    /// # Errors
    /// As [`Encoder::row`].
    pub fn whole(&self, format: &Format, row: &Map<String, Value>) -> Result<Kept<Whole>> {
        match &self.chat {
            Some(chat) => {
                let messages = format.read(row)?;
                if !messages.iter().any(|message| message.role == "assistant" && message.scored) {
                    return Ok(Err(Left("no assistant turn")));
                }
                if messages.iter().filter_map(|message| message.content.as_deref()).any(holds_marks) {
                    return Ok(Err(Left("private-use characters that alignite marks turns with")));
                }
                if messages.iter().any(|message| self.holds_hidden_control(message)) {
                    return Ok(Err(Left("control tokens in a field of a message that is not its content")));
                }
                self.conversation(chat, &messages)
            }
            None => {
                let (prompt, completion) = format.read_raw(row)?;
                self.raw(&prompt, &completion).map(Ok)
            }
        }
    }

    /// How many tokens of a row are trained on, or why none is.
    ///
    /// # Errors
    /// The row holds no scored token, or none within the longest length.
    pub fn cut(&self, whole: &Whole) -> Kept<(usize, Cut)> {
        let Whole { tokens, labels, ends, .. } = whole;
        let is_scored = |labels: &[i32]| labels.iter().any(|&label| label != IGNORE);
        if tokens.len() <= self.max_length {
            return if is_scored(labels) { Ok((tokens.len(), Cut::Whole)) } else { Err(Left("no scored token")) };
        }
        let turns = ends.iter().map(|&end| tokens.partition_point(|token| token.range.end <= end));
        let fitting = turns.filter(|&count| count <= self.max_length).max();
        match fitting.filter(|&count| is_scored(&labels[..count])) {
            Some(count) => Ok((count, Cut::AtTurn)),
            None if is_scored(&labels[..self.max_length]) => Ok((self.max_length, Cut::Tail)),
            None => Err(Left("the prompt alone is longer than max_length")),
        }
    }

    /// The parts of a row's own text that read like control tokens, and the tokens that they read like.
    #[must_use]
    pub fn control_texts<'a>(&'a self, whole: &Whole) -> Vec<(Range<usize>, &'a str)> {
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (_, range) in &whole.contents {
            // Raw text's prompt and completion are one text, which a control token may stand across.
            match spans.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => spans.push(range.clone()),
            }
        }
        let mut found = Vec::new();
        for span in spans {
            for (token, _) in &self.control {
                let places = whole.text[span.clone()].match_indices(token.as_str());
                found.extend(places.map(|(at, _)| (span.start + at..span.start + at + token.len(), token.as_str())));
            }
        }
        found.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
        // Of two that overlap the first, and at one place the longer, is the one that a tokenizer would take.
        let mut end = 0;
        found.retain(|(range, _)| {
            range.start >= end && {
                end = range.end;
                true
            }
        });
        found
    }

    /// Whether this id is a control token's.
    #[must_use]
    pub fn is_control(&self, id: u32) -> bool {
        self.control.iter().any(|&(_, control)| control == id)
    }

    /// The text of one token, as the vocabulary has it.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    fn conversation(&self, chat: &Chat, messages: &[Message]) -> Result<Kept<Whole>> {
        let rendered = chat.render(messages, &Context::default())?;
        let control_text = rendered.contents.iter().any(|range| self.holds_control(&rendered.text[range.clone()]));
        let tokens = if control_text {
            match self.piecewise(&rendered)? {
                Some(tokens) => tokens,
                None => {
                    return Ok(Err(Left("control tokens in a content, which this tokenizer cannot keep as text")));
                }
            }
        } else {
            let encoding = encode(&self.tokenizer, &rendered.text)?;
            tokens_of(&encoding, 0)
        };
        let labels = labels_of(&tokens, &rendered.scored);
        let weights = weights_of(&tokens, &rendered.scored);
        let roles = rendered.speakers.iter().map(|&index| messages[index].role.clone());
        let contents = roles.zip(rendered.contents).collect();
        Ok(Ok(Whole { text: rendered.text, tokens, labels, weights, ends: rendered.ends, contents, control_text }))
    }

    fn raw(&self, prompt: &str, completion: &str) -> Result<Whole> {
        let text = format!("{prompt}{completion}");
        let control_text = self.holds_control(&text);
        let tokenizer = if control_text { &self.literal } else { &self.tokenizer };
        let mut tokens = tokens_of(&encode(tokenizer, &text)?, 0);
        let eos = self.eos.ok_or_else(|| {
            Error::new(Kind::Tokenizer, "raw text needs an eos_token to end it")
                .fix("name eos_token in tokenizer_config.json")
        })?;
        // The end token is one byte past the text, so that it lies inside the scored part.
        let scored = prompt.len()..text.len() + 1;
        tokens.push(Token { id: eos, range: text.len()..text.len() + 1 });
        let span = Span { range: scored.clone(), weight: 1.0 };
        let labels = labels_of(&tokens, std::slice::from_ref(&span));
        let contents = vec![("prompt".into(), 0..prompt.len()), ("completion".into(), prompt.len()..text.len())];
        Ok(Whole { text, tokens, labels, weights: None, ends: vec![scored.end], contents, control_text })
    }

    /// Whether a field beside the content holds a control token, which would be read as one, or end a turn early.
    fn holds_hidden_control(&self, message: &Message) -> bool {
        message.fields.iter().any(|(name, value)| {
            !matches!(name.as_str(), "role" | "content")
                && any_text(value, &|text| self.holds_control(text) || holds_marks(text))
        })
    }

    /// The first control token of a text, and where it stands; of two at one place the longer.
    fn first_control(&self, text: &str) -> Option<(usize, &(String, u32))> {
        let places = self.control.iter().filter_map(|token| text.find(token.0.as_str()).map(|at| (at, token)));
        places.min_by_key(|(at, token)| (*at, std::cmp::Reverse(token.0.len())))
    }

    fn holds_control(&self, text: &str) -> bool {
        self.control.iter().any(|(token, _)| text.contains(token.as_str()))
    }

    /// Encode with the contents' control texts as text: the template's control tokens by their ids, what lies between
    /// by the literal tokenizer. None when the tokenizer does not work piece by piece.
    fn piecewise(&self, rendered: &Rendered) -> Result<Option<Vec<Token>>> {
        let text = &rendered.text;
        let mut tokens = Vec::new();
        let mut plain_from = 0;
        let mut at = 0;
        let mut contents = rendered.contents.iter().peekable();
        while at < text.len() {
            if let Some(content) = contents.peek()
                && at >= content.start
            {
                at = at.max(content.end);
                contents.next();
                continue;
            }
            let until = contents.peek().map_or(text.len(), |content| content.start);
            let Some((start, (token, id))) = self.first_control(&text[at..until]) else {
                at = until;
                continue;
            };
            let start = at + start;
            let length = token.len();
            self.literal_piece(text, plain_from..start, &mut tokens)?;
            tokens.push(Token { id: *id, range: start..start + length });
            at = start + length;
            plain_from = at;
        }
        self.literal_piece(text, plain_from..text.len(), &mut tokens)?;
        // Tokens must cover the text: a tokenizer that adds a space before each piece, say, would not give these ids.
        let covered: usize = tokens.iter().map(|token| token.range.len()).sum();
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let same = covered >= text.len() && self.decode(&ids, false)? == *text;
        Ok(same.then_some(tokens))
    }

    fn literal_piece(&self, text: &str, piece: Range<usize>, tokens: &mut Vec<Token>) -> Result<()> {
        if !piece.is_empty() {
            tokens.extend(tokens_of(&encode(&self.literal, &text[piece.clone()])?, piece.start));
        }
        Ok(())
    }
}

/// The id where a token lies wholly inside a scored span, else [`IGNORE`].
fn labels_of(tokens: &[Token], scored: &[Span]) -> Vec<i32> {
    let mut span = scored.iter().map(|span| &span.range).peekable();
    let mut label = |(index, token): (usize, &Token)| {
        while span.peek().is_some_and(|span| span.end <= token.range.start) {
            span.next();
        }
        let inside = span.peek().is_some_and(|span| span.start <= token.range.start && token.range.end <= span.end);
        // A row's first token has nothing before it to be predicted from.
        let is_scored = inside && !token.range.is_empty() && index > 0;
        if is_scored { token.id.cast_signed() } else { IGNORE }
    };
    tokens.iter().enumerate().map(&mut label).collect()
}

/// The weight of the span that a token starts in, else 1; None when all are 1.
#[allow(clippy::float_cmp)]
fn weights_of(tokens: &[Token], scored: &[Span]) -> Option<Vec<f32>> {
    scored.iter().any(|span| span.weight != 1.0).then(|| {
        let weight = |token: &Token| {
            let place = scored.partition_point(|span| span.range.end <= token.range.start);
            scored.get(place).filter(|span| span.range.start <= token.range.start).map_or(1.0, |span| span.weight)
        };
        tokens.iter().map(weight).collect()
    })
}

fn any_text(value: &Value, found: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => found(text),
        Value::Array(items) => items.iter().any(|item| any_text(item, found)),
        Value::Object(map) => map.iter().any(|(key, item)| found(key) || any_text(item, found)),
        _ => false,
    }
}

fn tokens_of(encoding: &tokenizers::Encoding, offset: usize) -> Vec<Token> {
    let ids = encoding.get_ids().iter();
    ids.zip(encoding.get_offsets())
        .map(|(&id, &(start, end))| Token { id, range: start + offset..end + offset })
        .collect()
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<tokenizers::Encoding> {
    // The library panics where its regular expressions give up; that is a bad row, not the end of the run.
    match catch_unwind(AssertUnwindSafe(|| tokenizer.encode(text, false))) {
        Ok(Ok(encoding)) => Ok(encoding),
        Ok(Err(error)) => Err(Error::data("the tokenizer fails on this text").because(error)),
        Err(_) => Err(Error::data("the tokenizer fails on this text").because("it panicked")),
    }
}
