//! What a caller can get wrong about a model or its evidence is an error that names the place, and changes nothing.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

use ndarray::{Array, Array1, Array2, Array3, ArrayD, IxDyn, arr0, array};
use niwaki::importance::{Magnitude, Scores};
use niwaki::model::{CouplingBuilder, Selection};
use niwaki::prune::{Channel, Pruner, Sparsity, Unstructured};
use niwaki::{
    Block, Coupling, Error, ErrorKind, Evidence, Geometry, Layer, Model, ModelBuilder, Needs, NormRole,
    Parameter, Pattern, Result, Slot,
};

/// Two linear layers of 4 hidden units.
fn mlp() -> ModelBuilder<f32> {
    Model::builder()
        .parameter(Parameter::linear("fc1.weight", Array2::ones((4, 3))))
        .parameter(Parameter::bias("fc1.bias", Array1::ones(4), "fc1.weight"))
        .parameter(Parameter::linear("fc2.weight", Array2::ones((2, 4))))
        .block(Block::new("tail").parameters(["fc2.weight"]))
}

fn hidden() -> CouplingBuilder {
    Coupling::builder("hidden").outputs(["fc1.weight", "fc1.bias"]).inputs(["fc2.weight"])
}

/// Checks the kind of an error and that its message names all of these.
#[track_caller]
fn assert_says<T>(result: Result<T>, kind: ErrorKind, names: &[&str]) {
    let Err(error) = result else { panic!("this should not have worked") };
    assert_eq!(error.kind(), kind, "{error}");
    for name in names {
        assert!(error.to_string().contains(name), "`{error}` does not name {name}");
    }
}

#[test]
fn couplings_that_contradict_shapes_name_both_slots() {
    let coupled = |coupling| mlp().coupling(coupling).build();
    assert!(coupled(hidden()).is_ok());
    let contradiction = Coupling::builder("c").outputs(["fc1.weight"]).inputs(["fc1.weight"]);
    assert_says(
        coupled(contradiction),
        ErrorKind::Shape,
        &["coupling `c`", "slot `fc1.weight` axis 0 has 4", "slot `fc1.weight` axis 1", "holds 3"],
    );
    let past_the_end = hidden().slot(Slot::output("fc2.weight").offset(1));
    assert_says(
        coupled(past_the_end),
        ErrorKind::Shape,
        &["`fc1.weight` axis 0", "`fc2.weight` axis 0", "length 2"],
    );
    let odd = Coupling::builder("c").slot(Slot::output("fc1.weight").copies(3));
    assert_says(coupled(odd), ErrorKind::Shape, &["`fc1.weight` axis 0 of length 4", "3 copies"]);
    let told = Coupling::builder("c").size(5).inputs(["fc2.weight"]);
    assert_says(coupled(told), ErrorKind::Shape, &["5 indices", "`fc2.weight` axis 1", "holds 4"]);
    let untold = Coupling::builder("c").slot(Slot::input("fc2.weight").offset(0));
    assert_says(coupled(untold), ErrorKind::Setting, &["coupling `c`", "size"]);
    assert_says(coupled(Coupling::builder("c")), ErrorKind::Setting, &["coupling `c`", "no slots"]);
    let empty = Coupling::builder("c").size(usize::MAX);
    assert_says(coupled(empty), ErrorKind::Setting, &["coupling `c`", "no slots"]);
    let no_axis = Coupling::builder("c").slot(Slot::at("fc1.weight", 2));
    assert_says(coupled(no_axis), ErrorKind::Shape, &["`fc1.weight`", "no axis 2"]);
    assert_says(coupled(hidden().inputs(["fc1.bias"])), ErrorKind::Shape, &["`fc1.bias`", "no input axis"]);
}

