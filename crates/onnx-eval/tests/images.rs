//! The operators of a graph on images, beyond what the node tests hold: against their formulas, on
//! what is empty or not a number, and with what does not fit together.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use engine::{DType, Engine, NamedValues, Value, ValueSpec};
use half::f16;
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::{Attribute, Graph, Model, Node};

/// A node, which takes an empty name for an input that is left out.
fn node<const N: usize>(op: &str, inputs: &[&str], attributes: [(&str, Attribute); N]) -> Node {
    Node {
        name: "n".into(),
        op: op.into(),
        inputs: inputs.iter().map(ToString::to_string).collect(),
        outputs: vec!["y".into()],
        attributes: attributes.map(|(name, attribute)| (name.to_string(), attribute)).into_iter().collect(),
        ..Node::default()
    }
}

fn ints(ints: &[i64]) -> Attribute {
    Attribute::Ints(ints.to_vec())
}

fn string(string: &str) -> Attribute {
    Attribute::String(string.into())
}

/// What the node gives, at an opset and within limits.
fn run_within(
    node: &Node,
    inputs: &[Value],
    opset: i64,
    precision: Precision,
    max_bytes: usize,
) -> Result<Value, String> {
    let spec = |name: &str, dtype| ValueSpec { name: name.into(), dtype, shape: None, optional: false };
    let names: Vec<&String> = node.inputs.iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(names.len(), inputs.len());
    let given = names.iter().zip(inputs);
    let model = Model {
        ir_version: 8,
        opsets: [(String::new(), opset)].into(),
        graph: Graph {
            inputs: given.clone().map(|(name, value)| spec(name, value.dtype())).collect(),
            outputs: vec![spec("y", inputs[0].dtype())],
            nodes: vec![node.clone()],
            ..Graph::default()
        },
        ..Model::default()
    };
    let limits = Limits { max_bytes, ..Limits::default() };
    let oracle = Oracle::with(&model, precision, limits).map_err(|error| error.to_string())?;
    let given: NamedValues = given.map(|(name, value)| (name.to_string(), value.clone())).collect();
    let outputs = oracle.run(&given).map_err(|error| error.to_string())?;
    Ok(outputs.get("y").unwrap().clone())
}

fn run(node: &Node, inputs: &[Value]) -> Result<Value, String> {
    run_within(node, inputs, 22, Precision::F32, 1 << 30)
}

/// Small whole numbers, whose products and sums f32 holds exactly.
fn whole(shape: &[usize], seed: usize) -> Value {
    let number = |at: usize| (((at + seed) * 7919 % 23) as f32) - 11.0;
    Value::new(shape, (0..shape.iter().product()).map(number).collect::<Vec<_>>()).unwrap()
}

fn f32s(shape: &[usize], elements: &[f32]) -> Value {
    Value::new(shape, elements.to_vec()).unwrap()
}

fn i64s(elements: &[i64]) -> Value {
    Value::new([elements.len()], elements.to_vec()).unwrap()
}

