"""The shipped graph: complete, equal to Keras, and asked through ONNX Runtime alone."""

import dataclasses
import json

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import fmnist
from fmnist.data import dataset as data
from fmnist.data import formats as idx
from fmnist.errors import FmnistError
from fmnist.export import onnx as export
from fmnist.inference import photo
from fmnist.models import networks as model
from fmnist.runs import run as runs


def test_any_onnx_tool_gets_the_same_answer(small_run, classifier, small):
    session = onnxruntime.InferenceSession(small_run.onnx_path)
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [28, 28])
    outputs = {output.name for output in session.get_outputs()}
    assert outputs == {"probabilities", "probabilities_single_view", "features"}
    (answers,) = session.run(["probabilities"], {"images": small.test_images})
    np.testing.assert_allclose(classifier.predict(small.test_images), answers, atol=1e-6)


def test_the_file_needs_no_other(small_run):
    graph = onnx.load(small_run.onnx_path, load_external_data=False).graph
    assert not any(tensor.external_data for tensor in graph.initializer)


def test_views_and_temperature_are_inside(small_run, classifier, small):
    """Worked out again from the plain Keras network, view by view."""
    network, manifest = model.load_model(small_run), small_run.manifest()
    images = small.test_images[:100]
    views = []
    for mirrored, rows, columns in manifest["views"]:
        framed = np.pad(images[:, :, ::-1] if mirrored else images, ((0, 0), (1, 1), (1, 1)))
        views.append(framed[:, 1 - rows : 29 - rows, 1 - columns : 29 - columns])
    logs = [np.log(network.predict(data.normalise(view), verbose=0)) for view in views]

    def softmax(values):
        exponentials = np.exp(values - values.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    outputs = classifier.outputs(images)
    expected = softmax(sum(logs) / len(views) / manifest["temperature"])
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-4)
    np.testing.assert_allclose(
        outputs["probabilities_single_view"], softmax(logs[0] / manifest["temperature"]), atol=1e-4
    )
    assert len(manifest["views"]) == len({tuple(view) for view in manifest["views"]}) == 10
    assert manifest["agreement"]["max_difference"] < 1e-4
    assert manifest["agreement"]["same_top1"] is True


def test_a_single_view_alone(classifier, small):
    """The same answers as beside the others."""
    images = small.test_images[:101]
    alone = classifier.outputs(images, single_view=True)
    beside = classifier.outputs(images)
    for name in ("probabilities", "probabilities_single_view"):
        np.testing.assert_allclose(alone[name], beside["probabilities_single_view"], atol=1e-6)
    np.testing.assert_allclose(alone["features"], beside["features"], atol=1e-4)
    assert (classifier.predict(images, single_view=True) == alone["probabilities"]).all()
    assert not np.allclose(alone["probabilities"], beside["probabilities"], atol=1e-3)


def test_a_single_view_is_less_work(small_run):
    """Shown by what the first convolution of the shipped graph sees."""
    model = onnx.load(small_run.onnx_path)
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(convolution.output[0]))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    images = np.zeros((4, 28, 28), np.uint8)
    for more, expected in (({}, 40), ({"num_views": np.array(1, np.int32)}, 4)):
        (seen,) = session.run([convolution.output[0]], {"images": images, **more})
        assert len(seen) == expected


@pytest.mark.parametrize(("num_views", "like"), [(0, 1), (-3, 1), (20, 10), (2**31 - 1, 10)])
def test_a_number_of_views_that_there_is_not_is_taken_for_the_nearest(small_run, small, num_views, like):
    session = onnxruntime.InferenceSession(small_run.onnx_path)
    found, expected = (
        session.run(None, {"images": small.test_images[:4], "num_views": np.array(number, np.int32)})
        for number in (num_views, like)
    )
    for one, other in zip(found, expected, strict=True):
        assert len(one) == 4
        np.testing.assert_array_equal(one, other)


def test_a_graph_without_the_choice_says_so(small_run):
    graph = onnx.load(small_run.onnx_path)
    del graph.graph.input[1]
    old = fmnist.Classifier(graph.SerializeToString(), data.CLASS_NAMES, "old")
    assert old.predict(np.zeros((1, 28, 28), np.uint8)).shape == (1, 10)
    with pytest.raises(FmnistError, match="graph of old cannot be asked for a single view; `fmnist export` renews it"):
        old.predict(np.zeros((1, 28, 28), np.uint8), single_view=True)


