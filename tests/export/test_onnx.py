"""The exported graph: complete, equal to Keras, usable with ONNX Runtime alone."""

import json
import shutil

import cv2
import keras
import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
from msgspec.structs import replace
from safetensors.numpy import save_file

import fmnist
from fmnist import metrics
from fmnist.config import PRESETS
from fmnist.data.dataset import normalize
from fmnist.documents import write_document
from fmnist.errors import FmnistError
from fmnist.export import onnx as export
from fmnist.export.graph import select_view
from fmnist.export.onnx_file import to_onnx
from fmnist.export.plain import PlainGraph, export_plain
from fmnist.models.networks import build_network
from fmnist.models.weights import load_model, read_weights
from fmnist.runs.run import open_run


def softmax(values):
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_onnx_runtime_alone_gives_the_same_probabilities(small_run, classifier, small):
    session = onnxruntime.InferenceSession(small_run.onnx_path)
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [28, 28])
    outputs = {output.name for output in session.get_outputs()}
    assert outputs == {"probabilities", "probabilities_single_view", "features"}
    (probabilities,) = session.run(["probabilities"], {"images": small.test_images})
    np.testing.assert_allclose(classifier.predict(small.test_images), probabilities, atol=1e-6)


def test_the_graph_has_no_external_data(small_run):
    graph = onnx.load(small_run.onnx_path, load_external_data=False).graph
    assert not any(tensor.external_data for tensor in graph.initializer)


def test_views_and_temperature_are_in_the_graph(small_run, classifier, small):
    """The same is computed from the Keras network, view by view."""
    network, manifest = load_model(small_run), small_run.manifest()
    images = small.test_images[:100]
    views = []
    for is_mirrored, down, right in manifest.tta_views:
        padded = np.pad(images[:, :, ::-1] if is_mirrored else images, ((0, 0), (1, 1), (1, 1)))
        views.append(padded[:, 1 - down : 29 - down, 1 - right : 29 - right])
    log_probabilities = [np.log(network.predict(normalize(view), verbose=0)) for view in views]
    outputs = classifier.outputs(images)
    expected = softmax(sum(log_probabilities) / len(views) / manifest.temperature)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-4)
    expected_single_view = softmax(log_probabilities[0] / manifest.temperature)
    np.testing.assert_allclose(outputs["probabilities_single_view"], expected_single_view, atol=1e-4)
    assert len(manifest.tta_views) == len(set(manifest.tta_views)) == 10
    assert manifest.agreement.max_difference < 1e-4
    assert manifest.agreement.same_top1 is True


@pytest.fixture(scope="module")
def plain_file(small_run, tmp_path_factory):
    run = open_run(shutil.copytree(small_run.folder, tmp_path_factory.mktemp("plain") / "run"))
    export_plain(run)
    return run.folder / "model-plain.onnx"


def test_probabilities_are_first_and_the_file_describes_itself(small_run, classifier, small):
    session = onnxruntime.InferenceSession(small_run.onnx_path)
    assert session.get_outputs()[0].name == "probabilities"
    assert [value.shape[0] for value in (*session.get_inputs(), *session.get_outputs())] == ["num_images"] * 4
    metadata = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(metadata["class_names"])) == small.class_names
    assert "0 to 255" in metadata["description"]
    np.testing.assert_array_equal(
        session.run(None, {"images": small.test_images})[0], classifier.predict(small.test_images)
    )


@pytest.mark.parametrize("name", ["model.onnx", "model-plain.onnx"])
def test_nothing_is_logged_when_a_graph_is_opened(plain_file, name, capfd):
    onnxruntime.InferenceSession(plain_file.with_name(name))
    assert capfd.readouterr() == ("", "")


