//! Pairs, rankings, labelled replies and rated steps as tokens.
//!
//! Replies share their prompt: it is one segment, and each reply another that continues it, so that its first token is
//! predicted from the prompt's last. Prompt and reply are encoded apart, since that is how a model meets them: the prompt
//! is there before the reply is written. No reply ever loses a part: whole old turns leave the prompt from the left, and
//! a record that still does not fit is dropped.

mod odd;

use self::odd::odd;
use crate::chat::Span;
use crate::conversation::Message;
use crate::encode::{CONTROL, Cut, EMPTY, Encoded, Encoder, IGNORE, Kept, Left, Outcome, Whole, labels_of};
use crate::error::{Error, Kind, Result};
use crate::record::{About, Context, Record, Step, Steps};
use crate::sample::{Role, Sample, Segment};
use crate::tokenize::Tokens;
use std::ops::Range;

/// What stands between two steps, in training as in search.
const SEPARATOR: &str = "\n";

const ALL_NEUTRAL: &str = "a solution whose rated steps are all neutral";
const NO_CRITERION: &str = "a comparison without a criterion";
const CRITERION_UNREAD: &str = "a criterion, which is read only where the option criteria names it";
const NO_WEIGHT: Left = Left("a weight of 0");
const BEYOND: Left = Left("a number that float32 cannot hold");

/// A reply to be encoded.
struct Reply<'a> {
    messages: &'a [Message],
    role: Role,
    score: f32,
}

/// A prompt and one of its replies as tokens.
struct Pair {
    prompt: Tokens,
    /// Its ranges are bytes of the text of both.
    reply: Tokens,
    /// Where the reply starts in the text of both.
    start: usize,
    text: String,
    labels: Vec<i32>,
    weights: Vec<f32>,
    control_text: bool,
    notices: Vec<&'static str>,
}

impl Encoder {
    /// What becomes of a record that compares or rates replies.
    pub(crate) fn feedback(&self, record: &Record) -> Result<Vec<Outcome>> {
        let reply =
            |messages, role, score: Option<f64>| Reply { messages, role, score: score.map_or(f32::NAN, |s| s as f32) };
        let mut kept = match record {
            Record::Preference(pair) => {
                let replies =
                    [reply(&*pair.chosen, Role::Chosen, pair.margin), reply(&*pair.rejected, Role::Rejected, pair.p)];
                self.replies(&pair.prompt, &pair.context, &replies)?
            }
            Record::Ranking(ranking) => {
                let replies: Vec<Reply<'_>> =
                    ranking.responses.iter().map(|r| reply(&*r.messages, Role::Reply, Some(r.score))).collect();
                self.replies(&ranking.prompt, &ranking.context, &replies)?
            }
            Record::Unpaired(one) => {
                let label = if one.label { 1.0 } else { 0.0 };
                self.replies(&one.prompt, &one.context, &[reply(&*one.completion, Role::Reply, Some(label))])?
            }
            Record::Steps(steps) => return self.steps(steps),
            Record::Conversation(_) | Record::Text(_) => {
                return Err(Error::new(Kind::Usage, "a conversation is no feedback"));
            }
        };
        let about = match record {
            Record::Preference(pair) => Some(&pair.about),
            Record::Ranking(ranking) => Some(&ranking.about),
            _ => None,
        };
        if let Some(about) = about {
            let criterion = self.criterion(about)?;
            let weight = about.weight.map(|weight| weight as f32);
            match weight {
                Some(0.0) => kept = Err(NO_WEIGHT),
                Some(f32::INFINITY) => kept = Err(BEYOND),
                _ => {}
            }
            if let Ok(encoded) = &mut kept {
                encoded.sample.criterion = criterion;
                encoded.sample.record_weight = weight.filter(|weight| *weight != 1.0);
                encoded.notices.extend(match (self.criteria().is_empty(), &about.criterion) {
                    (true, Some(_)) => Some(CRITERION_UNREAD),
                    (false, None) => Some(NO_CRITERION),
                    _ => None,
                });
            }
        }
        if let Ok(encoded) = &mut kept {
            match odd(record, &encoded.sample) {
                Ok(found) => encoded.notices.extend(found),
                Err(left) => kept = Err(left),
            }
        }
        Ok(vec![kept.into()])
    }