def test_features_are_what_the_last_layer_sees(small_run, classifier, small):
    network = model.load_model(small_run)
    answers = classifier.outputs(small.test_images[:20])["features"]
    for layer in network.layers[-3:]:
        answers = layer(answers)
    answers = keras.ops.convert_to_numpy(answers)
    assert network.layers[-3].name == "head"
    temperature = small_run.manifest()["temperature"]
    sharpened = answers ** (1 / temperature)
    np.testing.assert_allclose(
        classifier.outputs(small.test_images[:20])["probabilities_single_view"],
        sharpened / sharpened.sum(axis=1, keepdims=True),
        atol=1e-4,
    )


@pytest.mark.parametrize("view", [(False, 1, -2), (True, 0, 0), (False, -1, 0)])
def test_a_shifted_view_is_a_shifted_image(view, small):
    mirrored, rows, columns = view
    image = small.test_images[0]
    expected = np.roll(np.pad(image[:, ::-1] if mirrored else image, 3), (rows, columns), (0, 1))[3:-3, 3:-3]
    seen_rows, seen_columns = export._places(view, reach=2)
    assert (np.pad(image, 2)[np.ix_(seen_rows, seen_columns)] == expected).all()


@pytest.mark.parametrize("num_images", [0, 1, 99, 101, 250])
def test_every_image_gets_an_answer(classifier, num_images):
    images = np.zeros((num_images, 28, 28), np.uint8)
    assert classifier.predict(images).shape == (num_images, 10)


@pytest.mark.parametrize(
    "images", [np.zeros((1, 28, 28)), np.zeros((28, 28), np.uint8), np.zeros((1, 28, 28, 1), np.uint8)]
)
def test_images_of_another_form_are_refused(classifier, images):
    with pytest.raises(FmnistError, match="expected uint8 of shape"):
        classifier.predict(images)


def test_one_picture_as_file_and_as_array(classifier, small, tmp_path):
    Image.fromarray(small.test_images[0]).save(tmp_path / "picture.png")
    answer = classifier.classify(tmp_path / "picture.png")
    assert answer == classifier.classify(small.test_images[0])
    assert list(answer) == ["label", "class", "probability", "acceptance", "accepted", "reason", "top"]
    assert answer["label"] == data.CLASS_NAMES[answer["class"]]
    assert 0 <= answer["acceptance"] <= 1
    assert answer["accepted"] == (answer["reason"] is None)
    probabilities = [item["probability"] for item in answer["top"]]
    assert len(probabilities) == 10
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def picture(mode, size, suffix="png"):
    def write(path):
        Image.new(mode, size).save(path.with_suffix(f".{suffix}"))
        return path.with_suffix(f".{suffix}")

    return write


def content(value):
    def write(path):
        path.write_bytes(value)
        return path

    return write


