//! What a row says, whatever file and format it came from.
//!
//! Every reader makes these and every stage behind it takes these. A side of a record (a prompt, a reply) is a list of
//! messages; text that stood alone in its column is one message that is [`Message::bare`].

use crate::conversation::Message;
use serde_json::{Map, Value};

/// One example.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Turns, of which assistants' are learned.
    Conversation(Conversation),
    /// Raw text, which no template touches.
    Text(Text),
    /// Two replies, one of them better.
    Preference(Preference),
    /// Several replies with scores.
    Ranking(Ranking),
    /// A solution in steps that are rated.
    Steps(Steps),
    /// One reply that is good or bad.
    Unpaired(Unpaired),
}

/// What a template is given beside the messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    /// Functions that the model may call, as JSON schemas.
    pub tools: Option<Value>,
    /// Documents to answer from.
    pub documents: Option<Value>,
    /// Further variables of the template, by name.
    pub variables: Map<String, Value>,
    /// The prompt as one text that replies follow directly, where the row gave it so and its messages say less: the
    /// transcript before HH's last reply, or a prompt with the space that parts it from its answer. For rows that no
    /// template touches.
    pub raw_prompt: Option<String>,
    /// The instruction and the input that the last prompt joins, where the row gave them apart.
    pub asked: Option<(String, String)>,
}

/// Turns, of which assistants' are learned where [`Message::scored`].
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// The turns.
    pub messages: Vec<Message>,
    /// What the template is given beside them.
    pub context: Context,
}

/// Raw text; only the completion is learned, and the end token after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What is given; may be empty.
    pub prompt: String,
    /// What is learned.
    pub completion: String,
}

/// What a comparison says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// What was compared, by a name or a number of the option `criteria`; any value, where that option is not given.
    pub criterion: Option<Value>,
    /// How much the record counts, at least 0; 1 where nothing is said.
    pub weight: Option<f64>,
}

/// Two replies to one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// What is answered.
    pub prompt: Vec<Message>,
    /// The better reply.
    pub chosen: Vec<Message>,
    /// The worse reply.
    pub rejected: Vec<Message>,
    /// How much better, in the units of a reward.
    pub margin: Option<f64>,
    /// How likely it is that the chosen one is better, 0 to 1.
    pub p: Option<f64>,
    /// What it says of itself.
    pub about: About,
    /// What the template is given beside them.
    pub context: Context,
}

/// Several replies to one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// What is answered.
    pub prompt: Vec<Message>,
    /// The replies; at least one.
    pub responses: Vec<Response>,
    /// What it says of itself.
    pub about: About,
    /// What the template is given beside them.
    pub context: Context,
}

/// A reply and how good it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The reply.
    pub messages: Vec<Message>,
    /// Higher is better; a rank is its negative.
    pub score: f64,
    /// Who wrote it.
    pub model: Option<String>,
}

/// A solution in steps, or several that branch off one another.
#[derive(Debug, Clone, PartialEq)]
pub struct Steps {
    /// The problem.
    pub prompt: Vec<Message>,
    /// The steps, each behind the one that it follows.
    pub steps: Vec<Step>,
    /// What the row says beside them and nothing learns; reports count it.
    pub left_out: Vec<&'static str>,
    /// What the template is given beside them.
    pub context: Context,
}

/// A step and its rating.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The text, without a separator.
    pub text: String,
    /// -1 wrong, 0 neutral, 1 right; None where it only leads up to others.
    pub rating: Option<i8>,
    /// The step before this one; None where it is the first. Alternatives have the same one.
    pub parent: Option<usize>,
}

/// One reply that is good or bad.
#[derive(Debug, Clone, PartialEq)]
pub struct Unpaired {
    /// What is answered.
    pub prompt: Vec<Message>,
    /// The reply.
    pub completion: Vec<Message>,
    /// Whether it is good.
    pub label: bool,
    /// What the template is given beside them.
    pub context: Context,
}

impl Conversation {
    /// Prompt and completion as the row gave them, when each stood alone as text: for training without a template.
    #[must_use]
    pub fn raw(&self) -> Option<Text> {
        let [prompt, completion] = self.messages.as_slice() else { return None };
        if !prompt.bare || !completion.bare {
            return None;
        }
        let prompt = self.context.raw_prompt.clone().or_else(|| prompt.content.clone())?;
        Some(Text { prompt, completion: completion.content.clone()? })
    }
}

impl Record {
    /// The kind, as options and reports name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conversation(_) => "conversation",
            Self::Text(_) => "text",
            Self::Preference(_) => "preference",
            Self::Ranking(_) => "ranking",
            Self::Steps(_) => "steps",
            Self::Unpaired(_) => "unpaired",
        }
    }
}
