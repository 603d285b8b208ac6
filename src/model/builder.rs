//! Building a model, and all the checks that make one.

use std::collections::{HashMap, HashSet};

use ndarray::ArrayD;

use crate::model::{
    Block, Coupling, CouplingBuilder, Geometry, Kind, Model, NormRole, Parameter, Passage, check,
};
use crate::{Element, Error, Result};

/// Collects parameters, couplings and blocks; [`build`](Self::build) checks them.
///
/// Parameters are given one by one, or all at once from a file with [`tensors`](Self::tensors), which guesses
/// what each is; [`conv`](Self::conv), [`recurrent`](Self::recurrent), [`embedding`](Self::embedding),
/// [`bias`](Self::bias) and [`batch_norm`](Self::batch_norm) then say what a guess cannot know.
///
/// ```
/// use ndarray::ArrayD;
/// use niwaki::{Geometry, Kind, Model};
///
/// # fn main() -> niwaki::Result<()> {
/// let tensor = |name: &str, shape: &[usize]| (name.to_owned(), ArrayD::<f32>::ones(shape));
/// let model = Model::builder()
///     .tensors([
///         tensor("conv.weight", &[8, 1, 3, 3]),
///         tensor("conv.bias", &[8]),
///         tensor("lstm.weight_ih_l0", &[4 * 5, 8]),
///         tensor("fc.weight", &[3, 5]),
///     ])
///     .conv("conv.weight", Geometry::new().padding(1).groups(8))
///     .recurrent("lstm.weight_ih_l0", 4)
///     .build()?;
/// assert_eq!(model.parameter("conv.weight")?.groups(), 8);
/// assert_eq!(model.bias_of("conv.weight").map(|bias| bias.name()), Some("conv.bias"));
/// assert_eq!(model.parameter("lstm.weight_ih_l0")?.units(), 5);
/// assert_eq!(model.parameter("fc.weight")?.kind(), &Kind::Linear);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ModelBuilder<F> {
    parameters: Vec<Parameter<F>>,
    couplings: Vec<CouplingBuilder>,
    /// couplings whose positions are known already
    coupled: Vec<Coupling>,
    /// couplings for scales only
    passages: Vec<CouplingBuilder>,
    /// passages whose positions are known already
    passing: Vec<Passage>,
    blocks: Vec<Block>,
    /// The first thing that was said of a parameter that is not there.
    unknown: Option<Error>,
}

impl<F> Default for ModelBuilder<F> {
    fn default() -> Self {
        Self {
            parameters: Vec::new(),
            couplings: Vec::new(),
            coupled: Vec::new(),
            passages: Vec::new(),
            passing: Vec::new(),
            blocks: Vec::new(),
            unknown: None,
        }
    }
}

impl<F: Element> ModelBuilder<F> {
    /// Adds a parameter.
    pub fn parameter(mut self, parameter: Parameter<F>) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// Adds named arrays and guesses their kinds from PyTorch's habits: two axes are a linear layer, three to
    /// five a convolution (stride 1, no padding, one group), `X.bias` belongs to `X.weight` where that has two
    /// axes or more, `X.running_mean` makes `X.weight` and `X.bias` parts of a batch norm. The rest is
    /// [`Kind::Other`].
    pub fn tensors(mut self, tensors: impl IntoIterator<Item = (String, ArrayD<F>)>) -> Self {
        let tensors: Vec<_> = tensors.into_iter().collect();
        let axes: HashMap<&str, usize> = tensors.iter().map(|(n, a)| (n.as_str(), a.ndim())).collect();
        let kinds: Vec<Kind> = tensors.iter().map(|(name, _)| guess(name, &axes)).collect();
        self.parameters.extend(
            tensors.into_iter().zip(kinds).map(|((name, array), kind)| Parameter::new(name, array, kind)),
        );
        self
    }

    /// Says that a parameter is a convolution of this geometry.
    pub fn conv(self, name: &str, geometry: Geometry) -> Self {
        self.describe(name, Kind::Conv(geometry))
    }

    /// Says that a parameter is a recurrent cell's matrix with this many stacked gates.
    pub fn recurrent(self, name: &str, gates: usize) -> Self {
        self.describe(name, Kind::Recurrent { gates })
    }

    /// Says that a parameter is an embedding table [entries, features].
    pub fn embedding(self, name: &str) -> Self {
        self.describe(name, Kind::Embedding)
    }

    /// Says that a vector is the bias of the weight `of`.
    pub fn bias(self, name: &str, of: &str) -> Self {
        self.describe(name, Kind::Bias { of: of.to_owned() })
    }

    /// Says that `{stem}.weight`, `.bias`, `.running_mean` and `.running_var` are the batch norm that directly
    /// follows the weight `of`. Recovery folds into it what it would else put into a bias.
    pub fn batch_norm(mut self, stem: &str, of: &str) -> Self {
        let parts = [
            ("weight", NormRole::Scale),
            ("bias", NormRole::Shift),
            ("running_mean", NormRole::Mean),
            ("running_var", NormRole::Variance),
        ];
        for (part, role) in parts {
            self = self.describe(&format!("{stem}.{part}"), Kind::Norm { role, of: Some(of.to_owned()) });
        }
        self
    }

