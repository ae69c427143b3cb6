"""The exported graph: complete, equal to Keras, usable with ONNX Runtime alone."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from msgspec.structs import replace
from safetensors.numpy import save_file

import fmnist
from fmnist import metrics
from fmnist.data.dataset import normalize
from fmnist.documents import write_document
from fmnist.errors import FmnistError
from fmnist.export import onnx as export
from fmnist.export.graph import view_indices
from fmnist.models.weights import load_model, read_weights


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


def test_a_single_view_computes_a_single_view(small_run):
    """The batch of the first convolution has one row per image instead of ten."""
    model = onnx.load(small_run.onnx_path)
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(convolution.output[0]))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    images = np.zeros((4, 28, 28), np.uint8)
    for options, expected in (({}, 40), ({"num_views": np.array(1, np.int32)}, 4)):
        (rows,) = session.run([convolution.output[0]], {"images": images, **options})
        assert len(rows) == expected


@pytest.mark.parametrize(("num_views", "clipped"), [(0, 1), (-3, 1), (20, 10), (2**31 - 1, 10)])
def test_num_views_is_clipped(small_run, small, num_views, clipped):
    session = onnxruntime.InferenceSession(small_run.onnx_path)
    found, expected = (
        session.run(None, {"images": small.test_images[:4], "num_views": np.array(value, np.int32)})
        for value in (num_views, clipped)
    )
    for found_output, expected_output in zip(found, expected, strict=True):
        assert len(found_output) == 4
        np.testing.assert_array_equal(found_output, expected_output)


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


@pytest.mark.parametrize("view", [(False, 1, -2), (True, 0, 0), (False, -1, 0)])
def test_view_indices_mirror_and_shift_an_image(view, small):
    is_mirrored, down, right = view
    image = small.test_images[0]
    expected = np.roll(np.pad(image[:, ::-1] if is_mirrored else image, 3), (down, right), (0, 1))[3:-3, 3:-3]
    rows, columns = view_indices(view, padding=2)
    assert (np.pad(image, 2)[np.ix_(rows, columns)] == expected).all()


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

    def changed(graph):
        model = onnx.load_from_string(to_onnx(graph))
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