    /// The number of what a record is about; none where it says nothing, or there are no names.
    fn criterion(&self, about: &About) -> Result<Option<i32>> {
        let (names, Some(given)) = (self.criteria(), &about.criterion) else { return Ok(None) };
        if names.is_empty() {
            return Ok(None);
        }
        let place = match given.as_str() {
            // A CSV file has places as text.
            Some(name) => names.iter().position(|known| known == name).or_else(|| name.parse().ok()),
            None => given.as_u64().and_then(|at| usize::try_from(at).ok()),
        };
        let place = place.filter(|&at| at < names.len()).and_then(|at| i32::try_from(at).ok()).ok_or_else(|| {
            Error::data(format!("criterion is {given}, none of {}", names.join(", ")))
                .fix("give one of these names, or its place from 0; or name all of them in criteria")
        })?;
        Ok(Some(place))
    }

    /// The replies of a record, each by its name and behind the whole prompt, to be looked at.
    pub(crate) fn wholes(&self, record: &Record) -> Result<Vec<(String, Whole)>> {
        let score = |score: f64| format!("score {score}");
        let replies: Vec<(String, &[Message])> = match record {
            Record::Preference(pair) => {
                vec![("chosen".into(), &*pair.chosen), ("rejected".into(), &*pair.rejected)]
            }
            Record::Ranking(ranking) => ranking.responses.iter().map(|r| (score(r.score), &*r.messages)).collect(),
            Record::Unpaired(one) => vec![((if one.label { "good" } else { "bad" }).into(), &*one.completion)],
            Record::Steps(_) | Record::Conversation(_) | Record::Text(_) => Vec::new(),
        };
        let (prompt, context) = match record {
            Record::Preference(pair) => (&pair.prompt, &pair.context),
            Record::Ranking(ranking) => (&ranking.prompt, &ranking.context),
            Record::Unpaired(one) => (&one.prompt, &one.context),
            Record::Steps(steps) => return self.way_wholes(steps),
            Record::Conversation(_) | Record::Text(_) => return Ok(Vec::new()),
        };
        let mut wholes = Vec::with_capacity(replies.len());
        for (name, reply) in replies {
            if let Ok(pair) = self.pair(prompt, reply, context)? {
                wholes.push((name, pair.whole()));
            }
        }
        Ok(wholes)
    }

    fn way_wholes(&self, record: &Steps) -> Result<Vec<(String, Whole)>> {
        let mut wholes = Vec::new();
        for (way, ratings) in ways(record) {
            let steps: Vec<&Step> = way.iter().map(|&step| &record.steps[step]).collect();
            let reply = [solution_of(record, &steps)];
            if let Ok(pair) = self.pair(&record.prompt, &reply, &record.context)?
                && let Ok(labels) = self.step_labels(&pair, &reply[0], &steps, &ratings)?
            {
                let shown = ratings.iter().map(|rating| rating.map_or_else(|| "-".into(), |rating| rating.to_string()));
                let name = format!("steps rated {}", shown.collect::<Vec<_>>().join(" "));
                wholes.push((name, Whole { labels, ..pair.whole() }));
            }
        }
        Ok(wholes)
    }

