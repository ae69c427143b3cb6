"""Anybody's model is scored: what it takes and returns is found out on training images, and wrong results refused."""

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from helpers import write_folder
from onnx import TensorProto, helper, numpy_helper

import fmnist
from fmnist.data.dataset import CLASS_NAMES
from fmnist.errors import FmnistError, one_line
from fmnist.inference.input_format import LAYOUTS, SCALINGS, InputFormat

LEVELS = (10, 30, 70, 130, 220)
"""Brightness of the images of each class: whether a model recognizes them depends on the scaling."""
NAMES = ("black", "dark", "gray", "light", "white")
TYPES = {
    "uint8": TensorProto.UINT8, "int64": TensorProto.INT64, "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE,
}  # fmt: skip


def draw_images(labels, levels, seed):
    noise = np.random.default_rng(seed).integers(-5, 6, (len(labels), 28, 28))
    return (np.array(levels)[labels][:, None, None] + noise).astype(np.uint8)


def make_dataset(levels=LEVELS, names=NAMES):
    train, test = (np.arange(number) % len(levels) for number in (600, 100))
    return fmnist.Dataset(draw_images(train, levels, 0), train, draw_images(test, levels, 1), test, names)


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


def scaled_levels(scaling="0..255"):
    subtracted, divisor = SCALINGS[scaling]
    return (np.array(LEVELS) - subtracted) / divisor


def layer(scaling="0..255"):
    """Return weights and bias of the layer whose highest output is that of the nearest level."""
    levels = scaled_levels(scaling)
    sharpness = 20 / np.ptp(levels) ** 2
    return np.tile(2 * levels / 784, (784, 1)) * sharpness, -(levels**2) * sharpness


def logits_of(images):
    weights, bias = layer()
    return images.reshape(len(images), -1) @ weights + bias


def probabilities_of(images):
    values = np.exp(logits_of(images))
    return values / values.sum(axis=1, keepdims=True)


def labels_of(images):
    return logits_of(images).argmax(axis=1)


