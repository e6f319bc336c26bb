//! Several mixtures, one after the other, each of which may go on with some of an earlier one.

use crate::error::{Error, Kind, Result};
use crate::mixture::{Mixture, Position, Spec};
use serde::{Deserialize, Serialize};

/// A stretch of draws.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// What is drawn from.
    pub mixture: Spec,
    /// How many draws it has, the replayed ones among them.
    pub draws: u64,
    /// The share that goes to an earlier stage's mixture, which is drawn on from where it stopped.
    #[serde(default)]
    pub replay: f64,
    /// Which stage is replayed; the one before, if it is not said.
    #[serde(default)]
    pub replay_of: Option<usize>,
    /// Over so many draws the earlier mixture's share falls in a straight line from 1 to `replay`.
    #[serde(default)]
    pub ramp: u64,
}

/// Where a curriculum stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The draws that were made.
    pub drawn: u64,
    /// Where each stage's mixture stands.
    pub stages: Vec<Position>,
}

/// Draws of stages in turn. Replayed draws are a quota by the draw's number, not chance, so their share is exact.
#[derive(Debug, Clone)]
pub struct Curriculum {
    stages: Vec<Stage>,
    mixtures: Vec<Mixture>,
    names: Vec<String>,
    /// For each stage, the numbers in `names` of its mixture's sources.
    numbers: Vec<Vec<usize>>,
    drawn: u64,
}

impl Curriculum {
    /// A curriculum. The first stage draws what its mixture alone would draw with this seed.
    ///
    /// # Errors
    /// As [`Spec::leaves`]; a stage without draws, a share outside 0 to 1, a replay of no earlier stage, a ramp that
    /// is longer than its stage.
    pub fn new(stages: Vec<Stage>, seed: u64) -> Result<Self> {
        if stages.is_empty() {
            return Err(Error::new(Kind::Usage, "there is no stage").fix("give at least one"));
        }
        let mut made =
            Self { stages: Vec::new(), mixtures: Vec::new(), names: Vec::new(), numbers: Vec::new(), drawn: 0 };
        let mut total = 0u64;
        for (index, stage) in stages.iter().enumerate() {
            let place = format!("stages[{index}]");
            total =
                total.checked_add(stage.draws).filter(|_| (1..1 << 52).contains(&stage.draws)).ok_or_else(|| {
                    Error::new(Kind::Usage, format!("draws is {}", stage.draws))
                        .at(place.clone())
                        .fix("it must be 1 to 2^52")
                })?;
            if !(0.0..=1.0).contains(&stage.replay) {
                return Err(Error::new(Kind::Usage, format!("replay is {}", stage.replay))
                    .at(place)
                    .fix("it must be 0 to 1"));
            }
            if stage.ramp > stage.draws {
                return Err(Error::new(Kind::Usage, format!("ramp is {}", stage.ramp))
                    .at(place)
                    .fix("it must be at most the stage's draws"));
            }
            let replays = stage.replay > 0.0 || stage.ramp > 0 || stage.replay_of.is_some();
            if replays && stage.replay_of.map_or(index == 0, |of| of >= index) {
                return Err(Error::new(Kind::Usage, "no earlier stage is there to be replayed")
                    .at(place)
                    .fix("count stages from 0"));
            }
            let mixture = Mixture::new(&stage.mixture, seed, index as u64).map_err(|e| {
                let inner = e.location.clone().unwrap_or_default();
                Error { location: Some(format!("{place}.{inner}")), ..e }
            })?;
            let mut numbers = Vec::new();
            for leaf in mixture.leaves() {
                let known = made.names.iter().position(|name| *name == leaf.name);
                numbers.push(known.unwrap_or(made.names.len()));
                if known.is_none() {
                    made.names.push(leaf.name.clone());
                }
            }
            made.numbers.push(numbers);
            made.mixtures.push(mixture);
        }
        made.stages = stages;
        Ok(made)
    }

    /// The names of all stages' sources, as draws number them.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Each stage's mixture, where it stands.
    #[must_use]
    pub fn mixtures(&self) -> &[Mixture] {
        &self.mixtures
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        State { drawn: self.drawn, stages: self.mixtures.iter().map(|mixture| mixture.position().clone()).collect() }
    }

    /// Go on from a state.
    ///
    /// # Errors
    /// The state is not one of this curriculum.
    pub fn restore(&mut self, state: State) -> Result<()> {
        if state.stages.len() != self.mixtures.len() {
            return Err(Error::new(Kind::Usage, "the state has another number of stages"));
        }
        let mut mixtures = self.mixtures.clone();
        for (mixture, position) in mixtures.iter_mut().zip(state.stages) {
            mixture.restore(position)?;
        }
        self.mixtures = mixtures;
        self.drawn = state.drawn;
        Ok(())
    }

    /// The next draw as (stage, source by [`Curriculum::names`], row); `None` after the last stage.
    ///
    /// # Errors
    /// A mixture that stops when a source is empty has stopped before its stage was over.
    pub fn draw(&mut self) -> Result<Option<(usize, usize, u64)>> {
        let Some((stage, from)) = self.turn() else { return Ok(None) };
        let (source, row) = self.mixtures[from].draw().ok_or_else(|| {
            Error::new(Kind::Usage, "the mixture has no more rows to draw")
                .at(format!("stages[{from}]"))
                .fix("exhaust: repeat, or fewer draws")
        })?;
        self.drawn += 1;
        Ok(Some((stage, self.numbers[from][source], row)))
    }