    /// A prompt and its replies; old turns of the prompt are left out until all fits.
    fn replies(&self, prompt: &[Message], context: &Context, replies: &[Reply<'_>]) -> Result<Kept<Encoded>> {
        if let Some(left) = self.unreadable(prompt) {
            return Ok(Err(left));
        }
        for reply in replies {
            if let Some(left) = self.unreadable(reply.messages) {
                return Ok(Err(left));
            }
            if is_empty(reply.messages) {
                return Ok(Err(Left(EMPTY)));
            }
            if reply.score.is_infinite() {
                return Ok(Err(BEYOND));
            }
        }
        self.shortening(prompt, |prompt, cut| {
            let mut sample = Sample::default();
            let (mut control_text, mut notices) = (false, Vec::new());
            for (index, reply) in replies.iter().enumerate() {
                let pair = match self.pair(prompt, reply.messages, context)? {
                    Ok(pair) => pair,
                    Err(left) => return Ok(Err(left)),
                };
                let ids = |tokens: &Tokens| tokens.ids.iter().map(|id| id.cast_signed()).collect::<Vec<i32>>();
                let prompt_ids = ids(&pair.prompt);
                if index == 0 {
                    let length = prompt_ids.len();
                    sample.labels.resize(length, IGNORE);
                    sample.segments.push(Segment { length, parent: None, role: Role::Prompt, score: f32::NAN });
                    sample.ids = prompt_ids;
                } else if sample.ids[..sample.segments[0].length] != prompt_ids {
                    return Err(Error::new(Kind::Mask, "the replies do not share their prompt")
                        .because("the template writes the prompt otherwise when another reply follows"));
                }
                if !pair.weights.is_empty() && sample.weights.is_empty() {
                    sample.weights.resize(sample.ids.len(), 1.0);
                }
                let length = pair.reply.len();
                sample.ids.extend(ids(&pair.reply));
                sample.labels.extend_from_slice(&pair.labels);
                if !sample.weights.is_empty() {
                    sample.weights.extend_from_slice(&pair.weights);
                    sample.weights.resize(sample.ids.len(), 1.0);
                }
                sample.segments.push(Segment { length, parent: Some(0), role: reply.role, score: reply.score });
                control_text |= pair.control_text;
                notices.extend(pair.notices);
            }
            let whole_tokens = sample.len();
            Ok(Ok(Encoded { sample, cut, whole_tokens, control_text, notices }))
        })
    }

    /// Make a sample with ever fewer of a prompt's old turns, until it fits.
    fn shortening(
        &self,
        prompt: &[Message],
        make: impl Fn(&[Message], Cut) -> Result<Kept<Encoded>>,
    ) -> Result<Kept<Encoded>> {
        let system = prompt.iter().take_while(|message| message.role == "system").count();
        let mut from = system;
        let mut cut = Cut::Whole;
        loop {
            let kept = if from == system {
                make(prompt, cut)?
            } else {
                make(&[&prompt[..system], &prompt[from..]].concat(), cut)?
            };
            match kept {
                Ok(encoded) if encoded.sample.len() > self.max_length => {}
                kept => return Ok(kept),
            }
            let rest = prompt.get(from + 1..).unwrap_or_default();
            let Some(next) = rest.iter().position(|message| message.role == "user") else {
                return Ok(Err(Left("longer than max_length with its last turn alone")));
            };
            (from, cut) = (from + 1 + next, Cut::Prompt);
        }
    }

    fn pair(&self, prompt: &[Message], reply: &[Message], context: &Context) -> Result<Kept<Pair>> {
        let Some(chat) = self.chat() else {
            return self.raw_pair(prompt, reply, context).map(Ok);
        };
        let rendered = chat.render_reply(prompt, reply, context).map_err(|error| {
            if !prompt.is_empty() {
                return error;
            }
            Error::data("the row has no prompt, and this template does not render a reply alone")
                .because(error.why.unwrap_or(error.what))
                .fix("add a prompt column, or set apply_chat_template to false for raw text")
        })?;
        let start = rendered.prompt_text.len();
        let inside = |range: &Range<usize>, from: usize, to: usize| {
            let (a, b) = (range.start.clamp(from, to), range.end.clamp(from, to));
            (a < b).then(|| a - from..b - from)
        };
        let end = start + rendered.reply_text.len();
        let before: Vec<Range<usize>> = rendered.contents.iter().filter_map(|range| inside(range, 0, start)).collect();
        let after: Vec<Range<usize>> = rendered.contents.iter().filter_map(|range| inside(range, start, end)).collect();
        let (Some((prompt, one)), Some((reply, two))) =
            (self.tokens(&rendered.prompt_text, &before)?, self.tokens(&rendered.reply_text, &after)?)
        else {
            return Ok(Err(CONTROL));
        };
        let reply = moved(&reply, start);
        let text = rendered.prompt_text + &rendered.reply_text;
        let pair = scored(prompt, reply, start, text, &rendered.scored, one || two);
        Ok(Ok(Pair { notices: rendered.unwritten, ..pair }))
    }

    /// Without a template: the prompt's text, and the reply's with the end token.
    fn raw_pair(&self, prompt: &[Message], reply: &[Message], context: &Context) -> Result<Pair> {
        let alone = |messages: &[Message]| match messages {
            [message] if message.bare => message.content.clone(),
            _ => None,
        };
        let needs = || Error::data("messages need a chat template").fix("leave apply_chat_template on");
        let before = match &context.raw_prompt {
            Some(text) => text.clone(),
            None if prompt.is_empty() => String::new(),
            None => alone(prompt).ok_or_else(needs)?,
        };
        let after = alone(reply).ok_or_else(needs)?;
        let (prompt, one) = self.raw_tokens(&before)?;
        let (reply, two) = self.raw_tokens(&after)?;
        let (start, end) = (before.len(), before.len() + after.len());
        let mut reply = moved(&reply, start);
        reply.push(self.end_token()?, end..end + 1);
        let span = Span { range: start..end + 1, weight: 1.0 };
        Ok(scored(prompt, reply, start, before + &after, &[span], one || two))
    }

    /// Each way through the steps as a sample: the prompt and the steps as one text, as a policy would write it, and at
    /// the token that holds a step's last character its rating. A step that several ways share is rated in the first.
    fn steps(&self, record: &Steps) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for (way, ratings) in ways(record) {
            let steps: Vec<&Step> = way.iter().map(|&step| &record.steps[step]).collect();
            outcomes.push(self.way(record, &steps, &ratings)?.into());
        }
        if outcomes.is_empty() {
            outcomes.push(Outcome::Dropped(Left("no rated step")));
        }
        let used = outcomes.iter_mut().find_map(|outcome| match outcome {
            Outcome::Used(encoded) => Some(encoded),
            Outcome::Dropped(_) => None,
        });
        if let Some(first) = used {
            first.notices.extend_from_slice(&record.left_out);
            let is_neutral = record.steps.iter().filter_map(|step| step.rating).all(|rating| rating == 0);
            first.notices.extend(is_neutral.then_some(ALL_NEUTRAL));
        }
        Ok(outcomes)
    }