def test_a_file_is_opened_without_its_run(small_run, classifier, small, tmp_path):
    path = tmp_path / "copied.onnx"
    path.write_bytes(small_run.onnx_path.read_bytes())
    opened = fmnist.Classifier.load(path)
    assert opened.class_names == small.class_names
    assert opened.name == str(path)
    np.testing.assert_array_equal(opened.predict(small.test_images), classifier.predict(small.test_images))
    prediction = opened.classify(small.test_images[0])
    assert (prediction.accepted, prediction.confidence) == (None, None)


@pytest.mark.parametrize("value", [None, "", "{", "[]", '["a", "a"]', '["a\\u0007", "b"]', "[" * 10_000])
def test_a_file_without_class_names_is_refused(small_run, value, tmp_path):
    model = onnx.load(small_run.onnx_path)
    onnx.helper.set_model_props(model, {} if value is None else {"class_names": value})
    path = tmp_path / "other.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FmnistError, match="has no class names in its metadata; name the folder of its run"):
        fmnist.Classifier.load(path)


def test_a_plain_graph_is_a_single_view_with_few_operations(plain_file, classifier, small):
    opened = fmnist.Classifier.load(plain_file)
    outputs = opened.outputs(small.test_images)
    assert list(outputs) == ["probabilities"]
    expected = classifier.outputs(small.test_images)["probabilities_single_view"]
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    assert opened.class_names == small.class_names
    assert opened.classify(small.test_images[0]).accepted is None
    model = onnx.load(plain_file)
    assert {entry.version for entry in model.opset_import if entry.domain == ""} == {13}
    assert not {"Squeeze", "Gather", "Loop", "If"} & {node.op_type for node in model.graph.node}


@pytest.mark.slow
def test_the_reference_evaluator_gives_the_same_probabilities(small_run, classifier, small):
    """For the plain graph it does not: before opset 14 it trains batch normalization."""
    evaluator = onnx.reference.ReferenceEvaluator(onnx.load(small_run.onnx_path))
    (probabilities,) = evaluator.run(["probabilities"], {"images": small.test_images[:5]})
    np.testing.assert_allclose(probabilities, classifier.predict(small.test_images[:5]), atol=1e-4)


@pytest.mark.parametrize("preset", ["textbook", "tiny"])
def test_plain_graphs_of_all_kinds_of_networks_are_read_by_opencv(preset, small):
    """OpenCV computes shapes once, for the first image: the graph must not compute any."""
    network = build_network(PRESETS[preset], 10, "float32")
    graph, images = PlainGraph(network, temperature=0.5, num_classes=10), small.test_images[:5]
    expected = keras.ops.convert_to_numpy(graph(images)["probabilities"])
    content = to_onnx(graph, small.class_names, plain=True)
    operations = {node.op_type for node in onnx.load_from_string(content).graph.node}
    assert not operations & {"Shape", "Squeeze", "Gather", "Slice", "Concat", "Loop", "If"}
    np.testing.assert_allclose(fmnist.Classifier(content).predict(images), expected, atol=1e-5)
    read = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
    read.setInput(images)
    np.testing.assert_allclose(read.forward(), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.onnx", "model-plain.onnx"])
def test_graphs_are_read_by_openvino(plain_file, small, file):
    openvino = pytest.importorskip("openvino")
    path = plain_file.with_name(file)
    compiled = openvino.Core().compile_model(str(path), "CPU")
    probabilities = compiled(small.test_images[:5])[0]
    np.testing.assert_allclose(probabilities, fmnist.Classifier.load(path).predict(small.test_images[:5]), atol=2e-2)


def test_features_are_the_input_of_the_last_layer(small_run, classifier, small):
    network = load_model(small_run)
    assert network.layers[-3].name == "head"
    outputs = classifier.outputs(small.test_images[:20])
    values = outputs["features"]
    for layer in network.layers[-3:]:
        values = layer(values)
    scaled = keras.ops.convert_to_numpy(values) ** (1 / small_run.manifest().temperature)
    expected = scaled / scaled.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs["probabilities_single_view"], expected, atol=1e-4)


