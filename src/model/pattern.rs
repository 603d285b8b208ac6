//! Names and `re:` patterns.

use crate::{Error, Result};

/// An exact name, or a regular expression after `re:` (feature `regex`) that the whole name must match.
///
/// ```
/// use niwaki::Pattern;
/// # fn main() -> niwaki::Result<()> {
/// assert!(Pattern::new("fc.weight")?.matches("fc.weight"));
/// # #[cfg(feature = "regex")] {
/// assert!(Pattern::new("re:layer[12]\\..*")?.matches("layer2.conv.weight"));
/// assert!(!Pattern::new("re:layer1")?.matches("layer1.weight"));
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    #[cfg(feature = "regex")]
    regex: Option<regex_lite::Regex>,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What follows `re:` is no regular expression, or the feature `regex` is off.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        #[cfg(feature = "regex")]
        {
            let regex = text.strip_prefix("re:").map(|re| regex_lite::Regex::new(&format!("^(?:{re})$")));
            let regex = regex.transpose().map_err(|e| Error::setting(format!("pattern `{text}`: {e}")))?;
            Ok(Self { text, regex })
        }
        #[cfg(not(feature = "regex"))]
        if text.starts_with("re:") {
            Err(Error::unsupported(format!("pattern `{text}` needs the feature `regex`")))
        } else {
            Ok(Self { text })
        }
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        #[cfg(feature = "regex")]
        if let Some(regex) = &self.regex {
            return regex.is_match(name);
        }
        self.text == name
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Errors unless one of `names` matches.
    pub(crate) fn check_matches<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Result<()> {
        if names.any(|name| self.matches(name)) {
            return Ok(());
        }
        Err(Error::name(format!("pattern `{}` matches nothing in the model", self.text)))
    }
}