    fn way(&self, record: &Steps, steps: &[&Step], ratings: &[Option<i8>]) -> Result<Kept<Encoded>> {
        if steps.iter().any(|step| step.text.trim().is_empty()) {
            return Ok(Err(Left("an empty step")));
        }
        let reply = [solution_of(record, steps)];
        if let Some(left) = self.unreadable(&record.prompt).or_else(|| self.unreadable(&reply)) {
            return Ok(Err(left));
        }
        self.shortening(&record.prompt, |prompt, cut| {
            let pair = match self.pair(prompt, &reply, &record.context)? {
                Ok(pair) => pair,
                Err(left) => return Ok(Err(left)),
            };
            let labels = match self.step_labels(&pair, &reply[0], steps, ratings)? {
                Ok(labels) => labels,
                Err(left) => return Ok(Err(left)),
            };
            let ids: Vec<i32> = pair.prompt.ids.iter().chain(&pair.reply.ids).map(|id| id.cast_signed()).collect();
            let mut sample = Sample::whole(ids, labels);
            sample.segments[0].role = Role::Steps;
            let whole_tokens = sample.len();
            let Pair { control_text, notices, .. } = pair;
            Ok(Ok(Encoded { sample, cut, whole_tokens, control_text, notices }))
        })
    }

    /// The ratings at the tokens that hold the steps' last characters, [`IGNORE`] elsewhere.
    fn step_labels(
        &self,
        pair: &Pair,
        reply: &Message,
        steps: &[&Step],
        ratings: &[Option<i8>],
    ) -> Result<Kept<Vec<i32>>> {
        let solution = reply.content.as_deref().unwrap_or_default();
        // A template may trim what it is given, at the ends only.
        let told = solution.trim();
        let skipped = solution.len() - solution.trim_start().len();
        let Some(at) = pair.text[pair.start..].find(told) else {
            return Err(Error::new(Kind::Mask, "the steps cannot be found in the rendered text")
                .because("the template changes what the assistant says"));
        };
        let mut labels = vec![IGNORE; pair.prompt.len() + pair.reply.len()];
        let mut before = 0;
        for (step, rating) in steps.iter().zip(ratings) {
            let end = before + step.text.trim_end().len();
            before += step.text.len() + SEPARATOR.len();
            let Some(rating) = rating else { continue };
            let byte = (pair.start + at + end).saturating_sub(skipped + 1);
            let label = labels.get_mut(pair.prompt.len() + pair.reply.ending_by(byte));
            match label {
                Some(label) if *label == IGNORE => *label = i32::from(*rating),
                _ => return Ok(Err(Left("two steps end in one token"))),
            }
        }
        Ok(Ok(labels))
    }
}