def write_graph(
    path, layout="28x28", dtype="float32", scaling="0..1", batch="n", softmax=False, order=None, shape=None
):
    """Write a graph of one layer, as another program would."""
    weights, bias = (array.astype(np.float32) for array in layer(scaling))
    if shape and all(isinstance(size, int) for size in shape[1:]):
        weights = np.zeros((math.prod(shape[1:]), 5), np.float32)
    order = list(order or range(len(LEVELS)))
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["softmax"], axis=1),
    ][: 4 if softmax else 3]
    output = "softmax" if softmax else "logits"
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", TYPES[dtype], shape or [batch, *LAYOUTS[layout]])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, len(LEVELS)])],
        [numpy_helper.from_array(weights[:, order], "weights"), numpy_helper.from_array(bias[order], "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("predict", "output"),
    [
        (probabilities_of, "probabilities"),
        (lambda images: probabilities_of(images).astype(np.float16), "probabilities"),
        (lambda images: probabilities_of(images).tolist(), "probabilities"),
        (logits_of, "logits"),
        (lambda images: np.log(probabilities_of(images)), "logits"),
        (labels_of, "labels"),
        (lambda images: labels_of(images).reshape(-1, 1), "labels"),
        (lambda images: labels_of(images).astype(float), "labels"),
    ],
    ids=["probabilities", "float16", "lists", "logits", "log-probabilities", "labels", "column", "float labels"],
)
def test_kinds_of_results(predict, output, dataset):
    result = fmnist.score(predict, dataset)
    assert (result["output"], result["accuracy"], result["num_images"]) == (output, 1.0, 100)
    assert result["input"]["scaling"] == "0..255"
    has_calibration = output != "labels"
    for name in ("ece", "ece_calibrated", "calibration", "temperature", "keras_precision", "val_accuracy"):
        assert (result[name] is not None) == has_calibration, name
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_report_is_that_of_evaluate(dataset):
    """A model that mixes up the two darkest classes in half of the images."""

    def predict(images):
        values = probabilities_of(images)
        changed = images[:, 0, 0] % 2 == 0
        values[changed] = values[changed][:, [1, 0, 2, 3, 4]]
        return values

    result = fmnist.score(predict, dataset)
    assert result["accuracy"] == np.trace(result["confusion"]) / 100 < 1
    low, high = result["accuracy_interval_95"]
    assert low < result["accuracy"] < high
    assert [row["label"] for row in result["per_class"]] == list(NAMES)
    mistake = result["mistakes"][0]
    assert {mistake["true"], mistake["predicted"]} == {"black", "dark"}
    assert mistake["probability"] == max(mistake["probabilities"])
    assert len(result["mistakes"]) == 10
    assert result["images_per_second"] > 0
    assert result["temperature_fitted_on"] == (
        "50 validation images of the split of seed 0; biased if the model was trained on them"
    )


def test_test_images_decide_about_nothing(dataset):
    """Neither kind, nor format, nor order change if the test part is of other images and labels."""
    noise = np.random.default_rng(0).integers(0, 256, dataset.test_images.shape, dtype=np.uint8)
    other = replace(dataset, test_images=noise, test_labels=dataset.test_labels[::-1].copy())
    first, second = (fmnist.score(logits_of, each) for each in (dataset, other))
    assert first["accuracy"] > second["accuracy"]
    for name in ("output", "input", "class_order", "temperature"):
        assert first[name] == second[name]


def test_random_forest(dataset):
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(5, random_state=0)
    forest.fit(dataset.train_images.reshape(-1, 784) / 255, dataset.train_labels)
    for method, output in ((forest.predict_proba, "probabilities"), (forest.predict, "labels")):
        result = fmnist.score(lambda images, method=method: method(images.reshape(-1, 784) / 255), dataset)
        assert (result["output"], result["accuracy"]) == (output, 1.0)
        with pytest.raises(FmnistError, match=r"fails with uint8 .* pass scaling='0\.\.1' and layout='784'"):
            fmnist.score(method, dataset)
        assert fmnist.score(method, dataset, scaling="0..1", layout="784")["accuracy"] == 1.0
    with pytest.raises(FmnistError, match=r"predict is a value of type RandomForestClassifier; .* predict_proba"):
        fmnist.score(forest, dataset)


def test_keras_model_from_minus_one_to_one(dataset):
    import keras

    network = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(5)])
    network.layers[-1].set_weights(layer("-1..1"))
    result = fmnist.score(lambda images: network(images[..., None] / 127.5 - 1), dataset)
    assert (result["output"], result["accuracy"]) == ("logits", 1.0)
    with pytest.raises(FmnistError, match=r"pass scaling='-1\.\.1' and layout='28x28"):
        fmnist.score(network, dataset)


def test_function_that_is_better_in_another_layout_is_refused(dataset):
    """As a Keras model that takes (n, 28, 28) once: better than chance from 0 to 255, but good from 0 to 1 only."""

    def predict(images):
        if images.dtype == np.uint8:
            return np.where(images.mean(axis=(1, 2)) > 100, 4, labels_of(images))
        if images.ndim == 3:
            raise ValueError("expected 4 axes")
        return labels_of(255 * images)

    with pytest.raises(FmnistError, match=r"right about 80% .* 100% with float32 .* layout='28x28x1'"):
        fmnist.score(predict, dataset)


@pytest.mark.parametrize(
    ("layout", "dtype", "scaling"),
    [
        ("28x28", "float32", "0..255"),
        ("28x28x1", "float32", "0..1"),
        ("1x28x28", "float32", "fashion-mnist"),
        ("1x28x28", "float32", "mnist"),
        ("784", "float64", "-1..1"),
        ("784", "float16", "0..1"),
        ("28x28", "uint8", "0..255"),
        ("28x28x1", "int64", "0..255"),
        ("28x28", "uint8", "255..0"),
        ("1x28x28", "float32", "1..0"),
        ("28x28", "float32", "1..-1"),
    ],
)
def test_format_of_a_graph_is_found(layout, dtype, scaling, dataset, tmp_path):
    path = write_graph(tmp_path / "model.onnx", layout, dtype, scaling)
    result = fmnist.score(path, dataset)
    found = result["input"]
    assert (found["layout"], found["dtype"], found["scaling"]) == (layout, dtype, scaling)
    assert (result["output"], result["accuracy"]) == ("logits", 1.0)
    assert result["bytes"] == path.stat().st_size


