//! What a mixture is, and each source's share of the draws.

use crate::error::{Error, Kind, Result};
use serde::Deserialize;

/// What a mixture's rates are made from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// The size of each part.
    #[default]
    Examples,
    /// One for each part.
    Equal,
    /// Each part's `weight`.
    Weights,
}

/// What happens when a source has given all its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exhaust {
    /// It begins anew, in another order.
    #[default]
    Repeat,
    /// The draws end.
    Stop,
    /// The others go on without it, in the shares they have among each other.
    Drop,
}

/// What sizes and shares count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Rows.
    #[default]
    Examples,
    /// Tokens.
    Tokens,
}

/// A part of a mixture: a source, or a mixture of its own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The name. The same name at several places is one source, drawn at the sum of its rates.
    pub name: String,
    /// The rows of a source.
    pub rows: Option<u64>,
    /// The tokens of a source, where shares count tokens.
    pub tokens: Option<u64>,
    /// The rate, where the mixture is by weights.
    pub weight: Option<f64>,
    /// The parts of this part, instead of rows.
    pub mixture: Option<Spec>,
}

/// A mixture.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// What is mixed.
    pub sources: Vec<Node>,
    /// What rates are made from.
    pub rate: Rate,
    /// What a size is multiplied by, before the cap.
    pub scale: Option<f64>,
    /// The most that a size counts for.
    pub cap: Option<f64>,
    /// Rates are raised to the power of 1 over this: above 1 draws shares together.
    pub temperature: Option<f64>,
    /// What sizes and shares count; only the outermost says it.
    pub unit: Unit,
    /// What happens at a source's end; only the outermost says it.
    pub exhaust: Exhaust,
}

/// A source and its share.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// The name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Its tokens, if they were given.
    pub tokens: Option<u64>,
    /// The chance that a draw is of it, by rows whatever the unit is.
    pub share: f64,
}

impl Spec {
    /// Every source with its share of the draws, in the order in which they first stand.
    ///
    /// As in seqio: a part's rate is `min(size * scale, cap) ^ (1 / temperature)`, or its weight or 1 to that power; a
    /// source's is the sum over the places where it stands of the part's rate times its share within the part.
    ///
    /// # Errors
    /// A number out of range, a part that is neither source nor mixture, a name with two sizes, or shares that are
    /// all 0; `at` is the path of names.
    pub fn leaves(&self) -> Result<Vec<Leaf>> {
        let mut leaves = Vec::new();
        self.spread("mixture", 1.0, self.unit, true, 0, &mut leaves)?;
        if self.unit == Unit::Tokens {
            // A draw takes a row, so a source of long rows is drawn less often for the same share of tokens.
            for leaf in &mut leaves {
                leaf.share *= leaf.rows as f64 / leaf.tokens.unwrap_or(1) as f64;
            }
        }
        let total: f64 = leaves.iter().map(|leaf| leaf.share).sum();
        leaves.iter_mut().for_each(|leaf| leaf.share /= total);
        Ok(leaves)
    }

    fn spread(
        &self,
        place: &str,
        share: f64,
        unit: Unit,
        is_root: bool,
        depth: usize,
        leaves: &mut Vec<Leaf>,
    ) -> Result<()> {
        if depth > 32 {
            return Err(Error::new(Kind::Usage, "mixtures stand 32 deep in each other")
                .at(place)
                .fix("put their sources together"));
        }
        if !is_root && (self.unit != Unit::default() || self.exhaust != Exhaust::default()) {
            return Err(Error::new(Kind::Usage, "unit and exhaust stand in an inner mixture")
                .at(place)
                .fix("give them to the outermost only"));
        }
        let rates = self.rates(place, unit)?;
        let total: f64 = rates.iter().sum();
        for (node, rate) in self.sources.iter().zip(rates) {
            let (place, share) = (format!("{place}.{}", node.name), share * rate / total);
            match (&node.mixture, node.rows) {
                (Some(inner), None) => inner.spread(&place, share, unit, false, depth + 1, leaves)?,
                (None, Some(rows)) => match leaves.iter_mut().find(|leaf| leaf.name == node.name) {
                    Some(leaf) if leaf.rows == rows && leaf.tokens == node.tokens => leaf.share += share,
                    Some(leaf) => {
                        let what = format!("{} has {rows} rows here and {} elsewhere", node.name, leaf.rows);
                        return Err(Error::new(Kind::Usage, what)
                            .at(place.clone())
                            .fix("one name is one source: give the other another name"));
                    }
                    None => {
                        leaves.push(Leaf { name: node.name.clone(), rows, tokens: node.tokens, share });
                    }
                },
                _ => {
                    return Err(Error::new(Kind::Usage, "this is no source")
                        .at(place.clone())
                        .fix("give it either rows or a mixture"));
                }
            }
        }
        Ok(())
    }