/// Steps by their numbers, and the ratings that they have here.
type Way = (Vec<usize>, Vec<Option<i8>>);

/// The ways through a tree of steps that rate something new.
fn ways(record: &Steps) -> Vec<Way> {
    let mut is_parent = vec![false; record.steps.len()];
    record.steps.iter().filter_map(|step| step.parent).for_each(|parent| is_parent[parent] = true);
    let mut rated = vec![false; record.steps.len()];
    let mut ways = Vec::new();
    for last in (0..record.steps.len()).filter(|&step| !is_parent[step]) {
        let mut way = vec![last];
        while let Some(parent) = way.last().and_then(|&step| record.steps[step].parent) {
            way.push(parent);
        }
        way.reverse();
        let rating = |&step: &usize| {
            let was_rated = std::mem::replace(&mut rated[step], true);
            record.steps[step].rating.filter(|_| !was_rated)
        };
        let ratings: Vec<Option<i8>> = way.iter().map(rating).collect();
        if ratings.iter().any(Option::is_some) {
            ways.push((way, ratings));
        }
    }
    ways
}

fn solution_of(record: &Steps, steps: &[&Step]) -> Message {
    let text = steps.iter().map(|step| step.text.as_str()).collect::<Vec<_>>().join(SEPARATOR);
    Message { bare: record.prompt.iter().all(|message| message.bare), ..Message::text("assistant", &text) }
}

impl Pair {
    /// Prompt and reply as one, to be looked at.
    fn whole(self) -> Whole {
        let mut tokens = self.prompt;
        let mut labels = vec![IGNORE; tokens.len()];
        labels.extend(self.labels);
        tokens.append(&self.reply, 0);
        Whole {
            contents: vec![("prompt".into(), 0..self.start), ("reply".into(), self.start..self.text.len())],
            ends: vec![self.text.len()],
            text: self.text,
            tokens,
            labels,
            weights: Vec::new(),
            control_text: self.control_text,
            notices: self.notices,
        }
    }
}

/// Tokens of a piece as those of the text that it is a piece of.
fn moved(piece: &Tokens, start: usize) -> Tokens {
    let mut tokens = Tokens::default();
    tokens.append(piece, start);
    tokens
}

fn scored(prompt: Tokens, reply: Tokens, start: usize, text: String, spans: &[Span], control_text: bool) -> Pair {
    // The reply's first token has the prompt before it, so it is told as if a token of the prompt stood there.
    let mut all = Tokens::default();
    all.push(0, start..start);
    all.append(&reply, 0);
    let (mut labels, mut weights, _) = labels_of(&all, spans);
    labels.remove(0);
    if !weights.is_empty() {
        weights.remove(0);
    }
    Pair { prompt, reply, start, text, labels, weights, control_text, notices: Vec::new() }
}

fn is_empty(messages: &[Message]) -> bool {
    messages.iter().all(|message| {
        message.content.as_deref().is_none_or(|content| content.trim().is_empty())
            && !message.fields.contains_key("tool_calls")
    })
}
