//! Structures that can be removed whole.

/// A repeated structure whose removal leaves a working network: a residual branch, a transformer layer.
///
/// The parameters listed here disappear with it. A forward pass asks
/// [`Model::block`](crate::Model::block) whether the block is still there, and finds its parameters with
/// [`parameter`](Self::parameter): weights that several blocks share get a copy, and so a name, of their own in
/// each block before the blocks are pruned one by one.
///
/// ```
/// use niwaki::Block;
/// let block = Block::new("layer1").parameters(["ffn.weight", "layer1.norm"]);
/// assert_eq!(block.parameter("ffn.weight"), Some("ffn.weight"));
/// assert_eq!(block.parameter("other"), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    name: String,
    /// (name as declared, name now)
    parameters: Vec<(String, String)>,
}

impl Block {
    /// A block without parameters.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), parameters: Vec::new() }
    }

    /// Adds parameters by name.
    pub fn parameters<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.parameters.extend(names.into_iter().map(Into::into).map(|name: String| (name.clone(), name)));
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name that a parameter, declared as `declared`, has now in this block.
    pub fn parameter(&self, declared: &str) -> Option<&str> {
        self.parameters.iter().find(|(d, _)| d == declared).map(|(_, now)| now.as_str())
    }

    /// The names that its parameters have now.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|(_, now)| now.as_str())
    }

    /// Its parameters: as declared, and as they are named now.
    #[cfg(feature = "safetensors")]
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// A block from what [`pairs`](Self::pairs) gave.
    #[cfg(feature = "safetensors")]
    pub(crate) fn from_pairs(name: String, parameters: Vec<(String, String)>) -> Self {
        Self { name, parameters }
    }

    /// Points this block to its own copy; one that it did not list (the bias of a shared weight) it takes in.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        let mut listed = false;
        for (_, now) in self.parameters.iter_mut().filter(|(_, now)| now == from) {
            to.clone_into(now);
            listed = true;
        }
        if !listed {
            self.parameters.push((from.to_owned(), to.to_owned()));
        }
    }
}
