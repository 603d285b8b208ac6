//! The one error type: what went wrong, with the layer, the value and the limit in its message.

use std::fmt::{self, Debug, Display};
use std::sync::Arc;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault it is, for callers that react by kind.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A setting is outside its range, or settings contradict each other.
    Setting,
    /// A name or pattern matches nothing, or a name is used twice.
    Name,
    /// Shapes do not fit each other.
    Shape,
    /// A weight, or a value that evidence was given, is NaN or infinite.
    NotFinite,
    /// A criterion or method needs evidence that was not recorded.
    MissingEvidence,
    /// The request makes sense but this method cannot do it.
    Unsupported,
    /// A file or byte string does not hold what its format promises.
    Format,
    /// The operating system refused to read or write.
    Io,
}

/// An error of this crate. It is cheap to clone and its message is complete on its own.
///
/// ```
/// use niwaki::{ErrorKind, prune::Sparsity};
///
/// let error = Sparsity::new(1.5).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Setting);
/// assert_eq!(error.to_string(), "sparsity 1.5 is outside [0, 1)");
/// ```
#[derive(Clone, thiserror::Error)]
#[error("{}", .0.message)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of this kind. Custom stages use it to report what they cannot do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into() }))
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The same error with `context: ` before its message.
    #[must_use]
    pub fn context(&self, context: impl Display) -> Self {
        Self::new(self.0.kind, format!("{context}: {}", self.0.message))
    }

    pub(crate) fn setting(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Setting, message)
    }

    pub(crate) fn name(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Name, message)
    }

    pub(crate) fn shape(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Shape, message)
    }

    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::MissingEvidence, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn format(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Format, message)
    }
}

/// The kind and the message: what a program shows whose `main` returns this error.
impl Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, error.to_string())
    }
}
