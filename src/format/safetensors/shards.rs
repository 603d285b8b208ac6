//! A model cut into several files, and the index that says what is where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path};

use serde_json::Value;

use super::collect;
use crate::format::Tensors;
use crate::format::container::{MAX_HEADER, Reader};
use crate::{Element, Error, Result};

/// Reads all shards that an index names, in order of their names.
pub(super) fn read<F: Element>(path: &Path) -> Result<Tensors<F>> {
    let map = weight_map(path).map_err(|e| e.context(path.display()))?;
    let mut files = Vec::new();
    for shard in map.values().collect::<BTreeSet<_>>() {
        let file = path.with_file_name(shard);
        let reader = Reader::open(&file)?;
        let inside = reader.entries().iter().map(|e| e.name.as_str());
        check_shard(&map, shard, inside).map_err(|e| e.context(path.display()))?;
        files.push(collect(&reader).map_err(|e| e.context(file.display()))?);
    }
    Tensors::join(files)
}

/// `weight_map` of the index: tensor to file name.
fn weight_map(path: &Path) -> Result<BTreeMap<String, String>> {
    let len = fs::metadata(path)?.len();
    if len > MAX_HEADER {
        return Err(Error::format(format!("an index of {len} bytes is past the limit of {MAX_HEADER}")));
    }
    let text = fs::read(path)?;
    let index: Value = serde_json::from_slice(&text).map_err(|e| Error::format(e.to_string()))?;
    let Some(map) = index.get("weight_map").and_then(Value::as_object) else {
        return Err(Error::format("the index has no map named `weight_map`"));
    };
    let file = |(tensor, shard): (&String, &Value)| {
        let name = shard.as_str().filter(|name| {
            let mut parts = Path::new(name).components();
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        });
        let name = name.ok_or_else(|| {
            Error::format(format!("tensor `{tensor}`: {shard} is no name of a file beside the index"))
        })?;
        Ok((tensor.clone(), name.to_owned()))
    };
    map.iter().map(file).collect()
}

/// The shard must hold what the index says, and nothing else.
fn check_shard<'a>(
    map: &BTreeMap<String, String>,
    shard: &str,
    inside: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let inside: BTreeSet<_> = inside.collect();
    let promised: BTreeSet<_> =
        map.iter().filter(|(_, s)| *s == shard).map(|(name, _)| name.as_str()).collect();
    if let Some(name) = promised.difference(&inside).next() {
        return Err(Error::format(format!(
            "tensor `{name}` is not in `{shard}`, where the index says it is"
        )));
    }
    if let Some(name) = inside.difference(&promised).next() {
        return Err(Error::format(format!("tensor `{name}` is in `{shard}`, and the index does not say so")));
    }
    Ok(())
}