@pytest.mark.parametrize("batch", [1, 64, 1_000])
def test_graph_of_a_fixed_number_of_images(batch, dataset, tmp_path):
    path = write_graph(tmp_path / "model.onnx", batch=batch, softmax=True)
    result = fmnist.score(path, dataset)
    assert (result["output"], result["accuracy"]) == ("probabilities", 1.0)


def test_graph_without_declared_sizes(dataset, tmp_path):
    path = write_graph(tmp_path / "model.onnx", shape=["n", "height", "width", "channels"])
    assert fmnist.score(path, dataset)["input"]["layout"] == "28x28x1"
    assert fmnist.score(path, dataset, layout="1x28x28")["input"]["layout"] == "1x28x28"


def test_options_overrule_what_fits(dataset, tmp_path):
    path = write_graph(tmp_path / "model.onnx", scaling="0..1")
    result = fmnist.score(path, dataset, scaling="0..255", layout="28x28")
    assert (result["input"]["scaling"], result["accuracy"]) == ("0..255", 0.2)


def test_own_graph_is_scored_like_its_run(small):
    result = fmnist.score(Path(fmnist.__file__).parent / "pretrained" / "model-int8.onnx", small)
    predicted = fmnist.Classifier.load().predict(small.test_images).argmax(axis=1)
    expected = (predicted == small.test_labels).mean()
    assert (result["accuracy"], result["output"]) == (expected, "probabilities")


def test_nearly_equal_formats_are_named(dataset, tmp_path):
    path = write_graph(tmp_path / "model.onnx", scaling="0..1")
    model = onnx.load(path)
    # Only whether a pixel is the brightest of its image counts, which no scaling changes.
    images = np.full((600, 28, 28), 50, np.uint8)
    images.reshape(600, -1)[np.arange(600), np.arange(600) % 5] = 250
    weights = np.zeros((784, 5), np.float32)
    weights[range(5), range(5)] = 1
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "weights"))
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full(5, -100, np.float32), "bias"))
    path.write_bytes(model.SerializeToString())
    labels = np.arange(600) % 5
    result = fmnist.score(path, fmnist.Dataset(images, labels, images, labels, NAMES))
    assert {other["scaling"] for other in result["input"]["alternatives"]} >= {"0..1", "-1..1", "mnist"}
    assert result["input"]["scaling"] == "0..255"  # the lowest cross-entropy


@pytest.mark.parametrize("order", [[1, 0, 2, 3, 4], [4, 3, 2, 1, 0], [1, 2, 3, 4, 0]], ids=str)
def test_other_order_is_refused_with_the_one_that_fits(order, dataset, tmp_path):
    path = write_graph(tmp_path / "model.onnx", order=order)
    names = ", ".join(NAMES[index] for index in order)
    models = {
        "columns": path,
        "columns of a function": lambda images: logits_of(images)[:, order],
        "labels": lambda images: np.argsort(order)[labels_of(images)],
    }
    for kind, model in models.items():
        with pytest.raises(FmnistError) as caught:
            fmnist.score(model, dataset)
        message = one_line(caught.value)
        assert message.startswith(f"the {kind.split()[0]} of ")
        assert f"another order of the classes: {names}." in message
        assert f"class_order={order}, or on the command line --class-order {','.join(map(str, order))}" in message
        for given in (order, [NAMES[index] for index in order]):
            result = fmnist.score(model, dataset, class_order=given)
            assert (result["accuracy"], result["class_order"]) == (1.0, order)
    wrong = [*order[1:], order[0]]
    with pytest.raises(FmnistError, match=f"another order of the classes: {names}"):
        fmnist.score(path, dataset, class_order=wrong)