BAD_PICTURES = {
    "too small": (picture("L", (20, 32)), "20x32 pixels; expected at least 28 each way"),
    "another format": (picture("L", (28, 28), "gif"), "is no picture"),
    "text": (content(b"hello"), "is no picture"),
    "nothing": (content(b""), "is empty"),
    "a truncated picture": (content(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), "no picture|cannot be read"),
    "no file": (lambda path: path, "no picture .*; check the name"),
    "a folder": (lambda path: path.parent, "is a folder"),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_a_bad_picture_is_named_in_one_line(classifier, tmp_path, case):
    write, expected = BAD_PICTURES[case]
    path = write(tmp_path / "picture")
    with pytest.raises(FmnistError, match=expected) as caught:
        classifier.classify(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_file_bytes_picture_and_conversion_get_the_same_answer(classifier, tmp_path):
    scene = Image.new("RGB", (300, 400), (200, 180, 160))
    scene.paste((30, 30, 80), (100, 50, 200, 350))
    scene.save(tmp_path / "scene.png")
    answer = classifier.classify(tmp_path / "scene.png")
    assert answer == classifier.classify(str(tmp_path / "scene.png"))
    assert answer == classifier.classify((tmp_path / "scene.png").read_bytes())
    assert answer == classifier.classify(scene)
    assert answer == classifier.answer(photo.convert(scene))


@pytest.mark.parametrize("image", [np.zeros((28, 28)), np.zeros((28, 29), np.uint8), np.zeros((1, 28, 28), np.uint8)])
def test_an_array_of_another_form_is_refused(classifier, image):
    with pytest.raises(FmnistError, match="expected uint8 of shape"):
        classifier.classify(image)


def test_most_clean_images_are_accepted_and_reasons_are_words(classifier, small):
    answers = [classifier.classify(image) for image in small.test_images]
    assert np.mean([answer["accepted"] for answer in answers]) > 0.8
    reasons = {answer["reason"] for answer in answers if not answer["accepted"]}
    assert all(reason.startswith(("between ", "not like any of the ten")) for reason in reasons)


def test_noise_scores_below_clothes(classifier, small):
    noise = np.random.default_rng(0).integers(0, 256, (200, 28, 28), np.uint8)
    scores = [
        classifier.acceptance.score(outputs["probabilities"], outputs["features"])
        for outputs in map(classifier.outputs, (small.test_images, noise))
    ]
    assert np.median(scores[0]) > np.quantile(scores[1], 0.9)


def test_where_nothing_was_found_nothing_is_accepted(classifier, small):
    found = photo.Conversion(small.test_images[0], {}, None)
    assert classifier.answer(found)["accepted"]
    answer = classifier.answer(dataclasses.replace(found, problem=photo.NOTHING_FOUND))
    assert (answer["accepted"], answer["acceptance"], answer["reason"]) == (False, 0.0, photo.NOTHING_FOUND)
    touching = classifier.answer(dataclasses.replace(found, problem=photo.TOUCHES_BORDER))
    assert touching["accepted"]  # a reason for doubt, and not for refusing what is sure
    assert touching["reason"] is None


def test_a_model_without_a_threshold_says_so(copied_run, small):
    manifest = json.loads((copied_run.folder / "manifest.json").read_text())
    del manifest["acceptance"]
    (copied_run.folder / "manifest.json").write_text(json.dumps(manifest))
    answer = fmnist.Classifier.load(copied_run).classify(small.test_images[0])
    assert answer["acceptance"] is answer["accepted"] is answer["reason"] is None


def test_the_threshold_is_in_the_manifest(small_run, classifier):
    manifest = small_run.manifest()
    assert manifest["acceptance_threshold"] == pytest.approx(classifier.acceptance.threshold, rel=1e-5)
    assert manifest["acceptance"]["threshold"] == pytest.approx(manifest["acceptance_threshold"], rel=1e-5)
    assert len((small_run.folder / "manifest.json").read_text()) < 60_000


def remove(name):
    return lambda folder: (folder / name).unlink()


def rewrite(name, **changes):
    def change(folder):
        document = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**document, **changes}))

    return change


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


BAD_RUNS = {
    "empty": (empty, "is empty; expected the folder of a run"),
    "no config": (remove("config.json"), "not the folder of a run: it has no config.json"),
    "no manifest": (remove("manifest.json"), "not finished; `fmnist export"),
    "no model": (remove("model.onnx"), r"model.onnx is missing; `fmnist export"),
    "another model": (write("model.onnx", "x"), "not the file that its manifest names"),
    "half a config": (write("config.json", '{"format_version": 1, "cre'), "config.json is damaged"),
    "a list": (write("config.json", "[]"), "config.json is damaged"),
    "half a manifest": (write("manifest.json", "{"), "manifest.json is damaged"),
    "config of the future": (
        rewrite("config.json", format_version=2),
        "format version 2; this fmnist reads version 1",
    ),
    "manifest of the future": (rewrite("manifest.json", format_version=9), "format version 9"),
    "an unknown setting": (rewrite("config.json", config={"colour": "red"}), "config.json is damaged"),
    "no hashes": (rewrite("manifest.json", sha256=None), "manifest.json is damaged .its sha256 is missing"),
    "no names": (rewrite("manifest.json", class_names="abc"), "its class_names is missing or not 1 to 10 different"),
    "too few names": (rewrite("manifest.json", class_names=["a", "b"]), "knows 10 classes, but 2 are named"),
    "acceptance without a part": (rewrite("manifest.json", acceptance={"low": 1.0}), "damaged .its acceptance"),
    "acceptance of words": (rewrite("manifest.json", acceptance="high"), "damaged .its acceptance"),
    "no time": (rewrite("config.json", created="yesterday"), "config.json is damaged"),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_a_bad_run_is_named_in_one_line(copied_run, case):
    damage, expected = BAD_RUNS[case]
    damage(copied_run.folder)
    with pytest.raises(FmnistError, match=expected) as caught:
        fmnist.Classifier.load(copied_run.folder)
    assert "\n" not in str(caught.value)


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(FmnistError, match=r"no run folder .*none; `fmnist train` makes one"):
        fmnist.Classifier.load(tmp_path / "none")


def test_a_graph_that_is_none_is_refused():
    with pytest.raises(FmnistError, match="damaged or no ONNX file"):
        fmnist.Classifier(b"nonsense", ["a"])


def test_damaged_weights_are_named(copied_run):
    whole = copied_run.weights_path.read_bytes()
    copied_run.weights_path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FmnistError, match=r"weights.safetensors is damaged"):
        fmnist.load_model(copied_run)