#[test]
fn slots_of_absurd_numbers_do_not_build() {
    let max = usize::MAX;
    let slot = || Slot::input("fc2.weight");
    for slot in [
        slot().offset(max),
        slot().offset(4),
        slot().repeat(0),
        slot().copies(0),
        slot().repeat(max),
        slot().copies(max).stride(0),
        slot().copies(max).repeat(max),
        slot().copies(2).stride(max),
        slot().offset(max).copies(max).stride(max).repeat(max),
        Slot::at("fc2.weight", max),
    ] {
        let coupling = Coupling::builder("c").outputs(["fc1.weight", "fc1.bias"]).slot(slot.clone());
        let said = mlp().coupling(coupling).build();
        assert_says(said, ErrorKind::Shape, &["fc2.weight"]);
        for size in [0, 1, max] {
            let alone = Coupling::builder("c").size(size).slot(slot.clone()).slot(slot.clone());
            assert!(mlp().coupling(alone).build().is_err(), "{slot:?} of {size}");
        }
    }
}

#[test]
fn overlapping_couplings_name_both() {
    let twice = mlp().coupling(hidden()).coupling(Coupling::builder("again").inputs(["fc2.weight"])).build();
    assert_says(twice, ErrorKind::Shape, &["`fc2.weight` axis 1", "`hidden`", "`again`", "position 0"]);
    let itself = mlp().coupling(hidden().inputs(["fc2.weight"])).build();
    assert_says(itself, ErrorKind::Shape, &["`fc2.weight` axis 1", "`hidden`"]);
    let folded = hidden().slot(Slot::input("fc2.weight").offset(0).copies(1)).size(4);
    assert!(mlp().coupling(folded).build().is_err());
}

#[test]
fn what_belongs_to_a_weight_is_cut_with_it() {
    let forgotten = Coupling::builder("hidden").outputs(["fc1.weight"]).inputs(["fc2.weight"]);
    let said = mlp().coupling(forgotten).build();
    assert_says(said, ErrorKind::Shape, &["`fc1.weight` axis 0", "`fc1.bias`", "`hidden`"]);
    let alone = Coupling::builder("hidden").outputs(["fc1.bias"]);
    assert_says(mlp().coupling(alone).build(), ErrorKind::Shape, &["`fc1.weight` axis 0", "`fc1.bias`"]);
    let apart = [
        Coupling::builder("a").outputs(["fc1.weight"]).inputs(["fc2.weight"]),
        Coupling::builder("b").outputs(["fc1.bias"]),
    ];
    let said = apart.into_iter().fold(mlp(), ModelBuilder::coupling).build();
    assert_says(said, ErrorKind::Shape, &["`a`", "`b`"]);
}

#[test]
fn indices_do_not_cut_across_groups_or_gates() {
    let conv = Parameter::conv("conv", Array::<f32, _>::ones((6, 2, 3, 3)), Geometry::new().groups(3));
    let coupled =
        |slot| Model::builder().parameter(conv.clone()).coupling(Coupling::builder("c").slot(slot)).build();
    assert!(coupled(Slot::output("conv").copies(3)).is_ok());
    assert!(coupled(Slot::output("conv").repeat(2)).is_ok());
    assert_says(
        coupled(Slot::output("conv")),
        ErrorKind::Shape,
        &["`c`", "`conv` axis 0", "index 0", "groups of the 3"],
    );
    assert_says(coupled(Slot::output("conv").repeat(3)), ErrorKind::Shape, &["`conv` axis 0"]);

    let cell = Parameter::recurrent("cell", Array2::<f32>::ones((8, 2)), 4);
    let coupled =
        |slot| Model::builder().parameter(cell.clone()).coupling(Coupling::builder("c").slot(slot)).build();
    // Stacked gates are known for what they are; an axis named by number is taken as it is.
    assert!(coupled(Slot::output("cell").copies(4)).is_ok());
    assert_eq!(coupled(Slot::output("cell")).unwrap(), coupled(Slot::output("cell").copies(4)).unwrap());
    let said = coupled(Slot::at("cell", 0));
    assert_says(
        said,
        ErrorKind::Shape,
        &["`c`", "`cell` axis 0", "index 0", "1 of the 4 gates", "hidden unit 0"],
    );
}

