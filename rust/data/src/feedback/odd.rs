//! What is odd about feedback that reads well.

use crate::encode::{Kept, Left};
use crate::record::Record;
use crate::sample::{Role, Sample};

// Losses over pairs have nothing of the first two; methods that also imitate do, so all are used and counted.
// `objectives/odd_rows.py` knows what they are to each method, by these words.
const ONE_REPLY: &str = "a ranking of one reply, which compares nothing";
const ALL_TIE: &str = "a ranking whose replies all tie, which compares nothing";
const TIES: &str = "a ranking with ties, which are not compared";
const REPLY_TWICE: &str = "a ranking that holds the same reply twice";
const TWO_SCORES: &str = "a ranking that scores the same reply in two ways";
const PAIR_TIE: &str = "a pair whose p is 1/2, a tie";
const UNLIKELY: &str = "a pair whose p says that the rejected reply is the better one";
const BELOW: &str = "a pair whose margin is below 0";
const SAME_TOKENS: Left = Left("the two replies are the same tokens");

/// What is odd about a pair, a ranking or a labelled reply that is used all the same, or why it is not.
///
/// Replies are compared as the tokens and the float32 scores that training sees.
pub(super) fn odd(record: &Record, sample: &Sample) -> Kept<Vec<&'static str>> {
    let mut replies = Vec::with_capacity(sample.segments.len());
    let mut start = 0;
    for segment in &sample.segments {
        let end = start + segment.length;
        if segment.role != Role::Prompt {
            replies.push((&sample.ids[start..end], segment.score, segment.role));
        }
        start = end;
    }
    let mut found = Vec::new();
    match replies.as_slice() {
        [(chosen, margin, Role::Chosen), (rejected, p, _)] => {
            if chosen == rejected {
                return Err(SAME_TOKENS);
            }
            found.extend((*margin < 0.0).then_some(BELOW));
            found.extend((*p == 0.5).then_some(PAIR_TIE));
            found.extend((*p < 0.5).then_some(UNLIKELY));
        }
        [_] => found.extend(matches!(record, Record::Ranking(_)).then_some(ONE_REPLY)),
        many => {
            let mut scores: Vec<f32> = many.iter().map(|&(_, score, _)| score).collect();
            scores.sort_unstable_by(f32::total_cmp);
            let ties = scores.windows(2).filter(|pair| pair[0] == pair[1]).count();
            found.extend((ties > 0).then_some(if ties + 1 == scores.len() { ALL_TIE } else { TIES }));
            replies.sort_by(|one, other| one.0.cmp(other.0));
            let same: Vec<bool> =
                replies.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].1 == pair[1].1).collect();
            found.extend(same.contains(&true).then_some(REPLY_TWICE));
            found.extend(same.contains(&false).then_some(TWO_SCORES));
        }
    }
    Ok(found)
}
