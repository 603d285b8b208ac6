//! The forward pass, written for candle: words of all lengths side by side, those that are done out of the way.

use candle_core::{D, Device, Result, Tensor};
use distill::Weights;

/// Letters are `<pad> <unk> </s> a … z`; phonemes start with `<pad> <unk> <s> </s>`.
const UNKNOWN: u32 = 1;
const END_OF_WORD: u32 = 2;
const START: u32 = 2;
const END: u32 = 3;
/// The longest answer.
const STEPS: usize = 20;

/// Sequences side by side, the longest first: what each has in a step, for those that go on.
pub(crate) struct Packed(Vec<Tensor>);

impl Packed {
    fn new(sequences: &[Vec<u32>]) -> Result<Self> {
        let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
        let step = |at: usize| {
            let tokens: Vec<u32> = sequences.iter().filter_map(|tokens| tokens.get(at).copied()).collect();
            Tensor::new(tokens, &Device::Cpu)
        };
        Ok(Self((0..longest).map(step).collect::<Result<_>>()?))
    }
}

/// Words, and what the teacher answers to them.
pub(crate) struct Batch {
    letters: Packed,
    /// Which word each answer belongs to.
    order: Tensor,
    /// What the decoder is fed: `<s>`, then the teacher's own answer.
    fed: Packed,
}

/// What a network thinks of a batch.
pub(crate) struct Thoughts {
    /// All states of the encoder, [n, hidden].
    pub(crate) heard: Tensor,
    /// All states of the decoder.
    pub(crate) said: Tensor,
    /// All scores of phonemes, [n, phonemes].
    pub(crate) scores: Tensor,
}

impl Batch {
    /// Asks the teacher.
    pub(crate) fn new(teacher: &Weights, mut words: Vec<Vec<u8>>) -> Result<Self> {
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        let letters = |word: &Vec<u8>| -> Vec<u32> {
            word.iter().map(|&letter| index_of(letter)).chain([END_OF_WORD]).collect()
        };
        let letters = Packed::new(&words.iter().map(letters).collect::<Vec<_>>())?;
        let (mut h, _) = Gru::of(teacher, "enc")?.run(&letters, None)?;

        let decoder = Gru::of(teacher, "dec")?;
        let mut fed = vec![vec![START]; words.len()];
        let mut on: Vec<usize> = (0..words.len()).collect();
        for step in 0..STEPS {
            let tokens: Vec<u32> = on.iter().map(|&word| fed[word][step]).collect();
            h = decoder.step(&Tensor::new(tokens, &Device::Cpu)?, &h)?;
            let said = scores(teacher, &h)?.argmax(D::Minus1)?.to_vec1::<u32>()?;
            // Only words that are not finished go on, and no answer is fed that no step would read.
            let more: Vec<u32> = (0..).zip(&said).filter(|(_, said)| **said != END).map(|(k, _)| k).collect();
            if more.is_empty() || step + 1 == STEPS {
                break;
            }
            on = more
                .iter()
                .map(|&k| (on[k as usize], said[k as usize]))
                .map(|(word, said)| {
                    fed[word].push(said);
                    word
                })
                .collect();
            h = h.index_select(&Tensor::new(more, &Device::Cpu)?, 0)?;
        }
        let mut order: Vec<u32> = (0..).take(words.len()).collect();
        order.sort_by_key(|&word| std::cmp::Reverse(fed[word as usize].len()));
        let fed: Vec<Vec<u32>> = order.iter().map(|&word| std::mem::take(&mut fed[word as usize])).collect();
        Ok(Self { letters, order: Tensor::new(order, &Device::Cpu)?, fed: Packed::new(&fed)? })
    }

    /// Runs a network, the decoder on the teacher's answers.
    pub(crate) fn run(&self, weights: &Weights) -> Result<Thoughts> {
        let (h, heard) = Gru::of(weights, "enc")?.run(&self.letters, None)?;
        let h = h.index_select(&self.order, 0)?;
        let (_, said) = Gru::of(weights, "dec")?.run(&self.fed, Some(h))?;
        Ok(Thoughts { heard, scores: scores(weights, &said)?, said })
    }
}

fn scores(weights: &Weights, h: &Tensor) -> Result<Tensor> {
    h.matmul(&weights.get("fc_w")?.t()?)?.broadcast_add(weights.get("fc_b")?)
}

fn index_of(letter: u8) -> u32 {
    if letter.is_ascii_lowercase() { u32::from(letter - b'a') + 3 } else { UNKNOWN }
}

/// A GRU cell and the embedding that feeds it, gate by gate: r, z, n.
struct Gru {
    /// What each token adds, [tokens, hidden]: the embedding through the input weights, with their bias and, for
    /// r and z, the other.
    tables: [Tensor; 3],
    /// Weights of the state, [hidden, hidden], transposed.
    states: [Tensor; 3],
    bias: Tensor,
    hidden: usize,
}

impl Gru {
    fn of(weights: &Weights, side: &str) -> Result<Self> {
        let get = |part: &str| weights.get(&format!("{side}_{part}"));
        let hidden = get("w_hh")?.dim(1)?;
        let gate = |part: &str, k: usize| get(part)?.narrow(0, k * hidden, hidden);
        let table = |k: usize| {
            let bias = gate("b_ih", k)?;
            let bias = if k < 2 { (bias + gate("b_hh", k)?)? } else { bias };
            get("emb")?.matmul(&gate("w_ih", k)?.t()?)?.broadcast_add(&bias)
        };
        let state = |k: usize| gate("w_hh", k)?.t();
        Ok(Self {
            tables: [table(0)?, table(1)?, table(2)?],
            states: [state(0)?, state(1)?, state(2)?],
            bias: gate("b_hh", 2)?,
            hidden,
        })
    }

    /// The next states [n, hidden] after one token each.
    fn step(&self, tokens: &Tensor, h: &Tensor) -> Result<Tensor> {
        let input = |k: usize| self.tables[k].index_select(tokens, 0);
        let state = |k: usize| h.matmul(&self.states[k]);
        let reset = sigmoid(&(input(0)? + state(0)?)?)?;
        let update = sigmoid(&(input(1)? + state(1)?)?)?;
        let new = (input(2)? + (reset * state(2)?.broadcast_add(&self.bias)?)?)?.tanh()?;
        &new + (update * (h - &new)?)?
    }

    /// The last state of each sequence, and all states.
    fn run(&self, sequences: &Packed, start: Option<Tensor>) -> Result<(Tensor, Tensor)> {
        let count = sequences.0.first().map_or(Ok(0), |tokens| tokens.dim(0))?;
        let mut h = match start {
            Some(start) => start,
            None => Tensor::zeros((count, self.hidden), candle_core::DType::F32, &Device::Cpu)?,
        };
        let (mut all, mut done) = (Vec::new(), Vec::new());
        for tokens in &sequences.0 {
            let on = tokens.dim(0)?;
            if on < h.dim(0)? {
                // The shortest sequences are the last.
                done.push(h.narrow(0, on, h.dim(0)? - on)?);
                h = h.narrow(0, 0, on)?;
            }
            h = self.step(tokens, &h)?;
            all.push(h.clone());
        }
        done.push(h);
        done.reverse();
        Ok((Tensor::cat(&done, 0)?, Tensor::cat(&all, 0)?))
    }
}

/// 1 / (1 + e⁻ˣ).
fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x * 0.5)?.tanh()?.affine(0.5, 0.5)
}
