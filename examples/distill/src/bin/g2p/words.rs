//! Words to train on: real ones, and more like them.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// The longest word that is made up.
const LONGEST: usize = 18;
/// Letters in a row that a splice goes by, and how often.
const OVERLAPS: [(usize, f64); 2] = [(1, 0.5), (2, 0.5)];

/// Real words, again and again, and splices of two of them: the beginning of one and the end of another, where
/// both have a letter or two in common. A network that is trained on a few words alone learns those by heart; the
/// teacher answers any number of others.
#[derive(Debug)]
pub(crate) struct Words {
    real: Vec<String>,
    /// Word and position behind each run of letters.
    behind: HashMap<Vec<u8>, Vec<(usize, usize)>>,
    next: Vec<usize>,
    random: StdRng,
}

impl Words {
    pub(crate) fn new(real: &[String], seed: u64) -> Self {
        let mut behind: HashMap<Vec<u8>, Vec<(usize, usize)>> = HashMap::new();
        for (at, word) in real.iter().enumerate() {
            for (overlap, _) in OVERLAPS {
                for end in overlap..word.len() {
                    let run = word.as_bytes()[end - overlap..end].to_vec();
                    behind.entry(run).or_default().push((at, end));
                }
            }
        }
        Self { real: real.to_vec(), behind, next: Vec::new(), random: StdRng::seed_from_u64(seed) }
    }

    /// A batch, `real` of its words real ones.
    pub(crate) fn batch(&mut self, size: usize, real: usize) -> Vec<Vec<u8>> {
        (0..size).map(|k| if k < real { self.real_word() } else { self.splice() }).collect()
    }

    /// Each word once, in random order, and so on.
    fn real_word(&mut self) -> Vec<u8> {
        if self.next.is_empty() {
            self.next = (0..self.real.len()).collect();
            self.next.shuffle(&mut self.random);
        }
        let at = self.next.pop().unwrap_or_default();
        self.real[at].clone().into_bytes()
    }

    fn splice(&mut self) -> Vec<u8> {
        // Most tries succeed.
        for _ in 0..1000 {
            let first = &self.real[self.random.random_range(0..self.real.len())];
            let overlap = OVERLAPS[usize::from(self.random.random_bool(OVERLAPS[1].1))].0;
            if first.len() <= overlap {
                continue;
            }
            let end = self.random.random_range(overlap..=first.len());
            let Some(others) = self.behind.get(&first.as_bytes()[end - overlap..end]) else { continue };
            let (other, from) = others[self.random.random_range(0..others.len())];
            let word = [&first.as_bytes()[..end], &self.real[other].as_bytes()[from..]].concat();
            if self.real[other] != *first && (2..=LONGEST).contains(&word.len()) {
                return word;
            }
        }
        self.real_word()
    }
}
