//! Text to ids and labels. A token is scored if and only if it lies wholly inside what the model must emit.

use crate::chat::{Chat, Rendered, Span, holds_marks};
use crate::conversation::Message;
use crate::error::{Error, Kind, Result};
use crate::record::{Context, Record};
use crate::sample::Sample;
use crate::template::REASONING;
use crate::tokenize::{Backend, Chosen, Tokens};
use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;
use std::ops::Range;

pub use crate::sample::IGNORE;

/// How a row was shortened to the longest length allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Not at all.
    Whole,
    /// After its last turn that fits whole.
    AtTurn,
    /// Inside its first answer, which does not fit whole.
    Tail,
    /// Before the prompt's last turns: replies are never cut.
    Prompt,
    /// Not here: the packer splits it.
    Split,
}

/// One record as tokens, ready to be packed.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The tokens.
    pub sample: Sample,
    /// How it was shortened.
    pub cut: Cut,
    /// Tokens before it was shortened.
    pub whole_tokens: usize,
    /// Whether a content held the text of a control token, which was kept as text.
    pub control_text: bool,
    /// What is worth a look though it is trained on; reports count it.
    pub notices: Vec<&'static str>,
}

/// A row as tokens, before anything is cut.
#[derive(Debug, Clone)]
pub struct Whole {
    /// What the tokenizer saw. The tokens are bytes of it; the end token of raw text lies one byte behind it.
    pub text: String,
    /// The tokens, in order.
    pub tokens: Tokens,
    /// The id where the token is scored, else [`IGNORE`]; never scored at the first token.
    pub labels: Vec<i32>,
    /// How much each token counts; empty when all count 1.
    pub weights: Vec<f32>,
    /// The end of each scored turn.
    pub ends: Vec<usize>,
    /// What the row itself says, in the order of the text, and who says it; the rest is the template's.
    pub contents: Vec<(String, Range<usize>)>,
    /// As in [`Encoded`].
    pub control_text: bool,
    /// As in [`Encoded`].
    pub notices: Vec<&'static str>,
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
    Dropped(Left),
}

/// Encodes rows for one tokenizer and template.
pub struct Encoder {
    tokenizer: Chosen,
    control: Control,
    chat: Option<Chat>,
    eos: Option<u32>,
    /// What comparisons may be about.
    criteria: Vec<String>,
    pub(crate) max_length: usize,
    split: bool,
}

/// The control tokens: texts and ids, and one automaton that finds them all, of two at one place the longer.
struct Control {
    tokens: Vec<(String, u32)>,
    automaton: AhoCorasick,
}

impl Control {
    fn new(library: &tokenizers::Tokenizer) -> Result<Self> {
        let added = library.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special && !token.content.is_empty());
        let mut tokens: Vec<(String, u32)> = special.map(|(&id, token)| (token.content.clone(), id)).collect();
        tokens.sort();
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|(text, _)| text))
            .map_err(|error| Error::new(Kind::Tokenizer, "the special tokens cannot be searched for").because(error))?;
        Ok(Self { tokens, automaton })
    }

    fn is_in(&self, text: &str) -> bool {
        self.automaton.is_match(text)
    }

    /// Where they stand in a text, and which they are.
    fn find<'a>(&'a self, text: &str) -> impl Iterator<Item = (Range<usize>, &'a (String, u32))> {
        self.automaton.find_iter(text).map(|found| (found.range(), &self.tokens[found.pattern()]))
    }
}

/// A token that holds the end of the prompt and the start of what is learned: it is not scored.
const SPANS_TEXT: &str = "a token spans prompt and completion";
/// The same where a template wrote what stands before.
const SPANS_TURN: &str = "a token spans the border of a reply";
const ONLY_END: &str = "nothing of the completion is scored but its end token";
pub(crate) const EMPTY: &str = "an empty reply";
const NO_TEMPLATE: &str = "tools, documents or template variables are not written without a template";

/// Why a row is left out that has control tokens where they cannot be kept as text.
pub(crate) const CONTROL: Left = Left("control tokens in a content, which this tokenizer cannot keep as text");

impl From<Kept<Encoded>> for Outcome {
    fn from(kept: Kept<Encoded>) -> Self {
        kept.map_or_else(Self::Dropped, Self::Used)
    }
}