    fn rates(&self, place: &str, unit: Unit) -> Result<Vec<f64>> {
        let bounds = [("scale", self.scale), ("cap", self.cap), ("temperature", self.temperature)];
        for (name, value) in bounds {
            if value.is_some_and(|value| !(value > 0.0 && value.is_finite())) {
                let what = format!("{name} is {}", value.unwrap_or(0.0));
                return Err(Error::new(Kind::Usage, what).at(place).fix("it must be a number above 0"));
            }
        }
        if self.rate != Rate::Examples && (self.cap.is_some() || self.scale.is_some()) {
            return Err(Error::new(Kind::Usage, "cap and scale act on sizes, which are not used here")
                .at(place)
                .fix("leave them out"));
        }
        if self.sources.is_empty() {
            return Err(Error::new(Kind::Usage, "nothing is mixed").at(place).fix("name at least one source"));
        }
        let mut rates = Vec::with_capacity(self.sources.len());
        for (index, node) in self.sources.iter().enumerate() {
            let place = format!("{place}.{}", node.name);
            if self.sources[..index].iter().any(|other| other.name == node.name) {
                return Err(Error::new(Kind::Usage, "the name stands twice")
                    .at(place.clone())
                    .fix("give each part another name"));
            }
            if node.weight.is_some() != (self.rate == Rate::Weights) {
                let given = if node.weight.is_some() { "given" } else { "missing" };
                return Err(Error::new(Kind::Usage, format!("a weight is {given}"))
                    .at(place.clone())
                    .fix("give every part a weight, or none"));
            }
            let mut rate = match self.rate {
                Rate::Equal => 1.0,
                Rate::Weights => node.weight.unwrap_or(0.0),
                Rate::Examples => {
                    let size = node.size(&place, unit, 0)? * self.scale.unwrap_or(1.0);
                    self.cap.map_or(size, |cap| size.min(cap))
                }
            };
            if !(rate >= 0.0 && rate.is_finite()) {
                return Err(Error::new(Kind::Usage, format!("the weight is {rate}"))
                    .at(place.clone())
                    .fix("it must be a number, 0 or above"));
            }
            if let Some(temperature) = self.temperature {
                // 0 to any power stays 0: what is left out does not come back.
                rate = if rate > 0.0 { rate.powf(1.0 / temperature) } else { 0.0 };
            }
            // Sizes are checked even where rates do not need them.
            node.size(&place, unit, 0)?;
            rates.push(rate);
        }
        let total: f64 = rates.iter().sum();
        if !(total > 0.0 && total.is_finite()) {
            return Err(Error::new(Kind::Usage, "the rates are all 0, or beyond all bounds")
                .at(place)
                .fix("give some part a usable rate"));
        }
        Ok(rates)
    }
}

