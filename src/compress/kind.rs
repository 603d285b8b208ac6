//! A parameter's kind and axes as a word of the file.

use crate::model::geometry::PerAxis;
use crate::{Error, Geometry, Kind, NormRole, Parameter, Result};

/// Empty for an array that is nothing in particular.
pub(super) fn write(kind: &Kind, out_axis: usize, in_axis: Option<usize>) -> String {
    let word = match kind {
        Kind::Linear => "linear".to_owned(),
        Kind::Conv(g) => {
            let one = |number: &usize| number.to_string();
            let (strides, dilations) = (per_axis(&g.strides, one), per_axis(&g.dilations, one));
            let sides = |(before, after): &(usize, usize)| {
                if before == after { one(before) } else { format!("{before}:{after}") }
            };
            let paddings = per_axis(&g.paddings, sides);
            format!("conv {strides} {paddings} {dilations} {}", g.groups)
        }
        Kind::Recurrent { gates } => format!("recurrent {gates}"),
        Kind::Embedding => "embedding".to_owned(),
        Kind::Bias { of } => format!("bias {of}"),
        Kind::Norm { role, of } => {
            let role = ROLES.iter().find(|(r, _)| r == role).map_or("scale", |(_, word)| word);
            of.as_ref().map_or_else(|| role.to_owned(), |of| format!("{role} {of}"))
        }
        Kind::Other => String::new(),
    };
    let usual = Parameter::<f32>::usual_axes(kind);
    match in_axis {
        Some(in_axis) if usual != (out_axis, Some(in_axis)) => format!("{out_axis}<{in_axis} {word}"),
        _ => word,
    }
}

const ROLES: [(NormRole, &str); 4] = [
    (NormRole::Scale, "scale"),
    (NormRole::Shift, "shift"),
    (NormRole::Mean, "mean"),
    (NormRole::Variance, "variance"),
];

/// The inverse, for an array with this many axes.
pub(super) fn read(word: &str, axes: usize) -> Result<(Kind, usize, Option<usize>)> {
    if word.is_empty() {
        return Ok((Kind::Other, 0, None));
    }
    let wrong = || Error::format(format!("`{word}` is no kind of an array with {axes} axes"));
    let (head, rest) = word.split_once(' ').unwrap_or((word, ""));
    let said = match head.split_once('<') {
        Some((out, input)) => {
            Some((out.parse().map_err(|_| wrong())?, Some(input.parse().map_err(|_| wrong())?)))
        }
        None => None,
    };
    let kind = kind(if said.is_some() { rest } else { word }).ok_or_else(wrong)?;
    let (out_axis, in_axis) = said.unwrap_or_else(|| Parameter::<f32>::usual_axes(&kind));
    let there = |axis: usize| axis < axes;
    let fits = match &kind {
        Kind::Conv(geometry) => axes.checked_sub(2).is_some_and(|axes| geometry.flaw(axes).is_none()),
        _ => true,
    };
    if !fits {
        return Err(wrong());
    }
    if kind.is_weight() && !(there(out_axis) && in_axis.is_some_and(there)) {
        return Err(wrong());
    }
    Ok((kind, out_axis, in_axis))
}

fn kind(word: &str) -> Option<Kind> {
    let (head, rest) = word.split_once(' ').unwrap_or((word, ""));
    let of = || (!rest.is_empty()).then(|| rest.to_owned());
    if let Some((role, _)) = ROLES.iter().find(|(_, word)| *word == head) {
        return Some(Kind::Norm { role: *role, of: of() });
    }
    Some(match head {
        "linear" => Kind::Linear,
        "embedding" => Kind::Embedding,
        "bias" => Kind::Bias { of: of()? },
        "recurrent" => Kind::Recurrent { gates: rest.parse().ok()? },
        "conv" => {
            let words: Vec<&str> = rest.split(' ').collect();
            let [strides, paddings, dilations, groups] = <[&str; 4]>::try_from(words).ok()?;
            let one = |number: &str| number.parse().ok();
            let sides = |word: &str| match word.split_once(':') {
                Some((before, after)) => Some((before.parse().ok()?, after.parse().ok()?)),
                None => word.parse().ok().map(|both| (both, both)),
            };
            Kind::Conv(Geometry {
                strides: read_per_axis(strides, 1, one)?,
                paddings: read_per_axis(paddings, (0, 0), sides)?,
                dilations: read_per_axis(dilations, 1, one)?,
                groups: groups.parse().ok()?,
            })
        }
        _ => return None,
    })
}

/// One number for all axes, or a list in brackets with one for each.
fn per_axis<T: Copy>(numbers: &PerAxis<T>, word: impl Fn(&T) -> String) -> String {
    match numbers {
        PerAxis::All(value) => word(value),
        PerAxis::Each { values, count } => {
            let words: Vec<String> = values.iter().take(*count).map(word).collect();
            format!("[{}]", words.join(","))
        }
    }
}

fn read_per_axis<T: Copy>(word: &str, fill: T, read: impl Fn(&str) -> Option<T>) -> Option<PerAxis<T>> {
    match word.strip_prefix('[') {
        None => Some(PerAxis::All(read(word)?)),
        Some(list) => {
            let values = list.strip_suffix(']')?.split(',').map(read).collect::<Option<Vec<_>>>()?;
            Some(PerAxis::each(values, fill))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives() {
        let of = "a name with spaces".to_owned();
        let kinds = [
            Kind::Linear,
            Kind::Embedding,
            Kind::Other,
            Kind::Recurrent { gates: 4 },
            Kind::Bias { of: of.clone() },
            Kind::Norm { role: NormRole::Mean, of: Some(of) },
            Kind::Norm { role: NormRole::Shift, of: None },
        ];
        for kind in kinds {
            let (out_axis, in_axis) = Parameter::<f32>::usual_axes(&kind);
            let word = write(&kind, out_axis, in_axis);
            assert_eq!(read(&word, 2).unwrap(), (kind, out_axis, in_axis), "{word:?}");
        }
        let conv = Kind::Conv(Geometry::new().stride(2).padding(1).groups(8));
        assert_eq!(read(&write(&conv, 0, Some(1)), 4).unwrap(), (conv.clone(), 0, Some(1)));
        assert_eq!(write(&conv, 0, Some(1)), "conv 2 1 1 8");
        let uneven = Geometry::new().strides([2, 1]).paddings([(0, 1), (3, 3)]).dilations([1, 2]);
        let word = write(&Kind::Conv(uneven), 0, Some(1));
        assert_eq!(word, "conv [2,1] [0:1,3] [1,2] 1");
        assert_eq!(read(&word, 4).unwrap().0, Kind::Conv(uneven));
        let line = Kind::Conv(Geometry::new().strides([3]).paddings([(1, 0)]));
        assert_eq!(read(&write(&line, 0, Some(1)), 3).unwrap().0, line);
        assert_eq!(write(&Kind::Linear, 1, Some(0)), "1<0 linear");
        assert_eq!(read("1<0 linear", 2).unwrap(), (Kind::Linear, 1, Some(0)));
    }

    #[test]
    fn lies_are_errors() {
        for word in
            ["conv [1] 0 1 1", "conv [1,1 0 1 1", "conv [1,1] 0:1:2 1 1", "conv 1 0 [] 1", "conv 0 0 1 1"]
        {
            assert!(read(word, 4).is_err(), "{word}");
        }
        for word in ["conv 1 2", "conv 1 1 1 x", "recurrent", "bias", "7<0 linear", "x<0 linear", "tensor"] {
            assert!(read(word, 2).is_err(), "{word}");
        }
    }
}