impl Encoder {
    /// An encoder of a tokenizer.json by a backend as in [`Chosen::new`]; without a `chat` rows are raw text, and
    /// `eos_token` ends them. With `split` rows longer than the longest length stay whole, for the packer to split.
    ///
    /// # Errors
    /// The tokenizer cannot be read, or has no such token.
    pub fn new(
        tokenizer_json: &[u8],
        backend: &str,
        chat: impl FnOnce(Vec<String>) -> Result<Option<Chat>>,
        eos_token: Option<&str>,
        max_length: usize,
        split: bool,
    ) -> Result<Self> {
        let tokenizer = Chosen::new(tokenizer_json, backend)?;
        let library = tokenizer.reference().library();
        let eos = eos_token.map(|token| {
            library.token_to_id(token).ok_or_else(|| {
                Error::new(Kind::Tokenizer, "tokenizer.json cannot be used")
                    .because(format!("it has no token {token:?}, the model's eos_token"))
                    .fix("get the model's files again")
            })
        });
        let eos = eos.transpose()?;
        let control = Control::new(library)?;
        let chat = chat(control.tokens.iter().map(|(text, _)| text.clone()).collect())?;
        Ok(Self { tokenizer, control, chat, eos, criteria: Vec::new(), max_length, split })
    }

    /// The same, of records whose criterion is one of these names, or its place.
    pub(crate) fn with_criteria(self, criteria: Vec<String>) -> Self {
        Self { criteria, ..self }
    }

    /// What comparisons may be about.
    pub(crate) fn criteria(&self) -> &[String] {
        &self.criteria
    }

    /// What makes the tokens.
    #[must_use]
    pub fn tokenizer(&self) -> &Chosen {
        &self.tokenizer
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
        let mut tokens = Tokens::default();
        match self.tokenizer.encode(text, false, &mut tokens) {
            // There is no more to make again than this text.
            Err(error) if error.kind == Kind::Backend => self.tokenizer.encode(text, false, &mut tokens)?,
            other => other?,
        }
        Ok(tokens.ids)
    }

