//! `niwaki compress` for files of arrays, which no graph binds together.

use std::collections::HashMap;
use std::time::Instant;

use niwaki::Result;
use niwaki::format::gguf::{self, WriteOptions};
use niwaki::format::npz;

use crate::args::Compress;
use crate::chosen::Notes;
use crate::compress::tell;
use crate::files::{self, Format};
use crate::out;
use crate::stages::stages;
use crate::summary::{Files, Summary};

pub(crate) fn compress(args: &Compress, format: Format, start: Instant) -> Result<()> {
    let model = files::read_arrays(&args.model, format, args.quiet)?;
    let notes = Notes::default();
    let stages = stages(args, &model, Vec::new(), &notes)?;
    let mut evidence = stages.evidence(&model);
    if let Some(snapshot) = &args.snapshot {
        let earlier = files::read_arrays(snapshot, Format::of(snapshot)?, true)?;
        evidence.record_snapshot(&earlier).map_err(|error| error.context(snapshot.display()))?;
    }
    let plan = stages.plan(&model, &evidence)?;
    let summary = Summary::planned(&model, &plan, &HashMap::new())?;
    let mut files = Files {
        format,
        before: files::bytes(&args.model)?,
        after: None,
        frozen: None,
        seconds: start.elapsed().as_secs_f64(),
    };
    let Some(output) = args.output.as_ref().filter(|_| !args.plan) else {
        return tell(args, &plan.to_string(), &summary, &files);
    };
    let compressed = stages.compress_by(&plan, &model, &evidence)?;
    compressed.verify()?;
    files.after = Some(match args.format_of(output)? {
        Format::Npz => {
            if args.quantize.is_some() {
                out::note(
                    args.quiet,
                    "npz holds plain arrays: codes are decoded; .safetensors keeps them small",
                );
            }
            npz::write_model(output, &compressed.decode()?)?
        }
        Format::Gguf => {
            let options = WriteOptions::new();
            let options = match format {
                Format::Gguf => options.all_metadata(gguf::read_metadata(&args.model)?),
                _ => options,
            };
            compressed.save_gguf(output, &options)?
        }
        _ => compressed.save(output)?,
    });
    files.seconds = start.elapsed().as_secs_f64();
    tell(args, "", &summary.made(&compressed, &notes.all()), &files)
}