@pytest.mark.parametrize("view", [(False, 1, -2), (True, 0, 0), (False, -1, 0), (True, 2, 1)])
def test_a_view_is_mirrored_and_shifted(view, small):
    is_mirrored, down, right = view
    image = small.test_images[0]
    expected = np.roll(np.pad(image[:, ::-1] if is_mirrored else image, 3), (down, right), (0, 1))[3:-3, 3:-3]
    assert (select_view(np.pad(image, 2)[np.newaxis], view, padding=2)[0] == expected).all()


def test_a_second_export_gives_the_same_predictions(copied_run, classifier, small):
    """The bytes differ, because Keras numbers the names in a graph."""
    before = copied_run.manifest()
    after = export.export_run(copied_run)
    for name in ("temperature", "tta_views", "class_names", "epochs_trained"):
        assert getattr(after, name) == getattr(before, name)
    assert (
        fmnist.Classifier.load(copied_run).predict(small.test_images) == classifier.predict(small.test_images)
    ).all()


def test_the_temperature_is_fitted_on_the_validation_images(small_run, small, classifier):
    """It is fitted again to the probabilities of the graph, with the temperature removed from them."""
    split, manifest = small_run.split(small), small_run.manifest()
    log_probabilities = np.log(classifier.predict(split.val_images) + 1e-30) * manifest.temperature
    temperature = metrics.fit_temperature(log_probabilities, split.val_labels)
    assert temperature == pytest.approx(manifest.temperature, rel=0.01)
    assert manifest.validation.accuracy == (log_probabilities.argmax(axis=1) == split.val_labels).mean()
    assert manifest.calibrated_by == small_run.name


def test_weights_that_are_not_finite_are_not_exported(copied_run):
    weights = read_weights(copied_run)
    save_file({name: values * np.float32("nan") for name, values in weights.items()}, copied_run.weights_path)
    copied_run.manifest_path.unlink()
    before = copied_run.onnx_path.read_bytes()
    with pytest.raises(FmnistError, match="are not finite: training diverged"):
        export.export_run(copied_run)
    assert copied_run.onnx_path.read_bytes() == before


def test_a_graph_that_disagrees_with_keras_is_not_exported(copied_run, monkeypatch):
    """The graph is changed on its way into the file; the previous files stay."""
    before = copied_run.onnx_path.read_bytes()
    to_onnx = export.to_onnx

    def changed(graph, class_names):
        model = onnx.load_from_string(to_onnx(graph, class_names))
        tensor = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
        array = onnx.numpy_helper.to_array(tensor) + np.float32(0.01)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        return model.SerializeToString()

    monkeypatch.setattr(export, "to_onnx", changed)
    with pytest.raises(FmnistError, match="disagrees with Keras"):
        export.export_run(copied_run)
    assert copied_run.onnx_path.read_bytes() == before
    assert fmnist.Classifier.load(copied_run)


def test_a_tie_of_two_classes_is_no_disagreement():
    """As after a few steps of training, where probabilities are nearly equal."""
    expected = np.array([[0.5, 0.5 - 1e-6], [0.9, 0.1]], np.float32)
    agreement = export.check_agreement(expected[:, ::-1][[0, 0]], expected[[0, 0]], 0.0)
    assert not agreement.same_top1
    assert export.check_agreement(expected, expected, 0.0).same_top1
    for found in (expected[:, ::-1], expected * np.float32("nan")):
        with pytest.raises(FmnistError, match="disagrees with Keras"):
            export.check_agreement(found, expected, 0.0)


@pytest.mark.slow
def test_an_evaluation_is_removed_with_the_graph_that_it_is_of(copied_run, small):
    """An export of the same graph keeps it."""
    evaluation = [copied_run.folder / name for name in ("evaluation.json", "report.html")]
    fmnist.evaluate(copied_run)
    manifest = export.export_run(copied_run, small)
    assert all(path.exists() for path in evaluation)
    write_document(copied_run.manifest_path, replace(manifest, temperature=2.0))
    export.export_run(copied_run, small)
    assert not any(path.exists() for path in evaluation)
