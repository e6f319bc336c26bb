//! Solved examples before a question, as FLAN writes them, under a budget of tokens.

use super::Pair;
use crate::error::Result;

const BETWEEN: &str = "\n\n";
const AFTER: &str = "\n\n\n";

/// Counts the tokens of a text.
pub type Count<'a> = dyn Fn(&str) -> Result<usize> + Sync + 'a;

/// The prompt: each exemplar's input and target, then the question.
#[must_use]
pub fn text(exemplars: &[Pair], question: &str) -> String {
    let mut output = String::new();
    for exemplar in exemplars {
        output.push_str(&written(exemplar));
    }
    output.push_str(question);
    output.truncate(output.trim_end_matches(' ').len());
    output
}

fn written(exemplar: &Pair) -> String {
    [&exemplar.prompt, BETWEEN, &exemplar.target, AFTER].concat()
}

/// How many of the exemplars, from the first on, fit before the question: the prompt has at most `max_tokens`.
///
/// # Errors
/// The tokens cannot be counted.
pub fn fitting(exemplars: &[Pair], question: &str, max_tokens: usize, count: &Count) -> Result<usize> {
    let mut used = count(question)?;
    let mut shots = 0;
    for exemplar in exemplars {
        used += count(&written(exemplar))?;
        if used > max_tokens {
            break;
        }
        shots += 1;
    }
    // Pieces can have fewer tokens than what they make together.
    while shots > 0 && count(&text(&exemplars[..shots], question))? > max_tokens {
        shots -= 1;
    }
    Ok(shots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(prompt: &str, target: &str) -> Pair {
        Pair { prompt: prompt.into(), target: target.into() }
    }

    #[test]
    fn the_prompt_is_flans() {
        let exemplars = [pair("1+1?", "2"), pair("2+2?", "4")];
        assert_eq!(text(&exemplars, "3+3?  "), "1+1?\n\n2\n\n\n2+2?\n\n4\n\n\n3+3?");
    }

    proptest! {
        #[test]
        fn the_budget_holds_whatever_counts(
            lengths in prop::collection::vec((0usize..30, 0usize..30), 0..6),
            question in 0usize..40,
            budget in 0usize..150,
            odd: bool,
        ) {
            let exemplars: Vec<Pair> = lengths.iter().map(|&(p, t)| pair(&"p".repeat(p), &"t".repeat(t))).collect();
            let question = "q".repeat(question);
            // One that charges more for a long text than for its parts, too.
            let count = |text: &str| Ok(text.len() + if odd { text.len() / 7 } else { 0 });
            let shots = fitting(&exemplars, &question, budget, &count).unwrap();
            prop_assert!(shots == 0 || count(&text(&exemplars[..shots], &question)).unwrap() <= budget);
            if !odd && shots < exemplars.len() {
                prop_assert!(text(&exemplars[..=shots], &question).len() > budget);
            }
        }
    }
}