def test_confused_classes_are_not_taken_for_another_order(dataset):
    """Here 60 % of the images of a class are taken for the other, and the other way round less often."""

    def predict(images):
        labels = labels_of(images)
        swapped = images[:, 0, 0].astype(int) + images[:, 1, 1] + images[:, 2, 2]
        return np.where((labels == 1) & (swapped % 10 < 6), 2, labels)

    assert fmnist.score(predict, dataset)["class_order"] == [0, 1, 2, 3, 4]


def with_value(value):
    def predict(images):
        values = probabilities_of(images)
        values[7, 2] = value
        return values

    return predict


def raise_error(images):
    raise RuntimeError("no GPU")


WRONG = {
    "NaN": (with_value(np.nan), "returns NaN or infinity, first for image 7"),
    "infinity": (with_value(np.inf), "returns NaN or infinity"),
    "negative": (
        lambda images: probabilities_of(images) + np.array([-0.1, 0.1, 0, 0, 0]),
        "rows that sum to 1 with negative probabilities, as -0.1",
    ),
    "sigmoid": (lambda images: np.full((len(images), 5), 0.4), "in rows that sum to 2 to 2; expected probabilities"),
    "percent": (lambda images: 100 * probabilities_of(images), "in rows that sum to 100 to 100"),
    "classes": (lambda images: np.ones((len(images), 6)), "shape (100, 6); expected (n, 5) probabilities or logits"),
    "column": (lambda images: np.full((len(images), 1), 0.5), "one number for each image, as 0.5; expected class"),
    "axes": (lambda images: np.ones((len(images), 5, 1)), "shape (100, 5, 1); expected (n, 5)"),
    "number": (lambda images: 3, "returns an array of shape () for 100 images"),
    "half": (lambda images: probabilities_of(images)[::2], "returns an array of shape (50, 5) for 100 images"),
    "none": (lambda images: None, "returns the dtype object; expected an array of probabilities"),
    "text": (lambda images: np.array(NAMES)[labels_of(images)], "returns text; expected an array"),
    "ragged": (lambda images: [[1, 2], [3]], "returns a value of type list, which is no array"),
    "from one": (lambda images: labels_of(images) + 1, "returns labels from 1 to 5; expected class indices from 0"),
    "too high": (lambda images: labels_of(images) + 7, "returns the label 11; expected class indices from 0 to 4"),
    "raises": (raise_error, "raise_error fails on images of shape (100, 28, 28), uint8 from 5 to 225: RuntimeError"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_results_are_refused(name, dataset):
    predict, message = WRONG[name]
    with pytest.raises(FmnistError) as caught:
        fmnist.score(predict, dataset)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_results_that_change_for_test_images_are_refused(dataset):
    def predict(images):
        return labels_of(images) if len(images) == 100 else logits_of(images)

    with pytest.raises(FmnistError, match="returns labels, but logits for training images"):
        fmnist.score(predict, dataset)


def test_input_stays_as_it_is(dataset):
    def predict(images):
        values = logits_of(images)
        images[:] = 0
        return values

    before = dataset.test_images.copy()
    assert fmnist.score(predict, dataset)["accuracy"] == 1.0
    assert (dataset.test_images == before).all()


def test_model_at_chance_is_scored_with_a_warning(dataset, caplog):
    with caplog.at_level(logging.WARNING):
        result = fmnist.score(lambda images: np.zeros(len(images), int), dataset)
    assert result["accuracy"] == 0.2
    assert "which is little better than chance" in result["warning"]
    assert result["warning"] in caplog.text


@pytest.mark.parametrize(("names", "is_suspect"), [(CLASS_NAMES, True), (tuple("abcdefghij"), False)])
def test_accuracy_that_is_too_good_is_suspect(names, is_suspect, caplog):
    levels = range(10, 240, 23)
    dataset = make_dataset(levels, names)
    with caplog.at_level(logging.WARNING):
        result = fmnist.score(lambda images: ((images.mean(axis=(1, 2)) - 10) / 23).round(), dataset)
    assert result["accuracy"] == 1.0
    assert ("no honest single model is known to reach 97.5%" in caplog.text) == is_suspect
    assert (result["warning"] is not None) == is_suspect


def test_graph_that_fits_nothing_is_refused_with_what_was_tried(dataset, tmp_path):
    path = write_graph(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((784, 5), np.float32), "weights"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FmnistError) as caught:
        fmnist.score(path, dataset)
    message = str(caught.value)
    assert "at best, which is little better than chance; tried: " in message
    assert all(str(InputFormat("28x28", scaling, "float32")) in message for scaling in SCALINGS)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        (["n", 3, 224, 224], "float32", "takes tensor(float) of shape (n, 3, 224, 224); expected one of (n, 28, 28), "),
        (["n", 1, 32, 32], "float32", "takes tensor(float) of shape (n, 1, 32, 32)"),
        ([28, 28], "float32", "takes tensor(float) of shape (28, 28)"),
        (["n", 28, 28], "bool", "takes tensor(bool) of shape (n, 28, 28)"),
    ],
)
def test_graph_of_other_images_is_refused(shape, dtype, message, dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(TYPES, "bool", TensorProto.BOOL)
    path = write_graph(tmp_path / "model.onnx", shape=shape, dtype=dtype)
    with pytest.raises(FmnistError) as caught:
        fmnist.score(path, dataset)
    assert message in str(caught.value)


def test_unsafe_and_damaged_files_are_refused(dataset, tmp_path):
    path = write_graph(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FmnistError, match="has 2 inputs; expected one, for the images"):
        fmnist.score(path, dataset)
    del model.graph.input[1]
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="secret.bin")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FmnistError, match=r"a tensor with external data; .* external_data=False"):
        fmnist.score(path, dataset)
    path.write_text("no graph")
    with pytest.raises(FmnistError, match="is damaged or not an ONNX file; export it as one file"):
        fmnist.score(path, dataset)
    with pytest.raises(FmnistError, match="is no ONNX file by its name"):
        fmnist.score(tmp_path / "model.keras", dataset)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaling": "0-1"}, "scaling is '0-1'; expected one of 0..255, 0..1, "),
        ({"layout": "NCHW"}, "layout is 'NCHW'; expected one of 28x28, "),
        ({"class_order": [0, 1, 2, 3]}, "class_order is [0, 1, 2, 3]; expected each of black, dark"),
        ({"class_order": [0, 1, 2, 3, 3]}, "class_order is"),
        ({"class_order": ["black", "dark", "gray", "light", "blue"]}, "class_order is"),
        ({"dataset": []}, "dataset is a value of type list"),
    ],
)
def test_wrong_options_are_refused(options, message, dataset):
    with pytest.raises(FmnistError) as caught:
        fmnist.score(logits_of, **{"dataset": dataset, **options})
    assert message in str(caught.value)