#[test]
fn values_that_are_not_finite_name_parameter_and_index() -> Result<()> {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let weights = array![[1.0, 2.0], [bad, 3.0]];
        let built = Model::builder().parameter(Parameter::linear("fc", weights.clone())).build();
        assert_says(built, ErrorKind::NotFinite, &["`fc`", "index 2"]);
        // Row-major, however the array lies in memory.
        let turned = Parameter::linear("fc", weights.reversed_axes());
        assert_says(Model::builder().parameter(turned).build(), ErrorKind::NotFinite, &["`fc`", "index 1"]);
        let other = Parameter::other("position", Array1::from(vec![0.0, bad]));
        assert_says(
            Model::builder().parameter(other).build(),
            ErrorKind::NotFinite,
            &["`position`", "index 1"],
        );

        let mut model = mlp().build()?;
        let before = model.clone();
        let said = model.set_values("fc1.bias", array![0.0, 1.0, 2.0, bad].into_dyn());
        assert_says(said, ErrorKind::NotFinite, &["`fc1.bias`", "index 3"]);
        assert_eq!(model, before);
    }
    Ok(())
}

#[test]
fn other_values_must_have_the_shape() -> Result<()> {
    let mut model = mlp().build()?;
    let before = model.clone();
    let said = model.set_values("fc1.bias", ArrayD::zeros(IxDyn(&[3])));
    assert_says(said, ErrorKind::Shape, &["`fc1.bias`", "[3]", "[4]"]);
    assert_says(model.set_values("fc3", ArrayD::zeros(IxDyn(&[3]))), ErrorKind::Name, &["`fc3`"]);
    assert_eq!(model, before);
    Ok(())
}

#[test]
fn shapes_that_a_kind_cannot_have() {
    let build = |parameter: Parameter<f32>| Model::builder().parameter(parameter).build();
    let zeros = |shape: &[usize]| ArrayD::<f32>::zeros(IxDyn(shape));
    let named: [(Parameter<f32>, &str); 23] = [
        (Parameter::linear("w", zeros(&[0, 3])), "empty"),
        (Parameter::linear("w", zeros(&[3, 0])), "empty"),
        (Parameter::other("w", zeros(&[0])), "empty"),
        (Parameter::conv("w", zeros(&[2, 2, 0]), Geometry::new()), "empty"),
        (Parameter::linear("w", zeros(&[])), "0 axes"),
        (Parameter::linear("w", zeros(&[3])), "1 axes"),
        (Parameter::linear("w", zeros(&[3, 3, 3])), "3 axes"),
        (Parameter::conv("w", zeros(&[3, 3]), Geometry::new()), "2 axes"),
        (Parameter::embedding("w", zeros(&[])), "0 axes"),
        (Parameter::recurrent("w", zeros(&[]), 4), "0 axes"),
        (Parameter::norm("w", zeros(&[2, 2]), NormRole::Scale), "2 axes"),
        (Parameter::recurrent("w", zeros(&[6, 2]), 4), "4 gates"),
        (Parameter::recurrent("w", zeros(&[6, 2]), 0), "0 gates"),
        (Parameter::conv("w", zeros(&[6, 2, 1]), Geometry::new().groups(4)), "4 groups"),
        (Parameter::conv("w", zeros(&[6, 2, 1]), Geometry::new().groups(0)), "0 groups"),
        (Parameter::conv("w", zeros(&[6, 2, 1]), Geometry::new().stride(0)), "stride 0"),
        (Parameter::conv("w", zeros(&[6, 2, 1, 1]), Geometry::new().dilations([1, 0])), "dilation 0"),
        (Parameter::conv("w", zeros(&[6, 2, 1]), Geometry::new().strides([2, 1])), "2 strides"),
        (
            Parameter::conv("w", zeros(&[6, 2, 1, 1, 1, 1]), Geometry::new().paddings([(0, 1); 4])),
            "4 paddings",
        ),
        (Parameter::conv("w", zeros(&[6, 2, 1]), Geometry::new()).axes(1, 0), "out, in"),
        (Parameter::linear("w", zeros(&[6, 2])).axes(0, 2), "not all there"),
        (Parameter::linear("w", zeros(&[6, 2])).axes(1, 1), "both axis 1"),
        (Parameter::other("w", zeros(&[6, 2])).axes(7, 9), "not all there"),
    ];
    for (parameter, what) in named {
        // What has not been checked yet does not panic either.
        let _ = (parameter.units(), parameter.fan_in(), parameter.taps(), parameter.groups());
        assert_says(build(parameter), ErrorKind::Shape, &["`w`", what]);
    }
    assert!(build(Parameter::other("steps", arr0(3.0))).is_ok());
}