    /// The text of ids.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.tokenizer
            .reference()
            .library()
            .decode(ids, skip_special_tokens)
            .map_err(|error| Error::new(Kind::Tokenizer, "ids cannot be decoded").because(error))
    }

    /// What becomes of a record: one outcome, or as many as a tree of steps has branches.
    ///
    /// # Errors
    /// Its scored tokens cannot be told, or it needs a chat template and there is none.
    pub fn record(&self, record: &Record) -> Result<Vec<Outcome>> {
        match record {
            Record::Conversation(_) | Record::Text(_) => {
                let kept = self.whole(record)?.and_then(|whole| {
                    let (length, cut) = self.cut(&whole)?;
                    let Whole { mut tokens, mut labels, mut weights, control_text, notices, .. } = whole;
                    let whole_tokens = tokens.len();
                    tokens.ids.truncate(length);
                    let ids = tokens.ids.into_iter().map(u32::cast_signed).collect();
                    labels.truncate(length);
                    weights.truncate(length);
                    let sample = Sample { weights, ..Sample::whole(ids, labels) };
                    Ok(Encoded { sample, cut, whole_tokens, control_text, notices })
                });
                Ok(vec![kept.into()])
            }
            feedback => self.feedback(feedback),
        }
    }

    /// A conversation or a text as it would be without a longest length, or why it is left out whatever its length.
    ///
    /// # Errors
    /// As [`Encoder::record`]; or the record is neither.
    pub fn whole(&self, record: &Record) -> Result<Kept<Whole>> {
        let (messages, context) = match record {
            Record::Text(text) => return self.raw(&text.prompt, &text.completion),
            Record::Conversation(talk) => (&talk.messages, &talk.context),
            other => return Err(Error::data(format!("a {} is no conversation", other.kind()))),
        };
        let Some(chat) = &self.chat else {
            let Record::Conversation(talk) = record else { return Err(needs_template()) };
            let text = talk.raw().ok_or_else(needs_template)?;
            let mut kept = self.raw(&text.prompt, &text.completion)?;
            if let Ok(whole) = &mut kept
                && (context.tools.is_some() || context.documents.is_some() || !context.variables.is_empty())
            {
                whole.notices.push(NO_TEMPLATE);
            }
            return Ok(kept);
        };
        if !messages.iter().any(|message| message.role == "assistant" && message.scored) {
            return Ok(Err(Left("no assistant turn")));
        }
        if let Some(left) = self.unreadable(messages) {
            return Ok(Err(left));
        }
        self.conversation(chat, messages, context)
    }

    /// Why messages are left out whatever becomes of them.
    pub(crate) fn unreadable(&self, messages: &[Message]) -> Option<Left> {
        if messages.iter().filter_map(|message| message.content.as_deref()).any(holds_marks) {
            return Some(Left("private-use characters that alignite marks turns with"));
        }
        if messages.iter().any(|message| self.holds_hidden_control(message)) {
            return Some(Left("control tokens in a field of a message that is not its content"));
        }
        None
    }

    /// How many tokens of a row are trained on, or why none is.
    ///
    /// # Errors
    /// The row holds no scored token, or none within the longest length.
    pub fn cut(&self, whole: &Whole) -> Kept<(usize, Cut)> {
        let Whole { tokens, labels, ends, .. } = whole;
        let is_scored = |labels: &[i32]| labels.iter().any(|&label| label != IGNORE);
        if tokens.len() <= self.max_length || self.split {
            let cut = if tokens.len() <= self.max_length { Cut::Whole } else { Cut::Split };
            return if is_scored(labels) { Ok((tokens.len(), cut)) } else { Err(Left("no scored token")) };
        }
        let turns = ends.iter().map(|&end| tokens.ending_by(end));
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
        let in_span = |span: Range<usize>| {
            let found = self.control.find(&whole.text[span.clone()]);
            found.map(move |(range, (token, _))| (span.start + range.start..span.start + range.end, token.as_str()))
        };
        spans.into_iter().flat_map(in_span).collect()
    }

    /// Whether this id is a control token's.
    #[must_use]
    pub fn is_control(&self, id: u32) -> bool {
        self.control.tokens.iter().any(|&(_, control)| control == id)
    }

    /// The text of one token, as the vocabulary has it.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.reference().library().id_to_token(id)
    }

    fn conversation(&self, chat: &Chat, messages: &[Message], context: &Context) -> Result<Kept<Whole>> {
        let mut replies: Vec<&Message> = messages.iter().filter(|message| is_scored(message)).collect();
        if chat.scores_last_only() {
            replies.drain(..replies.len().saturating_sub(1));
        }
        let empty = replies.iter().filter(|message| says_nothing(message)).count();
        if empty > 0 && empty == replies.len() {
            return Ok(Err(Left(EMPTY)));
        }
        let rendered = chat.render(messages, context)?;
        let Some((tokens, control_text)) = self.tokens(&rendered.text, &rendered.contents)? else {
            return Ok(Err(CONTROL));
        };
        let (labels, weights, spans) = labels_of(&tokens, &rendered.scored);
        let mut notices = rendered.unwritten;
        notices.extend((empty > 0).then_some(EMPTY));
        notices.extend(spans.then_some(SPANS_TURN));
        let roles = rendered.speakers.iter().map(|&index| messages[index].role.clone());
        let contents = roles.zip(rendered.contents).collect();
        let Rendered { text, ends, .. } = rendered;
        Ok(Ok(Whole { text, tokens, labels, weights, ends, contents, control_text, notices }))
    }

    /// The tokens of a rendered text, in whose contents control tokens are text, and whether there are any. None when
    /// this tokenizer cannot keep them as text.
    pub(crate) fn tokens(&self, text: &str, contents: &[Range<usize>]) -> Result<Option<(Tokens, bool)>> {
        let control_text = contents.iter().any(|range| self.control.is_in(&text[range.clone()]));
        if control_text {
            return Ok(self.piecewise(text, contents)?.map(|tokens| (tokens, true)));
        }
        let mut tokens = Tokens::default();
        self.tokenizer.encode(text, false, &mut tokens)?;
        Ok(Some((tokens, false)))
    }

    /// The tokens of text that stands for itself, control tokens and all, and whether it holds any as text.
    pub(crate) fn raw_tokens(&self, text: &str) -> Result<(Tokens, bool)> {
        let control_text = self.control.is_in(text);
        let mut tokens = Tokens::default();
        self.tokenizer.encode(text, control_text, &mut tokens)?;
        Ok((tokens, control_text))
    }

    /// The token that ends raw text.
    pub(crate) fn end_token(&self) -> Result<u32> {
        self.eos.ok_or_else(|| {
            Error::new(Kind::Tokenizer, "raw text needs an eos_token to end it")
                .fix("name eos_token in tokenizer_config.json")
        })
    }

    fn raw(&self, prompt: &str, completion: &str) -> Result<Kept<Whole>> {
        if !prompt.is_empty() && completion.trim().is_empty() {
            return Ok(Err(Left(EMPTY)));
        }
        let text = format!("{prompt}{completion}");
        let (mut tokens, control_text) = self.raw_tokens(&text)?;
        let eos = self.end_token()?;
        // The end token is one byte past the text, so that it lies inside the scored part.
        let scored = prompt.len()..text.len() + 1;
        tokens.push(eos, text.len()..text.len() + 1);
        let span = Span { range: scored.clone(), weight: 1.0 };
        let (labels, weights, spans) = labels_of(&tokens, std::slice::from_ref(&span));
        let mut notices = Vec::new();
        notices.extend(spans.then_some(SPANS_TEXT));
        let own = &labels[..labels.len() - 1];
        notices.extend((!prompt.is_empty() && own.iter().all(|&label| label == IGNORE)).then_some(ONLY_END));
        let contents = vec![("prompt".into(), 0..prompt.len()), ("completion".into(), prompt.len()..text.len())];
        Ok(Ok(Whole { text, tokens, labels, weights, ends: vec![scored.end], contents, control_text, notices }))
    }

    /// Whether a field beside the content holds a control token, which would be read as one, or end a turn early.
    fn holds_hidden_control(&self, message: &Message) -> bool {
        message.fields.iter().any(|(name, value)| {
            !matches!(name.as_str(), "role" | "content")
                && any_text(value, &|text| self.control.is_in(text) || holds_marks(text))
        })
    }

    /// Encode with the contents' control texts as text: the template's control tokens by their ids, what lies between
    /// by the literal tokenizer. None when the tokenizer does not work piece by piece.
    fn piecewise(&self, text: &str, contents: &[Range<usize>]) -> Result<Option<Tokens>> {
        let mut tokens = Tokens::default();
        let mut piece = Tokens::default();
        let mut literal = |range: Range<usize>, tokens: &mut Tokens| {
            if !range.is_empty() {
                self.tokenizer.encode(&text[range.clone()], true, &mut piece)?;
                tokens.append(&piece, range.start);
            }
            Ok::<_, Error>(())
        };
        let mut plain_from = 0;
        let mut at = 0;
        // What the template wrote: between the contents, and after the last.
        for content in contents.iter().chain([&(text.len()..text.len())]) {
            if at < content.start {
                for (found, (_, id)) in self.control.find(&text[at..content.start]) {
                    let (start, end) = (at + found.start, at + found.end);
                    literal(plain_from..start, &mut tokens)?;
                    tokens.push(*id, start..end);
                    plain_from = end;
                }
            }
            at = at.max(content.end);
        }
        literal(plain_from..text.len(), &mut tokens)?;
        // Tokens must cover the text: a tokenizer that adds a space before each piece, say, would not give these ids.
        let covered: usize = (0..tokens.len()).map(|index| tokens.range(index, text).len()).sum();
        let same = covered >= text.len() && self.decode(&tokens.ids, false)? == text;
        Ok(same.then_some(tokens))
    }
}