def test_too_few_images_for_a_temperature(caplog):
    dataset = make_dataset()
    few = replace(dataset, train_images=dataset.train_images[:30], train_labels=dataset.train_labels[:30])
    result = fmnist.score(logits_of, few)
    assert (result["temperature"], result["accuracy"]) == (None, 1.0)
    assert "no temperature is fitted: 30 training images are too few" in caplog.text


@pytest.mark.parametrize(
    ("scaling", "black", "white"),
    [
        ("0..255", 0, 255),
        ("0..1", 0, 1),
        ("-1..1", -1, 1),
        ("fashion-mnist", -0.2860 / 0.3530, (1 - 0.2860) / 0.3530),
        ("mnist", -0.1307 / 0.3081, (1 - 0.1307) / 0.3081),
        ("255..0", 255, 0),
        ("1..0", 1, 0),
        ("1..-1", 1, -1),
    ],
)
def test_scalings(scaling, black, white):
    images = np.zeros((1, 28, 28), np.uint8)
    images[0, 3] = 255
    converted = InputFormat("1x28x28", scaling, "float32").convert(images)
    assert converted.shape == (1, 1, 28, 28)
    assert converted.dtype == np.float32
    np.testing.assert_allclose(converted[0, 0, 3:5, 0], [white, black], rtol=1e-6)