#[test]
fn owners_are_checked() {
    let with = |parameter: Parameter<f32>, of: &str| {
        let bias = Parameter::bias("b", Array1::zeros(2), of);
        Model::builder().parameter(parameter).parameter(bias).build()
    };
    let linear = |rows| Parameter::linear("w", Array2::zeros((rows, 2)));
    assert!(with(linear(2), "w").is_ok());
    assert_says(with(linear(3), "w"), ErrorKind::Shape, &["`b` has 2", "`w` has 3"]);
    assert_says(with(linear(2), "v"), ErrorKind::Name, &["`b`", "`v`"]);
    assert_says(with(linear(2), "b"), ErrorKind::Shape, &["`b`", "no weight"]);
    assert_says(with(Parameter::other("w", arr0(1.0)), "w"), ErrorKind::Shape, &["`b`", "`w`", "no weight"]);
    let norm = mlp().batch_norm("bn", "fc1.weight").build();
    assert_says(norm, ErrorKind::Name, &["`bn.weight`"]);
}

#[test]
fn names_that_are_there_twice_or_not_at_all() -> Result<()> {
    let twice = mlp().parameter(Parameter::other("fc1.bias", Array1::ones(4))).build();
    assert_says(twice, ErrorKind::Name, &["two parameters", "`fc1.bias`"]);
    let same = mlp().coupling(hidden()).coupling(Coupling::builder("hidden").outputs(["fc2.weight"])).build();
    assert_says(same, ErrorKind::Name, &["two couplings", "`hidden`"]);
    assert_says(mlp().block(Block::new("tail")).build(), ErrorKind::Name, &["two blocks", "`tail`"]);
    assert_says(mlp().conv("fc9", Geometry::new()).build(), ErrorKind::Name, &["`fc9`"]);
    let unknown = mlp().coupling(Coupling::builder("c").outputs(["fc9"])).build();
    assert_says(unknown, ErrorKind::Name, &["coupling `c`", "`fc9`"]);
    let unknown = mlp().block(Block::new("c").parameters(["fc9"])).build();
    assert_says(unknown, ErrorKind::Name, &["block `c`", "`fc9`"]);

    let model = mlp().build()?;
    assert_says(model.parameter("fc9"), ErrorKind::Name, &["`fc9`"]);
    assert_says(model.coupling("c"), ErrorKind::Name, &["`c`"]);
    assert!(model.find("fc9").is_none() && model.block("c").is_none());
    Ok(())
}