fn needs_template() -> Error {
    Error::data("messages need a chat template")
        .fix("leave apply_chat_template on, or give prompt and completion columns of text")
}

fn is_scored(message: &Message) -> bool {
    message.role == "assistant" && message.scored && message.weight > 0.0
}

/// Whether a reply holds nothing: no text, no thought and no call of a tool.
fn says_nothing(message: &Message) -> bool {
    let is_blank = |value: &Value| match value {
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    let says = |name: &&str| message.fields.get(*name).is_some_and(|value| !is_blank(value));
    message.content.as_deref().is_none_or(|content| content.trim().is_empty())
        && !REASONING.iter().chain(&["tool_calls"]).any(says)
}

/// The id where a token lies wholly inside a scored span, else [`IGNORE`]; the tokens' weights, if any is not 1; and
/// whether a token lies across the border of a span, which is not scored.
pub(crate) fn labels_of(tokens: &Tokens, scored: &[Span]) -> (Vec<i32>, Vec<f32>, bool) {
    let mut labels = vec![IGNORE; tokens.len()];
    let is_weighted = scored.iter().any(|span| span.weight != 1.0);
    let mut weights = vec![1.0; if is_weighted { tokens.len() } else { 0 }];
    let (mut index, mut spans) = (0, false);
    for Span { range, weight } in scored {
        while index < tokens.len() && tokens.start(index) < range.start {
            index += 1;
        }
        spans |= index > 0 && tokens.end(index - 1) > range.start;
        while index < tokens.len() && tokens.end(index) <= range.end {
            // A row's first token has nothing before it to be predicted from.
            if index > 0 && tokens.start(index) < tokens.end(index) {
                labels[index] = tokens.ids[index].cast_signed();
                if is_weighted {
                    weights[index] = *weight;
                }
            }
            index += 1;
        }
        spans |= index < tokens.len() && tokens.start(index) < range.end;
    }
    (labels, weights, spans)
}

fn any_text(value: &Value, found: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => found(text),
        Value::Array(items) => items.iter().any(|item| any_text(item, found)),
        Value::Object(map) => map.iter().any(|(key, item)| found(key) || any_text(item, found)),
        _ => false,
    }
}
