//! The command-line tool `niwaki`: words in, library calls, words out.

#![forbid(unsafe_code)]

mod args;
mod arrays;
mod check;
mod chosen;
mod compare;
mod compress;
mod convert;
mod files;
mod graph;
mod inspect;
mod learned;
mod out;
mod progress;
mod spell;
mod stages;
mod summary;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Command, Tool};

/// 0: done. 1: an error, and nothing was written. 2: the command line is wrong.
fn main() -> ExitCode {
    let tool = Tool::parse();
    let done = match tool.command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Compress(args) => {
            if let Err(wrong) = check::compress(&args) {
                wrong.exit();
            }
            compress::run(&args)
        }
        Command::Convert(args) => convert::run(&args),
        Command::Compare(args) => compare::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when this fails too.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
