//! Names of criteria.

use std::fmt::{self, Display};
use std::str::FromStr;

use niwaki::importance::{
    BrainSurgeon, GeometricMedian, GradientCompare, Importance, Magnitude, MaxActivation, Random, StdDev,
    Subset, TotalConfidence, Wanda,
};

use super::{Parsed, list};

/// What says how much a weight or unit matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Criterion {
    L0,
    L1,
    L2,
    LInf,
    GeometricMedian,
    MaxActivation,
    StdDev,
    StdDevActivations,
    TotalConfidence,
    Update,
    Movement,
    Growth,
    Wanda,
    Subset,
    BrainSurgeon,
    Random,
}

impl Criterion {
    const NAMES: [(&'static str, Self); 16] = [
        ("l0", Self::L0),
        ("l1", Self::L1),
        ("l2", Self::L2),
        ("linf", Self::LInf),
        ("geometric-median", Self::GeometricMedian),
        ("max-activation", Self::MaxActivation),
        ("std-dev", Self::StdDev),
        ("std-dev-activations", Self::StdDevActivations),
        ("total-confidence", Self::TotalConfidence),
        ("gradient-compare", Self::Update),
        ("gradient-compare:movement", Self::Movement),
        ("gradient-compare:growth", Self::Growth),
        ("wanda", Self::Wanda),
        ("subset", Self::Subset),
        ("brain-surgeon", Self::BrainSurgeon),
        ("random", Self::Random),
    ];

    /// Whether it reads what passes through the network.
    pub(crate) fn needs_calibration(self) -> bool {
        self.reads_inputs() || self.reads_outputs()
    }

    /// Whether it reads what layers read.
    pub(crate) fn reads_inputs(self) -> bool {
        matches!(self, Self::Wanda | Self::BrainSurgeon)
    }

    /// Whether it reads what layers answer.
    pub(crate) fn reads_outputs(self) -> bool {
        use Criterion as C;
        matches!(self, C::MaxActivation | C::StdDevActivations | C::TotalConfidence | C::Subset)
    }

    /// Whether it reads the network as it was earlier in training.
    pub(crate) fn needs_snapshot(self) -> bool {
        matches!(self, Self::Update | Self::Movement | Self::Growth)
    }

    pub(crate) fn stage(self) -> Box<dyn Importance<f32>> {
        match self {
            Self::L0 => Box::new(Magnitude::l0()),
            Self::L1 => Box::new(Magnitude::l1()),
            Self::L2 => Box::new(Magnitude::l2()),
            Self::LInf => Box::new(Magnitude::l_inf()),
            Self::GeometricMedian => Box::new(GeometricMedian::new()),
            Self::MaxActivation => Box::new(MaxActivation::new()),
            Self::StdDev => Box::new(StdDev::of_weights()),
            Self::StdDevActivations => Box::new(StdDev::of_activations()),
            Self::TotalConfidence => Box::new(TotalConfidence::new()),
            Self::Update => Box::new(GradientCompare::update()),
            Self::Movement => Box::new(GradientCompare::movement()),
            Self::Growth => Box::new(GradientCompare::growth()),
            Self::Wanda => Box::new(Wanda::new()),
            Self::Subset => Box::new(Subset::new()),
            Self::BrainSurgeon => Box::new(BrainSurgeon::new()),
            Self::Random => Box::new(Random::default()),
        }
    }
}

impl Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, criterion)| criterion == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for Criterion {
    type Err = String;

    fn from_str(word: &str) -> Parsed<Self> {
        if matches!(word, "taylor" | "gradient-compare:curvature") {
            return Err(format!(
                "`{word}` reads gradients of a loss, which only training code has: use the library \
                 (Evidence::record_gradient)"
            ));
        }
        let found = Self::NAMES.iter().find(|(name, _)| *name == word).map(|(_, criterion)| *criterion);
        found.ok_or_else(|| format!("there are {}", list(Self::NAMES.iter().map(|(name, _)| *name))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for (name, criterion) in Criterion::NAMES {
            assert_eq!(name.parse(), Ok(criterion));
            assert_eq!(criterion.to_string(), name);
            // What the tool asks calibration for is what the library keeps statistics for, and the other way round.
            let moments = niwaki::Needs::MOMENTS;
            assert!(criterion.needs_calibration() || criterion.stage().needs() == moments, "{name}");
        }
    }

    #[test]
    fn what_is_no_name() {
        assert!("L2".parse::<Criterion>().is_err_and(|e| e.contains("`l2`") && e.contains("`random`")));
        assert!("taylor".parse::<Criterion>().is_err_and(|e| e.contains("gradients")));
    }
}
