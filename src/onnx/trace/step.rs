//! One node as the operators see it: its inputs' axes, and what it may do with them.

use std::collections::HashMap;

use crate::onnx::proto::NodeProto;
use crate::onnx::shape::{Shapes, Value};
use crate::onnx::trace::space::{Reason, Space};
use crate::onnx::trace::{Axis, ops};
use crate::onnx::view::{Node, Source, TensorId, View};

/// What a weight is, as the first node that reads it says.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) tensor: TensorId,
    pub(super) node: usize,
    pub(super) role: Role,
    pub(super) out_axis: usize,
    pub(super) in_axis: usize,
    /// which input of the node is what it reads
    pub(super) reads: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Linear,
    Conv,
    Transposed,
    Embedding,
    /// of a recurrent layer: gates, and whether it reads the layer's own state
    Recurrent {
        gates: usize,
        own: bool,
    },
}

/// How a split of an axis was answered: which of its parts carries the units.
pub(super) type Choices = HashMap<(usize, Vec<usize>), usize>;

/// The state of a trace.
pub(super) struct Tracer<'v, 'g> {
    pub(super) view: &'v View<'g>,
    pub(super) shapes: &'v Shapes,
    /// whether axes follow the size of the inputs
    pub(super) dynamic: &'v [Vec<bool>],
    pub(super) axes: Vec<Vec<Axis>>,
    pub(super) space: Space,
    pub(super) found: Vec<Found>,
    pub(super) choices: Choices,
    /// splits that were met, and how many answers each has
    pub(super) splits: Vec<((usize, Vec<usize>), usize)>,
    /// an initializer behind transposes and casts: itself, and the axis that each axis is
    pub(super) behind: Vec<Option<(TensorId, Vec<usize>)>>,
}

impl<'v, 'g> Tracer<'v, 'g> {
    fn new(view: &'v View<'g>, (shapes, dynamic): (&'v Shapes, &'v [Vec<bool>]), choices: Choices) -> Self {
        let mut tracer = Self {
            view,
            shapes,
            dynamic,
            axes: Vec::new(),
            space: Space::default(),
            found: Vec::new(),
            choices,
            splits: Vec::new(),
            behind: vec![None; view.tensors.len()],
        };
        for tensor in 0..view.tensors.len() {
            let dims = shapes.dims[tensor].clone().unwrap_or_default();
            let constant = matches!(view.tensors[tensor].source, Source::Initializer(..));
            let axes = if constant { tracer.constant(tensor, &dims) } else { vec![None; dims.len()] };
            tracer.axes.push(axes);
        }
        tracer
    }

    /// Follows every axis through all nodes.
    pub(super) fn follow(
        view: &'v View<'g>,
        shapes: (&'v Shapes, &'v [Vec<bool>]),
        choices: Choices,
        through_statistics: bool,
    ) -> Self {
        let mut tracer = Self::new(view, shapes, choices);
        for number in 0..view.nodes.len() {
            ops::follow(&mut Step { tracer: &mut tracer, number });
        }
        tracer.hold_outputs();
        if through_statistics {
            tracer.space.let_statistics_go();
        }
        tracer
    }

    /// What the graph answers keeps its shape.
    fn hold_outputs(&mut self) {
        for &output in self.view.graphs.iter().filter(|graph| graph.path.is_empty()).flat_map(|g| &g.outputs)
        {
            let Some(tensor) = output else { continue };
            let node = self.view.tensors[tensor].name.to_owned();
            let reason = Reason {
                operator: "output".into(),
                node,
                why: "the graph answers with it",
                statistic: false,
            };
            let reason = self.space.reason(reason);
            for axis in &self.axes[tensor] {
                self.space.hold_all(axis, reason);
            }
        }
    }

    /// Axes of a constant: each position its own class, until something reads it.
    pub(super) fn constant(&mut self, tensor: TensorId, dims: &[usize]) -> Vec<Axis> {
        self.behind[tensor] = Some((tensor, (0..dims.len()).collect()));
        dims.iter().map(|&len| self.space.fresh(len)).collect()
    }
}

/// An axis number that may count from the end.
pub(super) fn wrap(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// A node at work.
pub(super) struct Step<'t, 'v, 'g> {
    pub(super) tracer: &'t mut Tracer<'v, 'g>,
    pub(super) number: usize,
}