    /// Adds a coupling.
    pub fn coupling(mut self, coupling: CouplingBuilder) -> Self {
        self.couplings.push(coupling);
        self
    }

    /// Adds a coupling whose positions are known.
    pub(crate) fn coupled(mut self, coupling: Coupling) -> Self {
        self.coupled.push(coupling);
        self
    }

    /// Adds units through which scales may move, and that are not pruned: what lies behind a layer norm on a residual
    /// stream. Output slots are what makes them, input slots what reads them; all of
    /// [`homogeneous`](CouplingBuilder::homogeneous) holds.
    pub fn passage(mut self, passage: CouplingBuilder) -> Self {
        self.passages.push(passage);
        self
    }

    /// Adds a passage whose positions are known.
    pub(crate) fn passing(mut self, passage: Passage) -> Self {
        self.passing.push(passage);
        self
    }

    /// Adds a block that can be removed whole.
    pub fn block(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }

    fn describe(mut self, name: &str, kind: Kind) -> Self {
        match self.parameters.iter_mut().find(|p| p.name() == name) {
            Some(parameter) => *parameter = parameter.clone().described(kind),
            None if self.unknown.is_none() => {
                self.unknown = Some(Error::name(format!("there is no parameter `{name}` to be a {kind:?}")));
            }
            None => {}
        }
        self
    }

    /// Checks everything and makes the model.
    ///
    /// # Errors
    /// A name that is used twice or is not there; an array that is empty, not finite or of a shape that its kind
    /// cannot have; a coupling that contradicts the shapes (the message names the two slots), overlaps another,
    /// cuts across the groups of a convolution or the gates of a recurrent cell, or cuts a weight's outputs and
    /// not the bias or batch norm that belongs to it; a homogeneous coupling or a passage through which no scale can
    /// pass.
    pub fn build(self) -> Result<Model<F>> {
        if let Some(error) = self.unknown {
            return Err(error);
        }
        let mut names = HashSet::new();
        for parameter in &self.parameters {
            if !names.insert(parameter.name()) {
                return Err(Error::name(format!("two parameters are named `{}`", parameter.name())));
            }
            parameter.check()?;
        }
        for parameter in &self.parameters {
            check::owner(parameter, &self.parameters)?;
        }
        let find = |name: &str| self.parameters.iter().find(|p| p.name() == name);
        let mut couplings = self.couplings.into_iter().map(|c| c.build(find)).collect::<Result<Vec<_>>>()?;
        couplings.extend(self.coupled);
        unique("couplings", couplings.iter().map(Coupling::name))?;
        check::overlap(&couplings)?;
        check::groups(&couplings, find)?;
        check::gates(&couplings, find)?;
        check::followers(&self.parameters, &couplings)?;
        let scaled = self.passages.into_iter().map(|c| c.build(find)).collect::<Result<Vec<_>>>()?;
        let homogeneous = couplings.iter().filter(|c| c.is_homogeneous()).chain(&scaled);
        let passages = homogeneous.map(|c| Passage::of(c, &self.parameters));
        let mut passages: Vec<Passage> = passages.filter_map(Result::transpose).collect::<Result<_>>()?;
        passages.extend(self.passing);
        unique("passages", passages.iter().map(Passage::name))?;
        unique("blocks", self.blocks.iter().map(Block::name))?;
        for block in &self.blocks {
            if let Some(name) = block.names().find(|name| !names.contains(name)) {
                return Err(Error::name(format!("block `{}`: there is no parameter `{name}`", block.name())));
            }
        }
        Ok(Model::assemble(self.parameters, couplings, passages, self.blocks))
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::name(format!("two {what} are named `{name}`")));
        }
    }
    Ok(())
}

/// What PyTorch's names and the number of axes say a parameter is.
fn guess(name: &str, axes: &HashMap<&str, usize>) -> Kind {
    let (stem, leaf) = name.rsplit_once('.').unwrap_or(("", name));
    let sibling = |leaf: &str| axes.get(format!("{stem}.{leaf}").as_str()).copied();
    let norm = sibling("running_mean").is_some();
    let own = axes.get(name).copied().unwrap_or(0);
    match (own, leaf) {
        (2, _) => Kind::Linear,
        (3..=5, _) => Kind::Conv(Geometry::new()),
        (1, "weight") if norm => Kind::Norm { role: NormRole::Scale, of: None },
        (1, "bias") if norm => Kind::Norm { role: NormRole::Shift, of: None },
        (1, "running_mean") => Kind::Norm { role: NormRole::Mean, of: None },
        (1, "running_var") => Kind::Norm { role: NormRole::Variance, of: None },
        (1, "bias") if sibling("weight").is_some_and(|n| n > 1) => {
            Kind::Bias { of: format!("{stem}.weight") }
        }
        _ => Kind::Other,
    }
}
