//! What a student is judged by.

use ndarray::Array2;

use crate::Element;
use crate::quantize::distillation::adversary::Inputs;
use crate::quantize::distillation::student::Student;

/// The inputs that students answer to, and the size of the teacher's answers.
pub(super) struct Exam<'a> {
    grams: &'a [Array2<f64>],
    held_out: Option<&'a [Array2<f64>]>,
    inputs: &'a [Inputs],
    teacher: f64,
    teacher_held_out: f64,
}

/// Errors of a student, each as a share of the teacher's answers.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    pub(super) error: f64,
    pub(super) held_out: Option<f64>,
    pub(super) worst_case: Option<f64>,
}

impl Marks {
    /// Whether nothing is worse on average than with nearest rounding.
    pub(super) fn pass(&self, nearest: &Self) -> bool {
        self.error <= nearest.error && self.held_out <= nearest.held_out
    }
}

impl<'a> Exam<'a> {
    /// `inputs` are empty for an embedding, which has no worst case.
    pub(super) fn new<F: Element>(
        student: &Student<'_, F>,
        grams: &'a [Array2<f64>],
        held_out: Option<&'a [Array2<f64>]>,
        inputs: &'a [Inputs],
    ) -> Self {
        let teacher_held_out = held_out.map_or(0.0, |grams| student.teacher(grams));
        Self { grams, held_out, inputs, teacher: student.teacher(grams), teacher_held_out }
    }

    pub(super) fn marks<F: Element>(&self, student: &Student<'_, F>) -> Marks {
        let share = |error: f64, of: f64| if error > 0.0 { error / of } else { 0.0 };
        let error = |grams: &[Array2<f64>], of: f64| share(student.losses(grams).iter().sum(), of);
        let worst_case = self.inputs.first().map(|first| {
            let pairs = student.differences();
            let worst: f64 = pairs.iter().zip(self.inputs).map(|(m, inputs)| inputs.worst(m).1).sum();
            share(worst * first.rows, self.teacher)
        });
        Marks {
            error: error(self.grams, self.teacher),
            held_out: self.held_out.map(|grams| error(grams, self.teacher_held_out)),
            worst_case,
        }
    }
}
