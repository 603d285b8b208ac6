//! niwaki makes trained neural networks smaller.


#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::float_cmp, reason = "tests compare exact results"))]

mod element;
mod error;
mod kernel;
mod nothing;

pub mod evidence;
pub mod format;
pub mod importance;
pub mod model;
pub mod prune;
pub mod quantize;
pub mod recover;

pub use element::Element;
pub use error::{Error, ErrorKind, Result};
pub use evidence::{Evidence, Layer, Needs};
pub use model::{Block, Coupling, Geometry, Kind, Model, ModelBuilder, NormRole, Parameter, Pattern, Slot};
pub use ndarray;
pub use nothing::Nothing;
