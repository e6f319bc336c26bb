//! Near duplicates: rows whose sketches agree in a band are compared, and those that seem alike are joined. A row is left
//! out when its set is as similar as the threshold to that of a row of its component that stays: exactly, not by sketch.

use super::pieces::Piece;
use super::sketch::{SIZE, Sketch, bands};
use super::spill::{Sketches, Spill};
use super::words::grams;
use crate::error::{Error, Kind, Result};
use rayon::slice::ParallelSliceMut;
use rustc_hash::FxHashMap;
use std::path::Path;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bands are chosen to miss little, since what they find in vain is compared and let go.
const WEIGHTS: (f64, f64) = (0.05, 0.95);
/// Rows of one band that are unlike each other and that further rows are compared with.
const COMPARED: usize = 64;
/// What an estimate may lack, two standard deviations at 0.8: the sets decide.
const SLACK: f64 = 0.07;

/// The sketch of a row: its n-grams, each with its role, so that roles and replies do not mix.
pub(super) fn sketch<'a, 'b: 'a>(texts: impl Iterator<Item = &'a Piece<'b>>, n: usize) -> Sketch {
    let mut set = Vec::new();
    for piece in texts {
        let seed = piece.seed();
        if grams(piece.content(), n, seed, |gram| set.push(gram)) == 0 {
            // Without words the text itself is compared: "???" is not "!!!".
            set.push(xxh3_64(piece.content().trim().as_bytes()) ^ seed);
        }
    }
    Sketch::new(&set)
}

/// Rows that are alike. After [`NearDuplicates::close`] a row takes 4 bytes, and some 50 when others seem like it.
pub(super) struct NearDuplicates {
    threshold: f64,
    bands: (usize, usize),
    spill: Option<Spill>,
    /// A row's way to the first of its component.
    parents: Vec<u32>,
    /// Of components of several rows, by their first rows, those that were kept.
    kept: FxHashMap<u32, Vec<u32>>,
    sketches: Option<Sketches>,
}

impl NearDuplicates {
    pub(super) fn new(threshold: f64, folder: &Path) -> Result<Self> {
        let bands = bands(threshold, WEIGHTS.0, WEIGHTS.1);
        let spill = Some(Spill::new(folder)?);
        Ok(Self { threshold, bands, spill, parents: Vec::new(), kept: FxHashMap::default(), sketches: None })
    }

    /// The next row; rows come in order, and those that are not compared with others need not come.
    pub(super) fn add(&mut self, row: u32, sketch: &Sketch) -> Result<()> {
        let late = || Error::new(Kind::Usage, "rows must be observed in order, before the pass is finished");
        let spill = self.spill.as_mut().filter(|_| row as usize >= self.parents.len()).ok_or_else(late)?;
        self.parents.extend(self.parents.len() as u32..=row);
        let (count, rows) = self.bands;
        let hash = |band: usize| {
            let mut bytes = [0; 4 * SIZE];
            for (to, entry) in bytes.chunks_exact_mut(4).zip(&sketch.0[band * rows..(band + 1) * rows]) {
                to.copy_from_slice(&entry.to_le_bytes());
            }
            xxh3_64_with_seed(&bytes[..4 * rows], band as u64)
        };
        spill.write(row, sketch, (0..count).map(hash))
    }

    /// Join what is alike and let go of the files.
    ///
    /// The threads of the pool sort; the result does not depend on them.
    pub(super) fn close(&mut self, pool: &rayon::ThreadPool) -> Result<()> {
        let Some(mut spill) = self.spill.take() else { return Ok(()) };
        let sketches = spill.close()?;
        for entries in spill.entries() {
            let mut entries = entries?;
            pool.install(|| entries.par_sort_unstable());
            for same in entries.chunk_by(|one, other| one.0 == other.0).filter(|same| same.len() > 1) {
                self.join(same, &sketches)?;
            }
        }
        for row in 0..self.parents.len() as u32 {
            let first = self.first(row);
            if first != row {
                self.kept.entry(first).or_default();
            }
        }
        // The files lose their names with the spill, and go when the last row was asked for.
        self.sketches = Some(sketches);
        Ok(())
    }

    fn join(&mut self, same: &[(u64, u32)], sketches: &Sketches) -> Result<()> {
        // A band that very many rows share compares each with the first that are unlike each other.
        let mut unlike: Vec<(u32, [u8; 2 * SIZE])> = Vec::new();
        for &(_, row) in same {
            let first = self.first(row);
            if unlike.iter().any(|&(other, _)| self.first(other) == first) {
                continue;
            }
            let own = sketches.get(row)?;
            let mut alike = false;
            for (other, sketch) in &unlike {
                if Sketches::similarity(&own, sketch) >= self.threshold - SLACK {
                    self.union(row, *other);
                    alike = true;
                }
            }
            if !alike && unlike.len() < COMPARED {
                unlike.push((row, own));
            }
        }
        Ok(())
    }

    fn union(&mut self, one: u32, other: u32) {
        let (one, other) = (self.first(one), self.first(other));
        self.parents[one.max(other) as usize] = one.min(other);
    }

    /// The first row of a row's component; a row that was not observed is its own.
    pub(super) fn first(&mut self, mut row: u32) -> u32 {
        while let Some(&parent) = self.parents.get(row as usize)
            && parent != row
        {
            let grandparent = self.parents[parent as usize];
            self.parents[row as usize] = grandparent;
            row = grandparent;
        }
        row
    }