#[test]
fn evidence_that_does_not_fit_changes_nothing() -> Result<()> {
    let conv = Parameter::conv("conv", Array::<f32, _>::ones((2, 1, 3, 3)), Geometry::new().stride(2));
    let table = Parameter::embedding("table", Array2::ones((5, 3)));
    let model = mlp().parameter(conv).parameter(table).build()?;
    let mut evidence = Evidence::new(&model, Needs::ALL);
    evidence.record_output("fc1.weight", &Array2::<f32>::ones((2, 4)))?;
    evidence.record_input("fc1.weight", &Array2::<f32>::ones((2, 3)))?;
    evidence.record_output("conv", &Array::<f32, _>::ones((2, 2, 4, 4)))?;
    evidence.record_gradient("fc2.weight", &Array2::<f32>::ones((2, 4)))?;
    evidence.record_block("tail", &Array2::<f32>::ones((2, 4)), &Array2::zeros((2, 4)))?;
    let before = evidence.clone();

    let any = Array2::<f32>::ones((2, 4));
    assert_says(evidence.record_output("fc9", &any), ErrorKind::Name, &["`fc9`"]);
    assert_says(evidence.record_input("fc1.bias", &any), ErrorKind::Name, &["`fc1.bias`"]);
    assert_says(evidence.record_gradient("fc1.bias", &any), ErrorKind::Name, &["`fc1.bias`"]);
    assert_says(evidence.record_snapshot_gradient("fc9", &any), ErrorKind::Name, &["`fc9`"]);
    assert_says(evidence.record_block("head", &any, &any), ErrorKind::Name, &["`head`"]);

    let shaped = |shape: &[usize]| ArrayD::<f32>::ones(IxDyn(shape));
    for shape in [&[][..], &[4], &[0], &[0, 4], &[2, 0], &[2, 5], &[4, 2], &[2, 0, 4]] {
        let x = shaped(shape);
        assert_says(evidence.record_output("fc1.weight", &x), ErrorKind::Shape, &["`fc1.weight`", "output"]);
        assert_says(evidence.record_input("fc1.weight", &x), ErrorKind::Shape, &["`fc1.weight`", "input"]);
    }
    for shape in [&[][..], &[2], &[0, 2, 4, 4], &[1, 2, 0, 4], &[1, 3, 4, 4], &[2, 2, 5, 4]] {
        let said = evidence.record_output("conv", &shaped(shape));
        assert_says(said, ErrorKind::Shape, &["`conv`"]);
    }
    for shape in [&[][..], &[1, 1], &[0, 1, 9, 9], &[1, 2, 9, 9], &[1, 1, 2, 9], &[1, 1, 9], &[1, 1, 9, 9, 9]]
    {
        assert_says(evidence.record_input("conv", &shaped(shape)), ErrorKind::Shape, &["`conv`", "input"]);
    }
    assert_says(evidence.record_input("table", &any), ErrorKind::Unsupported, &["`table`", "indices"]);
    for shape in [&[][..], &[0, 4], &[4, 2], &[2, 4, 1], &[8]] {
        let said = evidence.record_gradient("fc2.weight", &shaped(shape));
        assert_says(said, ErrorKind::Shape, &["`fc2.weight`", "[2, 4]"]);
        assert!(evidence.record_snapshot_gradient("fc2.weight", &shaped(shape)).is_err());
        assert!(evidence.record_block("tail", &any.clone().into_dyn(), &shaped(shape)).is_err());
    }
    assert_says(evidence.record_block("tail", &shaped(&[]), &shaped(&[])), ErrorKind::Shape, &["`tail`"]);

    for bad in [f32::NAN, f32::INFINITY] {
        let x = array![[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, bad, 1.0]];
        let not_finite = |said, layer| assert_says(said, ErrorKind::NotFinite, &[layer, "index 6"]);
        not_finite(evidence.record_output("fc1.weight", &x), "`fc1.weight`");
        not_finite(evidence.record_input("fc2.weight", &x), "`fc2.weight`");
        not_finite(evidence.record_gradient("fc2.weight", &x), "`fc2.weight`");
        not_finite(evidence.record_snapshot_gradient("fc2.weight", &x), "`fc2.weight`");
        not_finite(evidence.record_block("tail", &any, &x), "`tail`");
        not_finite(evidence.record_block("tail", &x, &any), "`tail`");
    }
    assert_eq!(evidence, before);
    Ok(())
}

#[test]
fn kernels_past_any_array_are_refused() -> Result<()> {
    let max = usize::MAX;
    for geometry in [
        Geometry::new().padding(max),
        Geometry::new().padding(max / 2),
        Geometry::new().dilation(max),
        Geometry::new().padding(max / 2).dilation(max / 2),
        Geometry::new().paddings([(max, 1)]),
    ] {
        assert_eq!(geometry.output_len(0, 5, 3), None, "{geometry:?}");
        let conv = Parameter::conv("conv", Array3::<f32>::ones((1, 1, 3)), geometry);
        let model = Model::builder().parameter(conv).build()?;
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        let said = evidence.record_input("conv", &Array3::<f32>::ones((1, 1, 5)));
        assert_says(said, ErrorKind::Shape, &["`conv`", "kernel"]);
    }
    assert_eq!(Geometry::new().stride(0).output_len(0, 5, 3), None);
    assert_eq!(Geometry::new().output_len(0, 5, 0), None);
    assert_eq!(Geometry::new().output_len(0, max, 1), Some(max));
    Ok(())
}