#[test]
fn dilation_counts_in_same_padding() {
    let x = f32s(&[1, 1, 5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
    let w = f32s(&[1, 1, 2], &[1.0, 10.0]);
    // Three places are missing: y[o] = x[o − 2] + 10 x[o + 1], or x[o − 1] + 10 x[o + 2].
    for (auto_pad, expected) in
        [("SAME_LOWER", [20.0, 30.0, 41.0, 52.0, 3.0]), ("SAME_UPPER", [30.0, 41.0, 52.0, 3.0, 4.0])]
    {
        let conv = node("Conv", &["x", "w"], [("auto_pad", string(auto_pad)), ("dilations", ints(&[3]))]);
        assert_eq!(run(&conv, &[x.clone(), w.clone()]), Ok(f32s(&[1, 1, 5], &expected)), "{auto_pad}");
    }
}

/// One image with two spatial axes, by the formula.
#[expect(clippy::too_many_arguments, reason = "what a convolution takes")]
fn conv_2d(
    x: &Value,
    w: &Value,
    b: &Value,
    group: usize,
    strides: [usize; 2],
    dilations: [usize; 2],
    before: [usize; 2],
    results: [usize; 2],
) -> Vec<f64> {
    let (&[_, channels, height, width], &[filters, depth, rows, columns]) = (x.shape(), w.shape()) else {
        panic!()
    };
    let (x, w, b) = (x.to_f64(), w.to_f64(), b.to_f64());
    let mut y = Vec::new();
    for filter in 0..filters {
        let first = filter / (filters / group) * depth;
        assert!(first + depth <= channels);
        for (o, p) in (0..results[0]).flat_map(|o| (0..results[1]).map(move |p| (o, p))) {
            let mut sum = b[filter];
            for c in 0..depth {
                for (k, l) in (0..rows).flat_map(|k| (0..columns).map(move |l| (k, l))) {
                    let row = (o * strides[0] + k * dilations[0]).wrapping_sub(before[0]);
                    let column = (p * strides[1] + l * dilations[1]).wrapping_sub(before[1]);
                    if row < height && column < width {
                        let weight = w[((filter * depth + c) * rows + k) * columns + l];
                        sum += weight * x[((first + c) * height + row) * width + column];
                    }
                }
            }
            y.push(sum);
        }
    }
    y
}

#[test]
fn a_convolution_is_its_formula() {
    // Groups with a bias, all numbers of the two axes apart; of more results than one block has.
    let (x, w, b) = (whole(&[1, 6, 70, 61], 0), whole(&[9, 2, 3, 5], 5), whole(&[9], 3));
    let conv = node(
        "Conv",
        &["x", "w", "b"],
        [
            ("group", Attribute::Int(3)),
            ("strides", ints(&[1, 2])),
            ("dilations", ints(&[3, 2])),
            ("pads", ints(&[4, 3, 1, 0])),
            ("kernel_shape", ints(&[3, 5])),
        ],
    );
    let y = run(&conv, &[x.clone(), w.clone(), b.clone()]).unwrap();
    assert_eq!(y.shape(), [1, 9, 69, 28]);
    assert_eq!(y.to_f64(), conv_2d(&x, &w, &b, 3, [1, 2], [3, 2], [4, 3], [69, 28]));
}

#[test]
fn an_image_becomes_patches() {
    let (x, w, b) = (whole(&[1, 3, 224, 224], 0), whole(&[192, 3, 16, 16], 1), whole(&[192], 2));
    let conv = node("Conv", &["x", "w", "b"], [("strides", ints(&[16, 16]))]);
    let y = run(&conv, &[x.clone(), w.clone(), b.clone()]).unwrap();
    assert_eq!(y.shape(), [1, 192, 14, 14]);
    assert_eq!(y.to_f64(), conv_2d(&x, &w, &b, 1, [16, 16], [1, 1], [0, 0], [14, 14]));
}

#[test]
fn sums_are_made_in_f64_and_rounded_once() {
    let conv = node("Conv", &["x", "w"], []);
    let doubles = |elements: &[f64]| Value::new([1, 1, elements.len()], elements.to_vec()).unwrap();
    let y = run(&conv, &[doubles(&[0.1, 0.2]), doubles(&[1.0, 1.0])]).unwrap();
    assert_eq!((y.dtype(), y.to_f64()), (DType::F64, vec![0.1 + 0.2]));
    // 2048 + 1 + 1 is an f16, 2048 + 1 is none.
    let halves = |elements: &[f32]| {
        let halves: Vec<f16> = elements.iter().map(|&x| f16::from_f32(x)).collect();
        Value::new([1, 1, elements.len()], halves).unwrap()
    };
    let y = run(&conv, &[halves(&[2048.0, 1.0, 1.0]), halves(&[1.0, 1.0, 1.0])]).unwrap();
    assert_eq!((y.dtype(), y.to_f64()), (DType::F16, vec![2050.0]));
    let (x, w) = (f32s(&[1, 1, 1], &[0.1]), f32s(&[1, 1, 1], &[0.1]));
    let y = run_within(&conv, &[x, w], 22, Precision::F64, 1 << 20).unwrap();
    assert_eq!(y.to_f64(), [f64::from(0.1f32) * f64::from(0.1f32)]);
}

#[test]
fn what_is_empty_gives_what_is_empty() {
    let conv = node("Conv", &["x", "w", "b"], [("pads", ints(&[1, 2]))]);
    let b = f32s(&[2], &[3.0, 4.0]);
    let empty = |shape: &[usize]| f32s(shape, &[]);
    let no_image = run(&conv, &[empty(&[0, 1, 5]), whole(&[2, 1, 3], 0), b.clone()]).unwrap();
    assert_eq!(no_image.shape(), [0, 2, 6]);
    // Nothing but padding, or no channel at all: the sum of nothing, and the bias.
    for (x, w) in [(&[1, 1, 0], whole(&[2, 1, 3], 0)), (&[1, 0, 0], empty(&[2, 0, 3]))] {
        assert_eq!(run(&conv, &[empty(x), w, b.clone()]), Ok(f32s(&[1, 2, 1], &[3.0, 4.0])));
    }
    let no_filter = run(&conv, &[whole(&[1, 1, 5], 0), empty(&[0, 1, 3]), empty(&[0])]).unwrap();
    assert_eq!(no_filter.shape(), [1, 0, 6]);
    let normalization = node("InstanceNormalization", &["x", "s", "b"], []);
    let y = run(&normalization, &[empty(&[1, 2, 0]), b.clone(), b]).unwrap();
    assert_eq!(y.shape(), [1, 2, 0]);
    let blocks = node("DepthToSpace", &["x"], [("blocksize", Attribute::Int(2))]);
    assert_eq!(run(&blocks, &[empty(&[0, 8, 3, 2])]).unwrap().shape(), [0, 2, 6, 4]);
    for mode in ["nearest", "linear"] {
        let resize = node("Resize", &["x", "", "", "s"], [("mode", string(mode))]);
        assert_eq!(run(&resize, &[empty(&[0, 2]), i64s(&[0, 5])]).unwrap().shape(), [0, 5]);
        assert_eq!(run(&resize, &[whole(&[3, 2], 0), i64s(&[0, 5])]).unwrap().shape(), [0, 5]);
        let error = run(&resize, &[empty(&[0, 2]), i64s(&[3, 2])]).unwrap_err();
        assert!(error.contains("of a size other than 0 at axis 0, to make 3 of it"), "{error}");
    }
}

#[test]
fn what_is_no_number_goes_where_it_is_met() {
    let x = f32s(&[1, 1, 5], &[1.0, f32::NAN, 1.0, 1.0, 1.0]);
    let nans = |y: Value| y.to_f64().iter().map(|x| x.is_nan()).collect::<Vec<_>>();
    let conv = node("Conv", &["x", "w"], []);
    let y = run(&conv, &[x.clone(), whole(&[1, 1, 2], 0)]).unwrap();
    assert_eq!(nans(y), [true, true, false, false]);
    // A weight of 0 is none: what stays in its place is taken as it is.
    let resize = node("Resize", &["x", "", "s"], [("mode", string("linear"))]);
    let y = run(&resize, &[x.clone(), f32s(&[3], &[1.0, 1.0, 1.0])]).unwrap();
    assert_eq!(nans(y), [false, true, false, false, false]);
    let normalization = node("InstanceNormalization", &["x", "s", "b"], []);
    let x = f32s(&[2, 1, 2], &[f32::NAN, 1.0, 1.0, 1.0]);
    let y = run(&normalization, &[x, f32s(&[1], &[2.0]), f32s(&[1], &[5.0])]).unwrap();
    assert_eq!((y.to_f64()[2..].to_vec(), nans(y)), (vec![5.0, 5.0], vec![true, true, false, false]));
}

#[test]
fn a_convolution_that_does_not_fit_is_refused() {
    let error = |x: &[usize], w: &[usize], b: Option<usize>, attributes: &[(&str, Attribute)]| {
        let mut conv = node("Conv", if b.is_some() { &["x", "w", "b"] } else { &["x", "w"] }, []);
        conv.attributes.extend(attributes.iter().map(|(name, value)| (name.to_string(), value.clone())));
        let mut inputs = vec![whole(x, 0), whole(w, 0)];
        inputs.extend(b.map(|size| whole(&[size], 0)));
        run(&conv, &inputs).unwrap_err()
    };
    let (x, w) = (&[1, 4, 5, 5][..], &[2, 4, 3, 3][..]);
    let group = |group| ("group", Attribute::Int(group));
    let auto_pad = |mode| ("auto_pad", string(mode));
    for (found, wanted) in [
        (error(&[4, 5], w, None, &[]), "input 0 has shape [4, 5], which must be [images, channels, size, …]"),
        (
            error(x, &[2, 4, 3], None, &[]),
            "the weight, has shape [2, 4, 3], which must be [filters, channels",
        ),
        (error(x, &[2, 3, 3, 3], None, &[]), "the rank of input 0, which is [1, 4, 5, 5]"),
        (error(x, &[3, 2, 3, 3], None, &[group(2)]), "with filters for each group of 2"),
        (error(x, w, None, &[group(0)]), "attribute 'group' is 0, which must be at least 1"),
        (error(x, w, None, &[group(i64::MAX)]), "each group of 9223372036854775807"),
        (error(x, w, Some(3), &[]), "the bias, has shape [3], which must be [2]"),
        (error(x, &[2, 4, 6, 3], None, &[]), "kernel: 6, dilation: 1, stride: 1"),
        (error(x, w, None, &[("dilations", ints(&[1, 3]))]), "no longer than the axis with its padding"),
        (error(x, w, None, &[("strides", ints(&[0, 1]))]), "stride and dilation at least 1"),
        (
            error(x, w, None, &[("strides", ints(&[1]))]),
            "'strides' is [1] for a rank of 4, which must be a number",
        ),
        (error(x, w, None, &[("dilations", ints(&[1, -1]))]), "'dilations' is [1, -1]"),
        (error(x, w, None, &[("pads", ints(&[1, 1]))]), "'pads' is [1, 1] for 2 axes after the first two"),
        (
            error(x, w, None, &[("pads", ints(&[1, 1, 1, -1]))]),
            "which must be two numbers for each axis, none neg",
        ),
        (error(x, w, None, &[("pads", ints(&[i64::MAX; 4]))]), "no longer than the axis with its padding"),
        (error(x, w, None, &[("pads", ints(&[1 << 40; 4]))]), "would take more than the limit"),
        (error(x, w, None, &[("kernel_shape", ints(&[3, 2]))]), "[3, 2] after the first two axes"),
        (error(x, w, None, &[auto_pad("SAME")]), "'auto_pad' is 'SAME', which must be NOTSET, SAME_UPPER"),
        (
            error(x, w, None, &[auto_pad("VALID"), ("pads", ints(&[0, 0, 0, 1]))]),
            "'auto_pad' is 'VALID' beside pads [0, 0, 0, 1], which must be NOTSET where there are pads",
        ),
    ] {
        assert!(found.contains(wanted), "{found}, not: {wanted}");
    }
    // Pads of 0 beside it say nothing.
    let conv = node("Conv", &["x", "w"], [auto_pad("SAME_UPPER"), ("pads", ints(&[0; 4]))]);
    assert_eq!(run(&conv, &[whole(x, 0), whole(w, 0)]).unwrap().shape(), [1, 2, 5, 5]);
    let mixed = run(&node("Conv", &["x", "w"], []), &[whole(x, 0), Value::new(w, vec![1.0f64; 72]).unwrap()]);
    assert!(mixed.unwrap_err().contains("inputs of f32 and f64 must be of one dtype"));
    let ints = Value::new([1, 1, 1], vec![1i32]).unwrap();
    assert!(run(&node("Conv", &["x", "w"], []), &[ints.clone(), ints]).unwrap_err().contains("a float"));
}

#[test]
fn blocks_and_channels_that_do_not_fit_are_refused() {
    let error = |x: &[usize], attributes: &[(&str, Attribute)]| {
        let mut blocks = node("DepthToSpace", &["x"], []);
        blocks.attributes.extend(attributes.iter().map(|(name, value)| (name.to_string(), value.clone())));
        run(&blocks, &[whole(x, 0)]).unwrap_err()
    };
    let block = |size| ("blocksize", Attribute::Int(size));
    for (found, wanted) in [
        (error(&[1, 8, 2, 2], &[]), "attribute 'blocksize' is missing"),
        (error(&[1, 8, 2, 2], &[block(0)]), "'blocksize' is 0, which must be at least 1"),
        (error(&[1, 8, 2, 2], &[block(3)]), "of channels for blocks of 3 by 3"),
        (error(&[1, 8, 2, 2], &[block(i64::MAX)]), "of channels for blocks"),
        (error(&[8, 2, 2], &[block(2)]), "must be [images, channels, height, width]"),
        (
            error(&[1, 8, 2, 2], &[block(2), ("mode", string("RCD"))]),
            "'mode' is 'RCD', which must be DCR or CRD",
        ),
    ] {
        assert!(found.contains(wanted), "{found}, not: {wanted}");
    }
    let normalization = node("InstanceNormalization", &["x", "s", "b"], []);
    let (x, two, three) = (whole(&[1, 2, 3], 0), whole(&[2], 0), whole(&[3], 0));
    for (inputs, wanted) in [
        ([whole(&[2, 2], 0), two.clone(), two.clone()], "input 0 has shape [2, 2], which must be [images"),
        ([x.clone(), three.clone(), two.clone()], "the scale, has shape [3], which must be [2]"),
        ([x, two, three], "the bias, has shape [3], which must be [2]"),
    ] {
        let found = run(&normalization, &inputs).unwrap_err();
        assert!(found.contains(wanted), "{found}, not: {wanted}");
    }
}

fn resize(inputs: &[&str], attributes: &[(&str, &str)]) -> Node {
    let mut resize = node("Resize", inputs, []);
    resize.attributes.extend(attributes.iter().map(|(name, word)| (name.to_string(), string(word))));
    resize
}

const COORDINATES: &str = "coordinate_transformation_mode";

#[test]
fn any_number_of_axes_is_resized() {
    let sizes = |mode| resize(&["x", "", "", "s"], &[("mode", mode), (COORDINATES, "align_corners")]);
    let y = run(&sizes("linear"), &[f32s(&[2], &[0.0, 6.0]), i64s(&[4])]).unwrap();
    assert_eq!(y, f32s(&[4], &[0.0, 2.0, 4.0, 6.0]));
    // What is linear stays so along all five.
    let linear = |shape: [usize; 5]| {
        let last = shape.map(|size| (size - 1) as f64);
        let at = |mut place: usize| {
            let mut sum = 0.0;
            for axis in (0..5).rev() {
                sum += (place % shape[axis]) as f64 / last[axis] * (axis + 1) as f64;
                place /= shape[axis];
            }
            sum
        };
        Value::new(shape, (0..shape.iter().product()).map(at).collect::<Vec<f64>>()).unwrap()
    };
    let y = run(&sizes("linear"), &[linear([2, 3, 2, 2, 3]), i64s(&[3, 2, 4, 2, 5])]).unwrap();
    let expected = linear([3, 2, 4, 2, 5]);
    assert_eq!(y.shape(), expected.shape());
    assert!(y.to_f64().iter().zip(expected.to_f64()).all(|(a, b)| (a - b).abs() < 1e-12), "{y:?}");
}

#[test]
fn integers_and_bools_are_resized() {
    let x = Value::new([3], vec![i64::MAX, -5, 1 << 62]).unwrap();
    let nearest = resize(&["x", "", "s"], &[]);
    let y = run(&nearest, &[x, f32s(&[1], &[2.0])]).unwrap();
    assert_eq!(y, Value::new([6], vec![i64::MAX, i64::MAX, -5, -5, 1 << 62, 1 << 62]).unwrap());
    let bools = Value::new([2], vec![true, false]).unwrap();
    let y = run(&nearest, &[bools.clone(), f32s(&[1], &[1.5])]).unwrap();
    assert_eq!(y, Value::new([3], vec![true, true, false]).unwrap());
    // Rounded to the nearest, and cut to what a byte holds: so ONNX's reference has it.
    let cubic = resize(&["x", "", "s"], &[("mode", "cubic")]);
    let bytes = Value::new([4], vec![0u8, 10, 21, 255]).unwrap();
    let y = run(&cubic, &[bytes, f32s(&[1], &[2.0])]).unwrap();
    assert_eq!(y, Value::new([8], vec![0u8, 2, 7, 5, 0, 75, 202, 255]).unwrap());
    let error = run(&cubic, &[bools, f32s(&[1], &[2.0])]).unwrap_err();
    assert!(error.contains("input 0 is bool, which must be a number where 'mode' is not nearest"), "{error}");
}

#[test]
fn a_scale_is_the_ratio_that_its_f32_stands_for() {
    let x = Value::new([12], (0..12).map(|x| x as f32).collect::<Vec<_>>()).unwrap();
    let floor = resize(&["x", "", "s"], &[(COORDINATES, "asymmetric"), ("nearest_mode", "floor")]);
    for precision in [Precision::F32, Precision::F64] {
        let y = run_within(&floor, &[x.clone(), f32s(&[1], &[1.0 / 3.0])], 13, precision, 1 << 20).unwrap();
        assert_eq!(y.to_f64(), [0.0, 3.0, 6.0, 9.0]);
    }
    let y = run(&floor, &[f32s(&[3], &[0.0, 1.0, 2.0]), f32s(&[1], &[7.0 / 3.0])]).unwrap();
    assert_eq!(y.to_f64(), [0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0]);
    // 3.6 is no length: the fraction is cut off, and the scale used as it is.
    let y = run(&floor, &[x, f32s(&[1], &[0.3])]).unwrap();
    assert_eq!(y.to_f64(), [0.0, 3.0, 6.0]);
}

#[test]
fn what_is_asked_of_a_resize_must_fit() {
    let x = whole(&[2, 3], 0);
    let scales = |scales: &[f32]| f32s(&[scales.len()], scales);
    let by_scales = |attributes: &[(&str, &str)]| resize(&["x", "", "s"], attributes);
    let by_sizes = |attributes: &[(&str, &str)]| resize(&["x", "", "", "s"], attributes);
    let at = |opset: i64, node: Node, inputs: &[Value]| {
        run_within(&node, inputs, opset, Precision::F32, 1 << 20).unwrap_err()
    };
    let with = |mut node: Node, name: &str, attribute: Attribute| {
        node.attributes.insert(name.into(), attribute);
        node
    };
    let one = || scales(&[1.0, 1.0]);
    let crop = || resize(&["x", "r", "s"], &[(COORDINATES, "tf_crop_and_resize")]);
    for (found, wanted) in [
        (
            at(19, resize(&["x"], &[]), std::slice::from_ref(&x)),
            "scales (input 2) and sizes (input 3) is neither, which",
        ),
        (
            at(19, resize(&["x", "", "s", "t"], &[]), &[x.clone(), one(), i64s(&[2, 3])]),
            "is both, which must be one of them",
        ),
        (at(19, by_scales(&[]), &[x.clone(), scales(&[1.0])]), "the scales has shape [1], which must be [2]"),
        (
            at(19, by_scales(&[]), &[x.clone(), scales(&[1.0, 0.0])]),
            "a scale is 0, which must be greater than 0",
        ),
        (at(19, by_scales(&[]), &[x.clone(), scales(&[1.0, -2.0])]), "a scale is -2"),
        (
            at(19, by_scales(&[]), &[x.clone(), scales(&[1.0, f32::NAN])]),
            "the scales is NaN, which must be fin",
        ),
        (at(19, by_scales(&[]), &[x.clone(), scales(&[1.0, f32::INFINITY])]), "the scales is inf"),
        (at(19, by_scales(&[]), &[x.clone(), scales(&[1e30, 1e30])]), "would take more than the limit"),
        (at(19, by_sizes(&[]), &[x.clone(), i64s(&[i64::MAX, 3])]), "would take more than the limit"),
        (at(19, by_sizes(&[]), &[x.clone(), i64s(&[200, 400])]), "would take more than the limit"),
        (at(19, by_sizes(&[]), &[x.clone(), i64s(&[2, -3])]), "the sizes is [2, -3] for 2 axes"),
        (
            at(19, by_sizes(&[]), &[x.clone(), i64s(&[2])]),
            "the sizes is [2] for 2 axes, which must be a number",
        ),
        (
            at(19, crop(), &[x.clone(), scales(&[0.0, 1.0]), one()]),
            "the roi has shape [2], which must be [4]",
        ),
        (
            at(19, resize(&["x", "", "s"], &[(COORDINATES, "tf_crop_and_resize")]), &[x.clone(), one()]),
            "input 1 is missing",
        ),
        (at(19, crop(), &[x.clone(), scales(&[0.0, 0.0, 1.0, f32::NAN]), one()]), "the roi is NaN"),
        (
            at(19, by_scales(&[("mode", "area")]), &[x.clone(), one()]),
            "'mode' is 'area', which must be nearest",
        ),
        (at(19, by_scales(&[("nearest_mode", "up")]), &[x.clone(), one()]), "'nearest_mode' is 'up'"),
        (at(19, by_scales(&[(COORDINATES, "corners")]), &[x.clone(), one()]), "is 'corners' at opset 19"),
        (
            at(18, by_scales(&[(COORDINATES, "half_pixel_symmetric")]), &[x.clone(), one()]),
            "since opset 19 half_pixel_symmetric",
        ),
        (
            at(13, by_scales(&[(COORDINATES, "tf_half_pixel_for_nn")]), &[x.clone(), one()]),
            "before opset 13 tf_half_pixel_for_nn",
        ),
        (
            at(18, by_sizes(&[("keep_aspect_ratio_policy", "keep")]), &[x.clone(), i64s(&[2, 3])]),
            "'keep_aspect_ratio_policy' is 'keep', which must be stretch, not_larger or not_smaller",
        ),
        (
            at(18, with(by_scales(&[]), "antialias", Attribute::Int(1)), &[x.clone(), one()]),
            "'mode' is 'nearest', which must be linear or cubic where 'antialias' is 1",
        ),
        (
            at(17, with(by_scales(&[]), "antialias", Attribute::Int(1)), &[x.clone(), one()]),
            "has an attribute 'antialias', which is not defined there",
        ),
        (
            at(18, with(by_scales(&[]), "axes", ints(&[1, -1])), &[x.clone(), one()]),
            "axis -1 is outside rank 2, or given twice",
        ),
        // The weights of an axis are counted, too.
        (
            at(19, by_sizes(&[("mode", "linear")]), &[x.clone(), i64s(&[1, 40_000])]),
            "shape [40000, 3] would take more than the limit",
        ),
        (at(10, by_scales(&[]), &[x.clone(), one()]), "only of 11 to 12, 13 to 17, 18 to 28"),
    ] {
        assert!(found.contains(wanted), "{found}, not: {wanted}");
    }
}