def test_export_again_gives_the_same_answers(copied_run, classifier, small):
    """Not the same file: Keras numbers the names in a graph through a process."""
    before = copied_run.manifest()
    after = export.finish(copied_run)
    for name in ("temperature", "views", "class_names", "epochs_trained"):
        assert after[name] == before[name]
    again = fmnist.Classifier.load(copied_run)
    assert (again.predict(small.test_images) == classifier.predict(small.test_images)).all()


def test_the_temperature_is_that_of_the_validation_images(small_run, small):
    """Worked out again from the shipped probabilities, which have the temperature inside."""
    from fmnist import metrics

    parts = data.split(small, small_run.config.seed)
    manifest = small_run.manifest()
    logs = np.log(fmnist.Classifier.load(small_run).predict(parts.val_images) + 1e-30) * manifest["temperature"]
    assert metrics.temperature(logs, parts.val_labels) == pytest.approx(manifest["temperature"], rel=0.01)
    assert manifest["validation"]["accuracy"] == (logs.argmax(axis=1) == parts.val_labels).mean()
    assert manifest["calibrated_by"] == small_run.name


def test_weights_that_are_not_finite_are_not_exported(copied_run):
    from safetensors.numpy import save_file

    weights = model.read_weights(copied_run)
    save_file({name: values * np.float32("nan") for name, values in weights.items()}, copied_run.weights_path)
    (copied_run.folder / "manifest.json").unlink()
    before = copied_run.onnx_path.read_bytes()
    with pytest.raises(FmnistError, match="are not finite: training diverged"):
        export.finish(copied_run)
    assert copied_run.onnx_path.read_bytes() == before


def test_an_export_that_disagrees_is_not_accepted(copied_run, monkeypatch):
    """Break the graph on its way into the file, and see that the old files stay."""
    before = idx.sha256(copied_run.onnx_path.read_bytes())
    real = export._to_onnx

    def tampered(graph):
        proto = onnx.load_from_string(real(graph))
        tensor = max(proto.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
        array = onnx.numpy_helper.to_array(tensor) + np.float32(0.01)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        return proto.SerializeToString()

    monkeypatch.setattr(export, "_to_onnx", tampered)
    with pytest.raises(FmnistError, match="disagrees with Keras"):
        export.finish(copied_run)
    assert idx.sha256(copied_run.onnx_path.read_bytes()) == before
    assert fmnist.Classifier.load(copied_run)


def test_newest_goes_by_the_time_in_the_config(small_run, tmp_path):
    import shutil

    for name, created in (("a", "2026-01-02"), ("b", "2026-01-03"), ("c", "2026-01-01")):
        shutil.copytree(small_run.folder, tmp_path / name)
        rewrite("config.json", created=f"{created}T00:00:00+00:00")(tmp_path / name)
    shutil.copytree(small_run.folder, tmp_path / "d")
    remove("manifest.json")(tmp_path / "d")
    (tmp_path / "e").mkdir()
    assert runs.newest_finished(tmp_path).folder == tmp_path / "b"
    with pytest.raises(FmnistError, match="no finished run in"):
        runs.newest_finished(tmp_path / "e")