impl Node {
    /// Rows or tokens; those of a mixture are its parts' together.
    fn size(&self, place: &str, unit: Unit, depth: usize) -> Result<f64> {
        if let Some(inner) = self.mixture.as_ref().filter(|_| depth <= 32) {
            let mut seen: Vec<&str> = Vec::new();
            let mut total = 0.0;
            for node in &inner.sources {
                if !seen.contains(&node.name.as_str()) {
                    seen.push(&node.name);
                    total += node.size(&format!("{place}.{}", node.name), unit, depth + 1)?;
                }
            }
            return Ok(total);
        }
        let size = match unit {
            Unit::Examples => self.rows,
            Unit::Tokens => self.rows.and(self.tokens),
        };
        match size {
            Some(0) => Err(Error::new(Kind::Usage, "the source is empty").at(place).fix("leave it out")),
            Some(_) if self.rows == Some(0) => {
                Err(Error::new(Kind::Usage, "the source is empty").at(place).fix("leave it out"))
            }
            Some(size) => Ok(size as f64),
            None if self.rows.is_some() => Err(Error::new(Kind::Usage, "the source's tokens are not known")
                .at(place)
                .fix("give `tokens`, or count by examples")),
            None => Err(Error::new(Kind::Usage, "this is no source").at(place).fix("give it either rows or a mixture")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Spec {
        serde_json::from_str(json).unwrap()
    }

    fn shares(json: &str) -> Vec<f64> {
        spec(json).leaves().unwrap().into_iter().map(|leaf| leaf.share).collect()
    }

    const THREE: &str = r#""sources":[{"name":"a","rows":100},{"name":"b","rows":5000},{"name":"c","rows":1000000}]"#;

    #[test]
    fn golden_numbers_of_the_survey() {
        let check = |options: &str, expected: [f64; 3]| {
            for (share, expected) in shares(&format!("{{{THREE}{options}}}")).iter().zip(expected) {
                assert!((share - expected).abs() < 1e-12, "{options}: {share} is not {expected}");
            }
        };
        check("", [9.949_258_780_220_874e-5, 0.004_974_629_390_110_436_5, 0.994_925_878_022_087_3]);
        check(r#","cap":3000"#, [0.016_393_442_622_950_82, 0.491_803_278_688_524_6, 0.491_803_278_688_524_6]);
        check(
            r#","cap":3000,"temperature":2"#,
            [0.083_650_850_000_868_23, 0.458_174_574_999_565_8, 0.458_174_574_999_565_8],
        );
        check(r#","temperature":1e9"#, [0.333_333_331_875_292_96, 0.333_333_333_179_300_6, 0.333_333_334_945_406_46]);
        check(r#","rate":"equal""#, [1.0 / 3.0; 3]);
        // The cap acts after the scale: 100, 5000 and 1e6 halved, then cut at 3000.
        check(r#","scale":0.5,"cap":3000"#, [50.0 / 5550.0, 2500.0 / 5550.0, 3000.0 / 5550.0]);
    }

    #[test]
    fn inner_mixtures_give_their_rate_times_the_inner_share_plus_the_direct_rate() {
        // inner: a 1/4, b 3/4. Outer by weights: inner 2, a 1, c 1.
        let found = spec(
            r#"{"rate":"weights","sources":[
                {"name":"inner","weight":2,"mixture":{"sources":[{"name":"a","rows":100},{"name":"b","rows":300}]}},
                {"name":"a","rows":100,"weight":1},{"name":"c","rows":7,"weight":1}]}"#,
        );
        let leaves = found.leaves().unwrap();
        let shares: Vec<(&str, f64)> = leaves.iter().map(|leaf| (leaf.name.as_str(), leaf.share)).collect();
        assert_eq!(shares, [("a", 0.5 / 4.0 + 0.25), ("b", 1.5 / 4.0), ("c", 0.25)]);
        // By size the inner mixture counts 400 rows, cut at 100.
        let capped = r#"{"cap":100,"sources":[
            {"name":"inner","mixture":{"sources":[{"name":"a","rows":100},{"name":"b","rows":300}]}},
            {"name":"c","rows":100}]}"#;
        assert_eq!(self::shares(capped), [0.125, 0.375, 0.5]);
    }

    #[test]
    fn token_shares_draw_sources_of_long_rows_less_often() {
        // Equal tokens: rows of 10 tokens must be drawn ten times as often as rows of 100.
        let found = shares(
            r#"{"unit":"tokens","rate":"equal","sources":[
                {"name":"short","rows":50,"tokens":500},{"name":"long","rows":20,"tokens":2000}]}"#,
        );
        assert!((found[0] / found[1] - 10.0).abs() < 1e-12);
        let by_size = shares(
            r#"{"unit":"tokens","sources":[
                {"name":"short","rows":50,"tokens":500},{"name":"long","rows":20,"tokens":2000}]}"#,
        );
        assert!((by_size[0] - 5.0 / 7.0).abs() < 1e-12, "every token alike is every row alike");
    }

    #[test]
    fn mistakes_are_named_with_their_path() {
        let inner = |parts: &str| format!(r#"{{"sources":[{{"name":"in","mixture":{{"sources":[{parts}]}}}}]}}"#);
        for (json, place, what) in [
            (r#"{"sources":[]}"#.into(), "mixture", "nothing is mixed"),
            (inner(r#"{"name":"a","rows":0}"#), "mixture.in.a", "empty"),
            (inner(r#"{"name":"a"}"#), "mixture.in.a", "no source"),
            (inner(r#"{"name":"a","rows":1,"weight":1}"#), "mixture.in.a", "a weight is given"),
            (inner(r#"{"name":"a","rows":1},{"name":"a","rows":1}"#), "mixture.in.a", "stands twice"),
            (r#"{"cap":0,"sources":[{"name":"a","rows":1}]}"#.into(), "mixture", "cap is 0"),
            (r#"{"temperature":-1,"sources":[{"name":"a","rows":1}]}"#.into(), "mixture", "temperature is -1"),
            (r#"{"unit":"tokens","sources":[{"name":"a","rows":1}]}"#.into(), "mixture.a", "tokens are not known"),
            (r#"{"rate":"weights","sources":[{"name":"a","rows":1}]}"#.into(), "mixture.a", "missing"),
            (r#"{"rate":"weights","sources":[{"name":"a","rows":1,"weight":0}]}"#.into(), "mixture", "all 0"),
            (r#"{"rate":"equal","cap":3,"sources":[{"name":"a","rows":1}]}"#.into(), "mixture", "cap and scale"),
            (
                r#"{"sources":[{"name":"a","rows":1},{"name":"in","mixture":{"sources":[{"name":"a","rows":2}]}}]}"#
                    .into(),
                "mixture.in.a",
                "elsewhere",
            ),
        ] {
            let error = spec(&json).leaves().unwrap_err();
            assert_eq!(error.location.as_deref(), Some(place), "{json}");
            assert!(error.what.contains(what), "{json}: {}", error.what);
        }
    }
}
