"""The int8 graph: small, as right as the float one, and never mistaken for another."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import fmnist
from fmnist import locks
from fmnist.data import formats as idx
from fmnist.errors import FmnistError
from fmnist.export import quantize as quantise
from fmnist.runs import environment
from fmnist.runs import run as runs


@pytest.fixture(scope="module")
def quantised_run(small_run, small, tmp_path_factory):
    """A copy of `small_run` with an int8 graph. Not to be changed."""
    import shutil

    run = runs.open_run(shutil.copytree(small_run.folder, tmp_path_factory.mktemp("runs") / "quantised"))
    quantise.finish(run, small)
    return run


def test_it_is_a_quarter_of_the_size(quantised_run):
    content = (quantised_run.folder / "model-int8.onnx").read_bytes()
    manifest = quantised_run.manifest()
    assert manifest["int8"]["bytes"] == len(content)
    # One byte a weight, 20 kB for scales, the head in float32, nodes and names.
    assert len(content) < manifest["parameters"] + 20_000
    kernels = {
        tuple(tensor.dims): tensor.data_type
        for tensor in onnx.load_from_string(content).graph.initializer
        if len(tensor.dims) == 4
    }
    assert len(kernels) == 5
    assert set(kernels.values()) == {TensorProto.INT8}


def test_it_has_the_same_inputs_and_outputs_and_gives_nearly_the_same(quantised_run, small):
    graphs = [fmnist.Classifier.load(quantised_run, int8=int8) for int8 in (True, False)]
    for single_view in (False, True):
        found, expected = (graph.outputs(small.test_images, single_view=single_view) for graph in graphs)
        assert found.keys() == expected.keys()
        for name in ("probabilities", "probabilities_single_view"):
            assert (found[name].argmax(axis=1) == expected[name].argmax(axis=1)).mean() > 0.95
            assert np.abs(found[name] - expected[name]).mean() < 0.01
        scale = np.abs(expected["features"]).mean()
        assert 0 < np.abs(found["features"] - expected["features"]).mean() < 0.05 * scale


@pytest.mark.parametrize(
    ("flags", "exact_way"),
    [("fpu avx2", "1"), ("", "1"), ("fpu avx2 avx_vnni", "0"), ("fpu avx512f avx512_vnni", "0")],
)
def test_only_processors_that_need_it_go_the_slower_exact_way(quantised_run, monkeypatch, flags, exact_way):
    monkeypatch.setattr(environment, "cpu_info", lambda: {"flags": flags})
    options = fmnist.Classifier.load(quantised_run, int8=True)._session.get_session_options()
    assert options.get_session_config_entry("session.x64quantprecision") == exact_way


def test_an_int8_graph_gives_the_same_on_every_processor(quantised_run, small, monkeypatch):
    """As far as this one tells: with VNNI both ways are exact, without it the exact one is taken twice."""
    as_here = fmnist.Classifier.load(quantised_run, int8=True).predict(small.test_images)
    monkeypatch.setattr(environment, "cpu_info", dict)
    elsewhere = fmnist.Classifier.load(quantised_run, int8=True).predict(small.test_images)
    np.testing.assert_allclose(as_here, elsewhere, atol=1e-6)


def test_the_record_is_worked_out_on_validation_images(quantised_run, small):
    from fmnist.data import dataset as data

    parts = data.split(small, quantised_run.config.seed)
    found, expected = (
        fmnist.Classifier.load(quantised_run, int8=int8).predict(parts.val_images).argmax(axis=1)
        for int8 in (True, False)
    )
    record = quantised_run.manifest()["int8"]
    assert (record["compared_on"], record["num_images"]) == ("validation", len(parts.val_images))
    assert record["same_top1"] == (found == expected).mean()
    assert record["accuracy"] == (found == parts.val_labels).mean()
    assert record["accuracy_float"] == (expected == parts.val_labels).mean()


def test_a_run_on_all_images_is_compared_on_training_images(copied_run, small):
    path = copied_run.folder / "config.json"
    document = json.loads(path.read_text())
    document["config"]["full"] = True
    path.write_text(json.dumps(document))
    record = quantise.finish(runs.open_run(copied_run.folder), small)["int8"]
    assert (record["compared_on"], record["num_images"]) == ("training", 1_200)
    assert record["accuracy"] is record["accuracy_float"] is None
    assert record["same_top1"] > 0.95


def test_no_test_image_is_looked_at(small_run, small, monkeypatch, tmp_path):
    """Other test images, the same file."""
    import shutil
    from dataclasses import replace

    contents = []
    for number, images in enumerate((small.test_images, np.zeros_like(small.test_images))):
        run = runs.open_run(shutil.copytree(small_run.folder, tmp_path / str(number)))
        quantise.finish(run, replace(small, test_images=images))
        contents.append((run.folder / "model-int8.onnx").read_bytes())
    assert contents[0] == contents[1]


def test_it_is_quiet(copied_run):
    """No warning of ONNX Runtime's or of the quantiser's, which tests in this process would not see."""
    script = f"from fmnist.export import quantize; from fmnist.runs import run; quantize.finish(run.open_run({str(copied_run.folder)!r}))"
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


BAD = {
    "never made": (lambda folder: None, "names no model-int8.onnx; `fmnist export .* --int8` writes it$"),
    "taken away": (
        lambda folder: (folder / "model-int8.onnx").unlink(),
        "is missing; `fmnist export .* --int8` writes",
    ),
    "another": (lambda folder: (folder / "model-int8.onnx").write_bytes(b"x"), "not the file that its manifest names"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_int8_graph_that_cannot_be_used_is_named(copied_run, small, case):
    change, expected = BAD[case]
    if case != "never made":
        quantise.finish(copied_run, small)
    change(copied_run.folder)
    with pytest.raises(FmnistError, match=expected):
        fmnist.Classifier.load(copied_run, int8=True)
    assert fmnist.Classifier.load(copied_run)


def test_a_graph_that_disagrees_is_not_accepted(copied_run, small, monkeypatch):
    before = copied_run.manifest()
    real = quantise.quantise

    def spoilt(content, images):
        model = onnx.load_from_string(real(content, images))
        (kernel,) = (tensor for tensor in model.graph.initializer if list(tensor.dims) == [128, 64, 3, 3])
        kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel)[::-1], kernel.name))
        return model.SerializeToString()

    monkeypatch.setattr(quantise, "quantise", spoilt)
    with pytest.raises(FmnistError, match=r"int8 graph gives the same answer as the float one on .* of the validation"):
        quantise.finish(copied_run, small)
    assert copied_run.manifest() == before
    assert not (copied_run.folder / "model-int8.onnx").exists()


def test_a_hostile_graph_is_not_taken_apart(copied_run, small, monkeypatch):
    graph = onnx.load_from_string(copied_run.onnx_path.read_bytes())
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    content = graph.SerializeToString()
    copied_run.onnx_path.write_bytes(content)
    manifest = copied_run.manifest()
    manifest["sha256"]["model.onnx"] = idx.sha256(content)
    (copied_run.folder / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(quantise, "quantise", None)
    with pytest.raises(FmnistError, match="a tensor whose values"):
        quantise.finish(copied_run, small)


def test_a_run_in_use_is_left_alone(copied_run, small):
    """Another process may be about to write the manifest."""
    before = (copied_run.folder / "manifest.json").read_bytes()
    with locks.hold(copied_run.folder), pytest.raises(FmnistError, match="is in use by another fmnist"):
        quantise.finish(copied_run, small)
    assert (copied_run.folder / "manifest.json").read_bytes() == before


def test_a_graph_changed_since_is_not_quantised(copied_run, small):
    copied_run.onnx_path.write_bytes(b"x")
    with pytest.raises(FmnistError, match=r"model\.onnx is not the file that its manifest names"):
        quantise.finish(copied_run, small)


def pooled_graph(scale):
    """A pool before normalisation and ReLU, one that two nodes use, and one before another convolution."""
    draw = np.random.default_rng(0)
    arrays = {
        "kernel": draw.normal(size=(4, 4, 3, 3)),
        "scale": np.full(4, scale),
        **{name: draw.uniform(0.5, 2, 4) for name in ("offset", "mean", "variance")},
    }
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["a"], pads=[1] * 4),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["b", "scale", "offset", "mean", "variance"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["e", "kernel"], ["f"], pads=[1] * 4),
        helper.make_node("MaxPool", ["f"], ["g"], kernel_shape=[2, 2]),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("Add", ["g", "h"], ["answers"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pooled",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 4, 16, 16])],
        [helper.make_tensor_value_info("answers", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (1, "Conv BatchNormalization Relu MaxPool MaxPool Conv MaxPool Relu Add"),
        (-1, "Conv MaxPool BatchNormalization Relu MaxPool Conv MaxPool Relu Add"),
    ],
)
def test_pooling_moves_only_where_nothing_changes(scale, expected):
    model = pooled_graph(scale)
    images = np.random.default_rng(1).normal(size=(5, 4, 16, 16)).astype(np.float32)

    def answers():
        session = onnxruntime.InferenceSession(model.SerializeToString())
        return session.run(None, {"images": images})[0]

    before = answers()
    quantise.pool_last(model)
    assert " ".join(node.op_type for node in model.graph.node) == expected
    np.testing.assert_allclose(answers(), before, rtol=1e-5, atol=1e-5)


def test_hashes_of_the_other_files_stay(quantised_run, small_run):
    hashes = quantised_run.manifest()["sha256"]
    assert {name: hashes[name] for name in small_run.manifest()["sha256"]} == small_run.manifest()["sha256"]
    assert hashes["model-int8.onnx"] == idx.sha256((quantised_run.folder / "model-int8.onnx").read_bytes())
