//! A bar on the terminal.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of so many steps; hidden where nobody sees it.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn new(what: &'static str, quiet: bool) -> Self {
        if quiet || !stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(0).with_message(what);
        let style = ProgressStyle::with_template("{msg}  {wide_bar}  {pos}/{len}  {eta} left");
        Self(style.map_or(bar.clone(), |style| bar.with_style(style)))
    }

    /// `done` steps of `all` are done; with the last the bar goes.
    pub(crate) fn at(&self, done: usize, all: usize) {
        if done >= all {
            self.0.finish_and_clear();
            return;
        }
        self.0.set_length(all as u64);
        self.0.set_position(done as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