#[test]
fn snapshots_and_merges_of_other_models_change_nothing() -> Result<()> {
    let model = mlp().build()?;
    let mut evidence = Evidence::new(&model, Needs::MOMENTS);
    evidence.record_snapshot(&model)?;
    let before = evidence.clone();

    let wide = Model::builder()
        .parameter(Parameter::linear("fc1.weight", Array2::<f32>::ones((4, 3))))
        .parameter(Parameter::linear("fc2.weight", Array2::ones((2, 5))))
        .build()?;
    let said = evidence.record_snapshot(&wide);
    assert_says(said, ErrorKind::Shape, &["`fc2.weight`", "[2, 5]", "[2, 4]"]);
    let small =
        Model::builder().parameter(Parameter::linear("fc1.weight", Array2::<f32>::ones((4, 3)))).build()?;
    assert_says(evidence.record_snapshot(&small), ErrorKind::Name, &["`fc2.weight`"]);
    let more = mlp().parameter(Parameter::linear("fc3", Array2::ones((1, 1)))).build()?;
    assert_says(evidence.record_snapshot(&more), ErrorKind::Name, &["`fc3`"]);

    let merge = |evidence: &mut Evidence<f32>, other: &Model<f32>, needs| {
        evidence.merge(&Evidence::new(other, needs))
    };
    assert_says(merge(&mut evidence, &model, Needs::GRAM), ErrorKind::Setting, &["statistics"]);
    assert_says(merge(&mut evidence, &wide, Needs::MOMENTS), ErrorKind::Shape, &["`fc2.weight`"]);
    assert_says(merge(&mut evidence, &more, Needs::MOMENTS), ErrorKind::Name, &["`fc3`"]);
    assert_says(merge(&mut evidence, &small, Needs::MOMENTS), ErrorKind::Name, &["`fc2.weight`"]);
    let blocks = mlp().block(Block::new("more")).build()?;
    assert_says(merge(&mut evidence, &blocks, Needs::MOMENTS), ErrorKind::Name, &["block `more`"]);
    let mut later = Evidence::new(&model, Needs::MOMENTS);
    later.record_snapshot(&model.clone().with_values("fc1.weight", ArrayD::zeros(IxDyn(&[4, 3])))?)?;
    assert_says(evidence.merge(&later), ErrorKind::Setting, &["`fc1.weight`", "snapshots"]);
    assert_eq!(evidence, before);
    Ok(())
}

