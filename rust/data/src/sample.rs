//! One record as tokens: segments that follow each other, of which replies may share a prompt.

/// The label of a token that is not scored.
pub const IGNORE: i32 = -100;

/// What a segment is in its record. The numbers stand in prepared files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum Role {
    /// A conversation or a text, whole.
    Whole = 0,
    /// The prompt that replies of one record share.
    Prompt = 1,
    /// The better reply of a pair.
    Chosen = 2,
    /// The worse reply of a pair.
    Rejected = 3,
    /// A reply of a ranking, or a reply with a label.
    Reply = 4,
    /// A prompt and a solution whose steps are rated: its labels are ratings, at each step's last token.
    Steps = 5,
}

/// A run of tokens that attends to itself and to its parent.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Tokens.
    pub length: usize,
    /// The segment of the same record that it continues, which stands before it.
    pub parent: Option<usize>,
    /// What it is.
    pub role: Role,
    /// A reply's score, a label as 1 or 0, or the margin of a chosen reply; NaN when there is none.
    pub score: f32,
}

/// One record as tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Token ids of all segments.
    pub ids: Vec<i32>,
    /// The id where a token is scored, else [`IGNORE`].
    pub labels: Vec<i32>,
    /// How much each token counts; empty when all count 1.
    pub weights: Vec<f32>,
    /// The segments; their lengths add up to the tokens.
    pub segments: Vec<Segment>,
    /// The number of the criterion that it is about.
    pub criterion: Option<i32>,
    /// How much the record counts; 1 where nothing is said.
    pub record_weight: Option<f32>,
}

impl Sample {
    /// A sample of one segment.
    #[must_use]
    pub fn whole(ids: Vec<i32>, labels: Vec<i32>) -> Self {
        let segment = Segment { length: ids.len(), parent: None, role: Role::Whole, score: f32::NAN };
        Self { ids, labels, segments: vec![segment], ..Self::default() }
    }

    /// Tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}