impl<'v, 'g> Step<'_, 'v, 'g> {
    pub(super) fn node(&self) -> &'v Node<'g> {
        &self.tracer.view.nodes[self.number]
    }

    pub(super) fn proto(&self) -> &'g NodeProto {
        self.node().proto
    }

    pub(super) fn opset(&self) -> i64 {
        self.tracer.view.opset
    }

    pub(super) fn input(&self, k: usize) -> Option<TensorId> {
        self.node().inputs.get(k).copied().flatten()
    }

    pub(super) fn inputs(&self) -> Vec<TensorId> {
        self.node().inputs.iter().flatten().copied().collect()
    }

    pub(super) fn output(&self, k: usize) -> Option<TensorId> {
        self.node().outputs.get(k).copied().flatten()
    }

    /// Lengths of an input's axes; empty where they are not known.
    pub(super) fn dims(&self, k: usize) -> &'v [usize] {
        self.input(k).map_or(&[], |tensor| self.dims_of(tensor))
    }

    pub(super) fn out_dims(&self, k: usize) -> &'v [usize] {
        self.output(k).map_or(&[], |tensor| self.dims_of(tensor))
    }

    pub(super) fn dims_of(&self, tensor: TensorId) -> &'v [usize] {
        self.tracer.shapes.dims[tensor].as_deref().unwrap_or_default()
    }

    /// The numbers that an input holds, where they are known.
    pub(super) fn value(&self, k: usize) -> Option<&'v Value> {
        self.tracer.shapes.values[self.input(k)?].as_ref()
    }

    pub(super) fn axes(&self, k: usize) -> Vec<Axis> {
        self.input(k).map_or_else(Vec::new, |tensor| self.tracer.axes[tensor].clone())
    }

    pub(super) fn axis(&self, k: usize, axis: usize) -> Axis {
        self.input(k).and_then(|tensor| self.tracer.axes[tensor].get(axis).cloned()).flatten()
    }

    /// Says what the axes of an output are. Lists of another length than the output's axes are an operator that was
    /// misread: everything in them is held.
    pub(super) fn set(&mut self, k: usize, axes: Vec<Axis>) {
        let Some(tensor) = self.output(k) else { return };
        let dims = self.dims_of(tensor);
        let fits = axes.len() == dims.len()
            && axes.iter().zip(dims).all(|(axis, &len)| axis.as_ref().is_none_or(|a| a.len() == len));
        if fits {
            self.tracer.axes[tensor] = axes;
        } else {
            let reason = self.reason("its shape is not understood");
            for axis in &axes {
                self.tracer.space.hold_all(axis, reason);
            }
        }
    }

    pub(super) fn reason(&mut self, why: &'static str) -> u32 {
        self.because(why, false)
    }

    fn because(&mut self, why: &'static str, statistic: bool) -> u32 {
        let proto = self.proto();
        let (operator, node) = (proto.operator(), proto.title().to_owned());
        self.tracer.space.reason(Reason { operator, node, why, statistic })
    }

    pub(super) fn hold(&mut self, axis: &Axis, why: &'static str) {
        if axis.is_some() {
            let reason = self.reason(why);
            self.tracer.space.hold_all(axis, reason);
        }
    }

    /// Holds an axis whose statistics the node takes: without some of its positions they would be others.
    pub(super) fn hold_statistic(&mut self, axis: &Axis) {
        if axis.is_some() {
            let reason = self.because("it takes a statistic over these channels", true);
            self.tracer.space.hold_all(axis, reason);
        }
    }

    /// Holds every input: the trace ends here.
    pub(super) fn stop(&mut self, why: &'static str) {
        for tensor in self.inputs() {
            for axis in self.tracer.axes[tensor].clone() {
                self.hold(&axis, why);
            }
        }
    }

    /// Two axes that are one; the other side of an axis that is not followed is held.
    pub(super) fn join(&mut self, a: &Axis, b: &Axis) {
        match (a, b) {
            (Some(a), Some(b)) if a.len() == b.len() => {
                a.iter().zip(b.iter()).for_each(|(&a, &b)| self.tracer.space.join(a, b));
            }
            (Some(_), Some(_)) => {
                self.hold(a, "its shapes are not understood");
                self.hold(b, "its shapes are not understood");
            }
            (Some(_), None) => self.hold(a, "what it meets here keeps its size"),
            (None, Some(_)) => self.hold(b, "what it meets here keeps its size"),
            (None, None) => {}
        }
    }

    /// The classes that an axis's positions get when each stands for `per` neighbours and the whole for `copies`.
    pub(super) fn spread(axis: &Axis, copies: usize, per: usize) -> Axis {
        let axis = axis.as_ref()?;
        let once = || axis.iter().flat_map(|&class| std::iter::repeat_n(class, per));
        Some((0..copies).flat_map(|_| once()).collect())
    }

    /// Makes all positions of an axis that `part` gives one number one class each, and gives those.
    pub(super) fn gather(&mut self, axis: &Axis, parts: usize, part: impl Fn(usize) -> usize) -> Axis {
        let axis = axis.as_ref()?;
        let mut first: Vec<Option<u32>> = vec![None; parts];
        for (position, &class) in axis.iter().enumerate() {
            match first.get_mut(part(position))? {
                Some(other) => self.tracer.space.join(*other, class),
                slot => *slot = Some(class),
            }
        }
        first.into_iter().collect::<Option<Vec<u32>>>().filter(|axis| axis.len() > 1).map(Into::into)
    }

    /// Notes what a weight is; the first node that reads it decides.
    pub(super) fn weight(&mut self, k: usize, role: Role, [out, inp]: [usize; 2], reads: Option<usize>) {
        let Some((tensor, axes)) = self.input(k).and_then(|t| self.tracer.behind[t].clone()) else { return };
        let (Some(&out_axis), Some(&in_axis)) = (axes.get(out), axes.get(inp)) else { return };
        if self.tracer.found.iter().all(|f| f.tensor != tensor) {
            let node = self.number;
            self.tracer.found.push(Found { tensor, node, role, out_axis, in_axis, reads });
        }
    }
}
