//! The network as its owner wrote it: a GRU reads the letters of a word, another says its phonemes.

use std::collections::BTreeMap;
use std::error::Error;

use ndarray::{Array1, Array2, ArrayD, Axis, Ix1, Ix2, Slice, Zip};
use niwaki::{Coupling, Evidence, Model};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Letters are `<pad> <unk> </s> a … z`; phonemes start with `<pad> <unk> <s> </s>`.
const UNKNOWN: usize = 1;
const END_OF_WORD: usize = 2;
const START: usize = 2;
const END: usize = 3;
/// The longest answer.
const STEPS: usize = 20;

/// Says what each array is, and that a hidden unit is one index of all of them: the encoder's last state starts
/// the decoder, so both lose the same units.
pub(crate) fn describe(tensors: impl IntoIterator<Item = (String, ArrayD<f32>)>) -> Outcome<Model<f32>> {
    let mut builder =
        Model::builder().tensors(tensors).embedding("enc_emb").embedding("dec_emb").bias("fc_b", "fc_w");
    let mut hidden = Coupling::builder("hidden").inputs(["enc_w_hh", "dec_w_hh", "fc_w"]);
    for side in ["enc", "dec"] {
        for matrix in ["ih", "hh"] {
            let (weight, bias) = (format!("{side}_w_{matrix}"), format!("{side}_b_{matrix}"));
            builder = builder.recurrent(&weight, 3).bias(&bias, &weight);
            hidden = hidden.outputs([weight, bias]);
        }
        // What an embedding says is read by the cell's input matrix alone.
        let features = Coupling::builder(format!("{side}_features")).homogeneous();
        builder =
            builder.coupling(features.outputs([format!("{side}_emb")]).inputs([format!("{side}_w_ih")]));
    }
    Ok(builder.coupling(hidden).build()?)
}

/// Runs the network on words and lets the evidence see what passes by.
pub(crate) fn observe<'a>(
    model: &Model<f32>,
    words: impl Iterator<Item = &'a str>,
    evidence: &mut Evidence<f32>,
) -> Outcome<()> {
    // Words of one length make a batch without padding.
    let mut by_length: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    words
        .filter(|word| !word.is_empty())
        .for_each(|word| by_length.entry(word.len()).or_default().push(word));
    let (encoder, decoder) = (Gru::of(model, "enc")?, Gru::of(model, "dec")?);
    let fc = matrix(model, "fc_w")?;
    let bias = vector(model, "fc_b")?;
    for (length, words) in by_length {
        let mut h = Array2::zeros((words.len(), encoder.hidden()));
        for at in 0..=length {
            let letter = |word: &&str| word.as_bytes().get(at).copied().map_or(END_OF_WORD, index_of);
            h = encoder.step(&words.iter().map(letter).collect::<Vec<_>>(), &h, evidence)?;
        }
        let mut tokens = vec![START; words.len()];
        for _ in 0..STEPS {
            h = decoder.step(&tokens, &h, evidence)?;
            let scores = h.dot(&fc.t()) + &bias;
            evidence.record_input("fc_w", &h)?;
            evidence.record_output("fc_w", &scores)?;
            let said: Vec<usize> = scores.rows().into_iter().map(|row| best(row.iter())).collect();
            // Only words that are not finished go on.
            let on: Vec<usize> = (0..said.len()).filter(|&k| said[k] != END).collect();
            h = h.select(Axis(0), &on);
            tokens = on.iter().map(|&k| said[k]).collect();
            if tokens.is_empty() {
                break;
            }
        }
    }
    Ok(())
}

fn index_of(letter: u8) -> usize {
    if letter.is_ascii_lowercase() { usize::from(letter - b'a') + 3 } else { UNKNOWN }
}

fn best<'a>(scores: impl Iterator<Item = &'a f32>) -> usize {
    scores.enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(END, |(k, _)| k)
}

fn matrix(model: &Model<f32>, name: &str) -> Outcome<Array2<f32>> {
    Ok(model.parameter(name)?.array().clone().into_dimensionality::<Ix2>()?)
}

fn vector(model: &Model<f32>, name: &str) -> Outcome<Array1<f32>> {
    Ok(model.parameter(name)?.array().clone().into_dimensionality::<Ix1>()?)
}

/// One GRU cell and the embedding that feeds it; gates are stacked r, z, n.
struct Gru {
    side: &'static str,
    embedding: Array2<f32>,
    w_ih: Array2<f32>,
    w_hh: Array2<f32>,
    b_ih: Array1<f32>,
    b_hh: Array1<f32>,
}

impl Gru {
    fn of(model: &Model<f32>, side: &'static str) -> Outcome<Self> {
        Ok(Self {
            side,
            embedding: matrix(model, &format!("{side}_emb"))?,
            w_ih: matrix(model, &format!("{side}_w_ih"))?,
            w_hh: matrix(model, &format!("{side}_w_hh"))?,
            b_ih: vector(model, &format!("{side}_b_ih"))?,
            b_hh: vector(model, &format!("{side}_b_hh"))?,
        })
    }

    fn hidden(&self) -> usize {
        self.w_hh.ncols()
    }

    /// The next state [n, hidden] after one token each.
    fn step(&self, tokens: &[usize], h: &Array2<f32>, evidence: &mut Evidence<f32>) -> Outcome<Array2<f32>> {
        let x = self.embedding.select(Axis(0), tokens);
        let input = x.dot(&self.w_ih.t()) + &self.b_ih;
        let state = h.dot(&self.w_hh.t()) + &self.b_hh;
        let size = self.hidden();
        let gate = |a: &Array2<f32>, k: usize| {
            a.slice_axis(Axis(1), Slice::from(k * size..(k + 1) * size)).to_owned()
        };
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let reset = (gate(&input, 0) + gate(&state, 0)).mapv_into(sigmoid);
        let update = (gate(&input, 1) + gate(&state, 1)).mapv_into(sigmoid);
        let new = (gate(&input, 2) + reset * gate(&state, 2)).mapv_into(f32::tanh);
        let mut next = h.clone();
        Zip::from(&mut next).and(&update).and(&new).for_each(|h, &z, &n| *h = (1.0 - z) * n + z * *h);
        let side = self.side;
        evidence.record_input(&format!("{side}_w_ih"), &x)?;
        evidence.record_input(&format!("{side}_w_hh"), h)?;
        for weight in ["ih", "hh"] {
            evidence.record_output(&format!("{side}_w_{weight}"), &next)?;
        }
        Ok(next)
    }
}