    /// The first row that was kept and is like this one; if there is none this row is kept.
    pub(super) fn enter(&mut self, row: u32) -> Result<Option<u32>> {
        if self.spill.is_some() {
            return Err(Error::new(Kind::Usage, "the first pass over the rows is not finished"));
        }
        let first = self.first(row);
        let (Some(kept), Some(sketches)) = (self.kept.get_mut(&first), &self.sketches) else { return Ok(None) };
        if !kept.is_empty() {
            let own = sketches.set(row)?;
            for &other in kept.iter() {
                if Sketch::jaccard(&own, &sketches.set(other)?) >= self.threshold {
                    return Ok(Some(other));
                }
            }
        }
        if kept.len() < COMPARED {
            kept.push(row);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clean::words::mix;

    fn words(from: u64, to: u64) -> String {
        (from..to).map(|i| format!("w{:x} ", mix(i))).collect()
    }

    fn firsts(texts: &[String], threads: usize) -> Vec<u32> {
        let folder = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut near = NearDuplicates::new(0.8, folder.path()).unwrap();
        for (row, text) in texts.iter().enumerate() {
            near.add(row as u32, &sketch([Piece::text(text)].iter(), 5)).unwrap();
        }
        near.close(&pool).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        (0..texts.len() as u32).map(|row| near.first(row)).collect()
    }

    #[test]
    fn near_duplicates_are_joined_to_the_first_and_the_rest_is_left_alone() {
        let mut texts: Vec<String> = (0..300).map(|i| words(1000 * i, 1000 * i + 60)).collect();
        for row in 100..200u64 {
            // One word of 60 replaced at the end: 55 of 57 n-grams are shared.
            texts.push(words(1000 * row, 1000 * row + 59) + "other");
        }
        texts.push(String::new());
        texts.push(" ".into());
        texts.push("???".into());
        let expected: Vec<u32> = (0..300).chain(100..200).chain([400, 400, 402]).collect();
        assert_eq!(firsts(&texts, 1), expected);
        assert_eq!(firsts(&texts, 3), expected);
    }

    #[test]
    fn what_stays_is_less_alike_than_the_threshold_and_what_goes_is_not() {
        // A chain: each row has 4 more words at its end, so neighbours are alike and the ends are not.
        let texts: Vec<String> = (0..40).map(|i| words(4 * i, 4 * i + 100)).collect();
        let sets: Vec<Sketch> = texts.iter().map(|text| sketch([Piece::text(text)].iter(), 5)).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut near = NearDuplicates::new(0.8, folder.path()).unwrap();
        sets.iter().enumerate().for_each(|(row, sketch)| near.add(row as u32, sketch).unwrap());
        near.close(&rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap()).unwrap();
        let mut kept: Vec<u32> = Vec::new();
        for row in 0..40 {
            match near.enter(row).unwrap() {
                Some(like) => {
                    assert!(kept.contains(&like));
                    assert!(Sketch::jaccard(&sets[row as usize].1, &sets[like as usize].1) >= 0.8);
                }
                None => kept.push(row),
            }
        }
        assert!((8..20).contains(&kept.len()), "{kept:?}");
        assert_eq!(Sketch::jaccard(&[1, 2, 3], &[2, 3, 4]), 0.5);
        assert_eq!((Sketch::jaccard(&[], &[]), Sketch::jaccard(&[1], &[])), (1.0, 0.0));
    }

    #[test]
    fn roles_and_replies_do_not_mix() {
        use crate::conversation::Message;
        use crate::record::{About, Context, Preference, Record};
        let side = |from| vec![Message::text("assistant", &words(from, from + 50))];
        let pair = |chosen, rejected| {
            let (chosen, rejected) = (side(chosen), side(rejected));
            let (margin, p, context) = (None, None, Context::default());
            let about = About::default();
            Record::Preference(Preference { prompt: vec![], chosen, rejected, margin, p, about, context })
        };
        let of = |record: Record| sketch(super::super::pieces::pieces(&[record]).iter(), 5);
        let equal = |a: &Sketch, b: &Sketch| a.0.iter().zip(b.0.iter()).filter(|(a, b)| a == b).count();
        assert_eq!(equal(&of(pair(0, 1000)), &of(pair(0, 1000))), SIZE);
        assert_eq!(equal(&of(pair(0, 1000)), &of(pair(1000, 0))), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_that_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = NearDuplicates::new(0.8, file.path()).err().unwrap();
        assert_eq!(error.kind, Kind::Resource);
        assert!(error.fix.unwrap().contains("bytes a row"));
    }

    #[test]
    fn rows_out_of_order_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut near = NearDuplicates::new(0.8, folder.path()).unwrap();
        let one = Sketch::new(&[1]);
        near.add(3, &one).unwrap();
        assert_eq!(near.add(3, &one).unwrap_err().kind, Kind::Usage);
        near.add(5, &one).unwrap();
        assert_eq!(near.enter(3).unwrap_err().kind, Kind::Usage);
        near.close(&rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap()).unwrap();
        assert_eq!(near.add(6, &one).unwrap_err().kind, Kind::Usage);
        assert_eq!([3, 4, 5, 99].map(|row| near.first(row)), [3, 4, 3, 99]);
        assert_eq!([3, 4, 5, 99].map(|row| near.enter(row).unwrap()), [None, None, Some(3), None]);
    }
}
