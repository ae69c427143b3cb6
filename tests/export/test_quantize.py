"""The int8 graph: small, nearly as accurate as the float32 graph, and checked before it is used."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from msgspec import structs
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

import fmnist
from fmnist.documents import write_document
from fmnist.errors import FmnistError
from fmnist.export import quantize
from fmnist.export.onnx import export_run
from fmnist.export.quantize import quantize_run
from fmnist.files import lock_folder, sha256
from fmnist.inference.runtime import session_options
from fmnist.models.weights import read_weights
from fmnist.runs import environment
from fmnist.runs.run import open_run
from fmnist.runs.schemas import INT8_FILE


@pytest.fixture(scope="module")
def quantized_run(small_run, small, tmp_path_factory):
    """A copy of `small_run` with an int8 graph. Not to be changed."""
    run = open_run(shutil.copytree(small_run.folder, tmp_path_factory.mktemp("runs") / "quantized"))
    quantize_run(run, small)
    return run


def test_int8_graph_has_a_quarter_of_the_size(quantized_run):
    content = (quantized_run.folder / INT8_FILE).read_bytes()
    manifest = quantized_run.manifest()
    assert manifest.int8.bytes == len(content)
    # One byte for each weight; 20 kB for scales, the head in float32, nodes and names.
    assert len(content) < manifest.parameters + 20_000
    kernels = {
        tuple(tensor.dims): tensor.data_type
        for tensor in onnx.load_from_string(content).graph.initializer
        if len(tensor.dims) == 4
    }
    assert len(kernels) == 5
    assert set(kernels.values()) == {TensorProto.INT8}


def test_int8_graph_has_the_same_interface_and_nearly_the_same_outputs(quantized_run, small):
    graphs = [fmnist.Classifier.load(quantized_run, int8=int8) for int8 in (True, False)]
    found, expected = (graph.outputs(small.test_images) for graph in graphs)
    assert list(found) == list(expected)
    for name in ("probabilities", "probabilities_single_view"):
        assert (found[name].argmax(axis=1) == expected[name].argmax(axis=1)).mean() > 0.95
        assert np.abs(found[name] - expected[name]).mean() < 0.01
    scale = np.abs(expected["features"]).mean()
    assert 0 < np.abs(found["features"] - expected["features"]).mean() < 0.05 * scale
    assert fmnist.Classifier.load(quantized_run.folder / INT8_FILE).class_names == small.class_names


@pytest.fixture
def set_cpu_flags(monkeypatch, tmp_path):
    """Replace what Linux reports of the processor."""

    def set_flags(flags):
        path = tmp_path / "cpuinfo"
        path.write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: {flags}\n")
        monkeypatch.setattr(environment, "Path", lambda _: path)

    return set_flags


@pytest.mark.parametrize(
    ("flags", "exact"), [("fpu avx2", "1"), ("", "1"), ("fpu avx2 avx_vnni", "0"), ("fpu avx512f avx512_vnni", "0")]
)
def test_exact_kernels_are_used_only_without_vnni(set_cpu_flags, flags, exact):
    set_cpu_flags(flags)
    assert session_options().get_session_config_entry("session.x64quantprecision") == exact


def test_int8_graph_gives_the_same_probabilities_without_vnni(quantized_run, small, set_cpu_flags):
    """Without VNNI on this machine, this compares the exact kernels with themselves."""
    as_is = fmnist.Classifier.load(quantized_run, int8=True).predict(small.test_images)
    set_cpu_flags("")
    without_vnni = fmnist.Classifier.load(quantized_run, int8=True).predict(small.test_images)
    np.testing.assert_allclose(as_is, without_vnni, atol=1e-6)


def test_record_is_of_the_validation_images(quantized_run, small):
    images = quantized_run.split(small)
    found, expected = (
        fmnist.Classifier.load(quantized_run, int8=int8).predict(images.val_images).argmax(axis=1)
        for int8 in (True, False)
    )
    record = quantized_run.manifest().int8
    assert (record.compared_on, record.num_images) == ("validation", len(images.val_images))
    assert record.same_top1 == (found == expected).mean()
    assert record.accuracy == (found == images.val_labels).mean()
    assert record.accuracy_float == (expected == images.val_labels).mean()


def test_run_without_validation_is_compared_on_training_images(copied_run, small):
    path = copied_run.folder / "config.json"
    document = json.loads(path.read_text())
    document["config"]["full"] = True
    path.write_text(json.dumps(document))
    record = quantize_run(open_run(copied_run.folder), small).int8
    assert (record.compared_on, record.num_images) == ("training", 1_200)
    assert record.accuracy is record.accuracy_float is None
    assert record.same_top1 > 0.95


def test_int8_graph_does_not_depend_on_the_test_images(copied_run, quantized_run, small):
    quantize_run(copied_run, dataclasses.replace(small, test_images=np.zeros_like(small.test_images)))
    assert (copied_run.folder / INT8_FILE).read_bytes() == (quantized_run.folder / INT8_FILE).read_bytes()


def test_quantization_prints_nothing(copied_run):
    """ONNX Runtime writes its warnings past Python, so they can be seen only from another process."""
    script = (
        "from fmnist.export.quantize import quantize_run; from fmnist.runs.run import open_run; "
        f"quantize_run(open_run({str(copied_run.folder)!r}))"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_run_without_an_int8_graph_is_refused(small_run):
    with pytest.raises(FmnistError, match=r"names no model-int8.onnx; `fmnist export .* --int8` writes it$"):
        fmnist.Classifier.load(small_run, int8=True)


DAMAGES = {
    "missing": (lambda path: path.unlink(), "is missing; `fmnist export .* --int8` writes it again"),
    "another file": (lambda path: path.write_bytes(b"x"), "is not the file that its manifest names"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_int8_graph_is_refused_and_the_float_graph_is_not(quantized_run, tmp_path, case):
    damage, expected = DAMAGES[case]
    run = open_run(shutil.copytree(quantized_run.folder, tmp_path / "run"))
    damage(run.folder / INT8_FILE)
    with pytest.raises(FmnistError, match=expected):
        fmnist.Classifier.load(run, int8=True)
    assert fmnist.Classifier.load(run)


def test_int8_graph_with_other_predictions_is_not_written(copied_run, small, monkeypatch):
    before = copied_run.manifest()
    original = quantize.quantize

    def reverse_a_kernel(content, images):
        model = onnx.load_from_string(original(content, images))
        (kernel,) = (tensor for tensor in model.graph.initializer if list(tensor.dims) == [128, 64, 3, 3])
        kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel)[::-1], kernel.name))
        return model.SerializeToString()

    monkeypatch.setattr(quantize, "quantize", reverse_a_kernel)
    expected = r"int8 graph predicts the same class as the float graph for .* of the validation images; expected at"
    with pytest.raises(FmnistError, match=expected):
        quantize_run(copied_run, small)
    assert copied_run.manifest() == before
    assert not (copied_run.folder / INT8_FILE).exists()


def replace_graph(run, content):
    """Replace the graph of a run, and its hash in the manifest."""
    run.onnx_path.write_bytes(content)
    manifest = run.manifest()
    hashes = {**manifest.sha256, "model.onnx": sha256(content)}
    write_document(run.manifest_path, replace(manifest, sha256=hashes))


def test_graph_is_checked_before_it_is_quantized(copied_run, small, monkeypatch):
    model = onnx.load_from_string(copied_run.onnx_path.read_bytes())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    replace_graph(copied_run, model.SerializeToString())
    monkeypatch.setattr(quantize, "quantize", None)
    with pytest.raises(FmnistError, match="a tensor with external data"):
        quantize_run(copied_run, small)


def test_graph_that_does_not_match_the_manifest_is_not_quantized(copied_run, small):
    copied_run.onnx_path.write_bytes(b"x")
    with pytest.raises(FmnistError, match=r"model\.onnx is not the file that its manifest names"):
        quantize_run(copied_run, small)


def test_locked_run_is_not_quantized(copied_run, small):
    """Another process may be about to write the manifest."""
    before = copied_run.manifest_path.read_bytes()
    with lock_folder(copied_run.folder), pytest.raises(FmnistError, match="is in use by another fmnist process"):
        quantize_run(copied_run, small)
    assert copied_run.manifest_path.read_bytes() == before


def test_quantization_keeps_the_hashes_of_the_other_files(quantized_run, small_run):
    int8_hash = sha256((quantized_run.folder / INT8_FILE).read_bytes())
    assert quantized_run.manifest().sha256 == {**small_run.manifest().sha256, INT8_FILE: int8_hash}


def make_pooling_model(scale):
    """Build a model with three poolings: before normalization, before two nodes, and before a convolution.

    Args:
        scale: of the normalization.
    """
    rng = np.random.default_rng(0)
    arrays = {
        "kernel": rng.normal(size=(4, 4, 3, 3)),
        "scale": np.full(4, scale),
        **{name: rng.uniform(0.5, 2, 4) for name in ("offset", "mean", "variance")},
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
        helper.make_node("Add", ["g", "h"], ["outputs"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pooling",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 4, 16, 16])],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, None)],
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
def test_pooling_is_moved_only_where_outputs_stay_the_same(scale, expected):
    model = make_pooling_model(scale)
    images = np.random.default_rng(1).normal(size=(5, 4, 16, 16)).astype(np.float32)

    def compute():
        session = onnxruntime.InferenceSession(model.SerializeToString())
        return session.run(None, {"images": images})[0]

    before = compute()
    quantize.move_pooling_last(model)
    assert " ".join(node.op_type for node in model.graph.node) == expected
    np.testing.assert_allclose(compute(), before, rtol=1e-5, atol=1e-5)


def test_another_export_keeps_the_int8_graph_while_the_predictions_are_the_same(quantized_run, small, tmp_path):
    run = fmnist.open_run(shutil.copytree(quantized_run.folder, tmp_path / "run"))
    before = run.manifest()
    after = export_run(run, small)
    assert after.int8 == before.int8
    assert after.sha256["model-int8.onnx"] == before.sha256["model-int8.onnx"]
    assert fmnist.Classifier.load(run, int8=True).predict(small.test_images[:2]).shape == (2, 10)


def test_another_export_of_other_weights_removes_the_int8_graph(quantized_run, small, tmp_path):
    run = fmnist.open_run(shutil.copytree(quantized_run.folder, tmp_path / "run"))
    weights = read_weights(run)
    save_file({**weights, "head/bias": weights["head/bias"] + 1}, run.weights_path)
    hashes = {**run.manifest().sha256, "weights.safetensors": sha256(run.weights_path.read_bytes())}
    write_document(run.manifest_path, structs.replace(run.manifest(), sha256=hashes, epochs_trained=1))
    manifest = export_run(run, small)
    assert manifest.int8 is None
    assert "model-int8.onnx" not in manifest.sha256
    assert not (run.folder / "model-int8.onnx").exists()