#[test]
fn missing_evidence_names_layer_and_evidence() -> Result<()> {
    let model = mlp().build()?;
    let mut evidence = Evidence::new(&model, Needs::MOMENTS);
    let missing = |layer: Layer<'_, f32>| -> Vec<(Option<Error>, &'static str)> {
        vec![
            (layer.outputs().err(), "outputs"),
            (layer.positions().err(), "output"),
            (layer.inputs().err(), "inputs"),
            (layer.gram(0).err(), "input"),
            (layer.gradient().err(), "gradients"),
            (layer.snapshot().err(), "snapshots"),
            (layer.snapshot_gradient().err(), "gradients at the snapshot"),
        ]
    };
    let unseen = missing(evidence.layer(&model, "fc1.weight")?);
    let alone = missing(Layer::new(model.parameter("fc1.weight")?));
    for (error, what) in unseen.into_iter().chain(alone) {
        let error = error.map_or(Ok(()), Err);
        assert_says(error, ErrorKind::MissingEvidence, &["`fc1.weight`", what]);
    }
    evidence.record_output("fc1.weight", &Array2::<f32>::ones((2, 4)))?;
    evidence.record_input("fc1.weight", &Array2::<f32>::ones((2, 3)))?;
    let layer = evidence.layer(&model, "fc1.weight")?;
    assert_says(layer.positions(), ErrorKind::MissingEvidence, &["`fc1.weight`", "Needs::MAPS"]);
    assert_says(layer.gram(0), ErrorKind::MissingEvidence, &["`fc1.weight`", "Needs::GRAM"]);
    assert_says(layer.gram(1), ErrorKind::Setting, &["`fc1.weight`", "group 1 of 1"]);
    let inputs = layer.inputs()?;
    assert!(inputs.mean(1).is_empty() && inputs.norms(1).is_empty() && inputs.mean_squares(1).is_empty());
    assert!(inputs.gram(1).is_none());
    assert_eq!(evidence.block_influence("tail"), None);
    assert_says(evidence.layer(&model, "fc9"), ErrorKind::Name, &["`fc9`"]);

    let scores = Scores::compute(&Magnitude::l1(), &model, &evidence)?;
    assert_says(scores.layer("fc9"), ErrorKind::Name, &["`fc9`"]);
    let wider =
        Model::builder().parameter(Parameter::linear("fc1.weight", Array2::<f32>::ones((5, 3)))).build()?;
    assert_says(
        evidence.layer(&wider, "fc1.weight"),
        ErrorKind::Shape,
        &["`fc1.weight`", "[5, 3]", "[4, 3]"],
    );
    Ok(())
}

#[test]
fn patterns_that_match_nothing() -> Result<()> {
    let model = mlp().coupling(hidden()).build()?;
    let scores = Scores::compute(&Magnitude::l1(), &model, &Evidence::new(&model, Needs::MOMENTS))?;
    let half = Sparsity::new(0.5)?;
    let none = |plan, pattern| assert_says(plan, ErrorKind::Name, &["matches nothing", pattern]);
    none(Channel::new(half).exclude("fc1.weight").plan(&model, &scores), "`fc1.weight`");
    none(Channel::new(half).set("hiden", half).plan(&model, &scores), "`hiden`");
    none(Unstructured::new(half).exclude("fc9").plan(&model, &scores), "`fc9`");
    none(Unstructured::new(half).set("fc1.bias", half).plan(&model, &scores), "`fc1.bias`");
    #[cfg(feature = "regex")]
    {
        none(Unstructured::new(half).set("re:fc", half).plan(&model, &scores), "`re:fc`");
        assert_says(Pattern::new("re:(").map(|_| ()), ErrorKind::Setting, &["`re:(`"]);
    }
    #[cfg(not(feature = "regex"))]
    assert_says(Pattern::new("re:fc").map(|_| ()), ErrorKind::Unsupported, &["`re:fc`", "regex"]);
    Ok(())
}

#[test]
fn selections_of_another_model_are_refused() -> Result<()> {
    let model = mlp().coupling(hidden()).build()?;
    let evidence = Evidence::new(&model, Needs::MOMENTS);
    let scores = Scores::compute(&Magnitude::l1(), &model, &evidence)?;
    let plan = Channel::new(Sparsity::new(0.25)?).plan(&model, &scores)?;
    let other =
        Model::builder().parameter(Parameter::linear("fc1.weight", Array2::<f32>::ones((2, 3)))).build()?;
    assert_says(plan.apply(&other), ErrorKind::Shape, &["`fc1.weight`"]);
    let mut seen = Evidence::new(&other, Needs::ALL);
    seen.record_output("fc1.weight", &Array2::<f32>::ones((2, 2)))?;
    seen.record_gradient("fc1.weight", &Array2::<f32>::ones((2, 3)))?;
    assert_says(plan.apply_to_evidence(&seen), ErrorKind::Shape, &["`fc1.weight`", "another model"]);
    for selection in plan.selections() {
        assert_says(other.select(selection), ErrorKind::Shape, &["`fc1.weight`", "another model"]);
        assert_says(seen.select(selection), ErrorKind::Shape, &["`fc1.weight`", "another model"]);
    }
    assert_eq!(other.select(&Selection::default())?, other);
    Ok(())
}