def test_per_image_scaling():
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    images[2] = 7
    converted = InputFormat("784", "per-image", "float32").convert(images)
    assert converted[:2].mean(axis=1) == pytest.approx(0, abs=1e-5)
    assert converted[:2].std(axis=1) == pytest.approx(1)
    assert (converted[2] == 0).all()


SOURCE = """
import numpy as np
print("loading the model")

def predict(images):
    print("predicting")
    return np.abs(images.mean(axis=(1, 2))[:, None] - [10, 30, 70, 130, 220]).argmin(axis=1)

def backwards(images):
    return 4 - predict(images)
"""


@pytest.fixture
def command(cli, dataset, tmp_path, monkeypatch):
    """`fmnist evaluate --data FOLDER`, in a folder with `own.py` and `model.onnx`."""
    import sys

    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own.py").write_text(SOURCE)
    write_graph(tmp_path / "model.onnx", "1x28x28", scaling="mnist")
    part = SimpleNamespace(**vars(dataset))
    folder = write_folder(
        tmp_path / "data", (part.train_images, part.train_labels), (part.test_images, part.test_labels), NAMES
    )
    yield lambda *arguments: cli("evaluate", "--data", folder, *arguments)
    for name in set(sys.modules) - before:
        if name.startswith("own"):
            del sys.modules[name]


@pytest.mark.parametrize("model", ["own:predict", "own.py:predict", "model.onnx"])
def test_command(model, command, tmp_path):
    code, output, errors = command("--model", model, "--json")
    assert code == 0, errors
    result = json.loads(output)
    assert (result["model"], result["accuracy"]) == (model, 1.0)
    assert len(result["sha256"]) == 64
    assert "accuracy" in errors
    code, output, errors = command("--model", model)
    assert code == 0, errors
    assert f"{model} on 100 test images" in output
    assert "predicting" not in output
    if model == "model.onnx":
        assert "Input: float32, layout 1x28x28, scaling mnist; 100.0% of " in output
        assert "Temperature " in output
        assert "biased if the model was trained on them. 100.0% of them are right." in output
    else:
        assert "Labels have no calibration." in output


def test_command_with_another_order(command):
    code, _, errors = command("--model", "own:backwards")
    assert code == 1
    assert "--class-order 4,3,2,1,0" in errors
    code, output, _ = command("--model", "own:backwards", "--class-order", "4,3,2,1,0")
    assert code == 0
    assert "100.00%" in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["runs/one", "--model", "model.onnx"], 2, "either a run is evaluated or --model"),
        (["--model", "model.onnx", "--seed", "1"], 2, "not with --model"),
        (["--scaling", "0..1"], 2, "only with --model"),
        (["--class-order", "0,1"], 2, "only with --model"),
        (["--model", "model.onnx", "--class-order", "a,b"], 2, "'a,b' is no list of class indices"),
        (["--model", "model.onnx", "--layout", "NCHW"], 1, "layout is 'NCHW'; expected one of 28x28, "),
        (["--model", "model.onnx", "--layout", "784"], 1, "cannot take images with scaling any and layout 784"),
        (["--model", "none.onnx"], 1, "none.onnx is missing"),
        (["--model", "data"], 1, "data is a folder; `fmnist evaluate data` evaluates a run"),
        (["--model", "own.py"], 1, "own.py is no ONNX file by its name"),
        (["--model", "own:none"], 1, "own has no function none; its functions: predict, backwards"),
    ],
    ids=str,
)
def test_wrong_commands(arguments, code, message, command):
    found, output, errors = command(*arguments)
    assert (found, output) == (code, "")
    assert message in " ".join(errors.split())