    /// Which stage the next draw belongs to, and whose mixture makes it.
    fn turn(&self) -> Option<(usize, usize)> {
        let mut at = self.drawn;
        for (index, stage) in self.stages.iter().enumerate() {
            if at < stage.draws {
                let is_replay = index > 0 && stage.replayed(at + 1) > stage.replayed(at);
                return Some((index, if is_replay { stage.replay_of.unwrap_or(index - 1) } else { index }));
            }
            at -= stage.draws;
        }
        None
    }
}

impl Stage {
    /// How many of the stage's first `draws` are replayed: the integral of the share, rounded to the nearest.
    fn replayed(&self, draws: u64) -> u64 {
        let (draws, ramp) = (draws as f64, self.ramp as f64);
        let falling = draws.min(ramp);
        let fallen = if self.ramp > 0 { falling - (1.0 - self.replay) * falling * falling / (2.0 * ramp) } else { 0.0 };
        (fallen + self.replay * (draws - falling) + 0.5).floor() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::{Exhaust, Node};

    fn stage(names: &[&str], draws: u64) -> Stage {
        let node = |name: &&str| Node { name: (*name).into(), rows: Some(50), ..Default::default() };
        let mixture = Spec { sources: names.iter().map(node).collect(), ..Default::default() };
        Stage { mixture, draws, ..Default::default() }
    }

    fn rest(curriculum: &mut Curriculum) -> Vec<(usize, usize, u64)> {
        std::iter::from_fn(|| curriculum.draw().unwrap()).collect()
    }

    #[test]
    fn replay_is_exact_at_every_prefix_and_goes_on_with_the_earlier_stage() {
        for share in [0.0, 0.1, 1.0 / 3.0, 0.95, 1.0] {
            let second = Stage { replay: share, ..stage(&["chat"], 2000) };
            let mut curriculum = Curriculum::new(vec![stage(&["a", "b"], 300), second], 5).unwrap();
            assert_eq!(curriculum.names(), ["a", "b", "chat"]);
            let draws = rest(&mut curriculum);
            assert_eq!(draws.len(), 2300);
            let mut replayed = 0u32;
            for (done, draw) in (1u32..).zip(&draws[300..]) {
                assert_eq!(draw.0, 1);
                replayed += u32::from(draw.1 < 2);
                assert!((f64::from(replayed) - share * f64::from(done)).abs() <= 0.5 + 1e-9);
            }
            let mut plain = Mixture::new(&stage(&["a", "b"], 1).mixture, 5, 0).unwrap();
            let of_first: Vec<(usize, u64)> = draws.iter().filter(|d| d.1 < 2).map(|d| (d.1, d.2)).collect();
            let alone: Vec<(usize, u64)> = (0..of_first.len()).map(|_| plain.draw().unwrap()).collect();
            assert_eq!(of_first, alone);
        }
    }

    #[test]
    fn a_ramp_falls_in_a_straight_line() {
        let second = Stage { replay: 0.2, ramp: 1000, ..stage(&["chat"], 2000) };
        let mut curriculum = Curriculum::new(vec![stage(&["a"], 10), second], 0).unwrap();
        let draws = rest(&mut curriculum);
        let share = |from: usize| draws[10 + from..10 + from + 100].iter().filter(|d| d.1 == 0).count();
        for (from, expected) in [(0, 96), (450, 60), (900, 24), (1500, 20)] {
            assert!(share(from).abs_diff(expected) <= 1, "{from}: {}", share(from));
        }
    }

    #[test]
    fn every_state_continues_the_unbroken_run() {
        let stages = || {
            let second = Stage { replay: 0.25, ramp: 10, ..stage(&["b", "c"], 40) };
            vec![stage(&["a", "b"], 30), second, Stage { replay: 0.5, replay_of: Some(0), ..stage(&["d"], 20) }]
        };
        let whole = rest(&mut Curriculum::new(stages(), 9).unwrap());
        assert_eq!(whole.len(), 90);
        let mut walker = Curriculum::new(stages(), 9).unwrap();
        for done in 0..=whole.len() {
            let mut resumed = Curriculum::new(stages(), 9).unwrap();
            let state = serde_json::to_string(&walker.state()).unwrap();
            resumed.restore(serde_json::from_str(&state).unwrap()).unwrap();
            assert_eq!(rest(&mut resumed), whole[done..]);
            walker.draw().unwrap();
        }
    }

    #[test]
    fn mistakes_are_named() {
        let at = |stages: Vec<Stage>| Curriculum::new(stages, 0).unwrap_err().location;
        let first = || stage(&["a"], 5);
        assert_eq!(at(vec![]), None);
        assert_eq!(at(vec![stage(&["a"], 0)]).unwrap(), "stages[0]");
        assert_eq!(at(vec![first(), stage(&[], 5)]).unwrap(), "stages[1].mixture");
        for wrong in [
            Stage { replay: 1.5, ..first() },
            Stage { replay: f64::NAN, ..first() },
            Stage { ramp: 6, ..first() },
            Stage { replay_of: Some(1), ..first() },
        ] {
            assert_eq!(at(vec![first(), wrong]).unwrap(), "stages[1]");
        }
        assert_eq!(at(vec![Stage { replay: 0.5, ..first() }]).unwrap(), "stages[0]");
        let mut short = stage(&["a"], 60);
        short.mixture.exhaust = Exhaust::Stop;
        let mut curriculum = Curriculum::new(vec![short], 0).unwrap();
        assert!((0..50).all(|_| curriculum.draw().unwrap().is_some()));
        assert!(curriculum.draw().is_err());
    }
}
