"""Loading models, and predictions for images and photos."""

import io
import json

import numpy as np
import onnx
import pytest
from PIL import Image

import fmnist
from fmnist.data.dataset import CLASS_NAMES
from fmnist.errors import FmnistError
from fmnist.inference import photo


def test_a_graph_with_the_former_input_num_views_is_opened(small_run, small):
    """Runs of earlier versions have it, with a default value."""
    model = onnx.load(small_run.onnx_path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("num_views", onnx.TensorProto.INT32, []))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(10, np.int32), "num_views"))
    opened = fmnist.Classifier(model.SerializeToString(), CLASS_NAMES, "old")
    assert opened.predict(small.test_images[:3]).shape == (3, 10)


@pytest.mark.parametrize("num_images", [0, 1, 99, 101, 250])
def test_every_image_gets_a_prediction(classifier, num_images):
    images = np.zeros((num_images, 28, 28), np.uint8)
    assert classifier.predict(images).shape == (num_images, 10)


@pytest.mark.parametrize(
    "images", [np.zeros((1, 28, 28)), np.zeros((28, 28), np.uint8), np.zeros((1, 28, 28, 1), np.uint8)]
)
def test_images_of_another_shape_or_dtype_are_refused(classifier, images):
    with pytest.raises(FmnistError, match="expected uint8 of shape"):
        classifier.predict(images)


def test_an_image_as_file_and_as_array_gives_the_same_prediction(classifier, small, tmp_path):
    Image.fromarray(small.test_images[0]).save(tmp_path / "picture.png")
    prediction = classifier.classify(tmp_path / "picture.png")
    assert prediction == classifier.classify(small.test_images[0])
    assert prediction.label == CLASS_NAMES[prediction.class_index]
    assert prediction.model == classifier.name
    assert 0 <= prediction.confidence <= 1
    assert prediction.accepted == (prediction.reason is None)
    assert (prediction.label, prediction.probability) == (prediction.top[0].label, prediction.top[0].probability)
    probabilities = [item.probability for item in prediction.top]
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


INVALID_PICTURES = {
    "too small": (picture("L", (20, 32)), "20x32 pixels; expected at least 28 each way"),
    "another format": (picture("L", (28, 28), "ico"), "is not a picture"),
    "text": (content(b"hello"), "is not a picture"),
    "an empty file": (content(b""), "is empty"),
    "a truncated picture": (content(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), "not a picture|cannot be read"),
    "a missing file": (lambda path: path, "is missing; name a picture file"),
    "a folder": (lambda path: path.parent, "is a folder"),
}


@pytest.mark.parametrize("case", INVALID_PICTURES)
def test_an_invalid_picture_is_refused_in_one_line(classifier, tmp_path, case):
    write, expected = INVALID_PICTURES[case]
    path = write(tmp_path / "picture")
    with pytest.raises(FmnistError, match=expected) as caught:
        classifier.classify(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_list_gives_a_list_of_predictions(classifier, small, tmp_path):
    image = small.test_images[0]
    Image.fromarray(image).save(tmp_path / "picture.png")
    content = (tmp_path / "picture.png").read_bytes()
    sources = [tmp_path / "picture.png", content, io.BytesIO(content), image, image[..., np.newaxis],
               Image.fromarray(image), np.dstack([image] * 3)]  # fmt: skip
    expected = classifier.classify(image).to_json()
    for several in (sources[:2], tuple(sources[2:])):
        predictions = classifier.classify(several if isinstance(several, tuple) else list(several))
        assert [prediction.to_json() for prediction in predictions] == [expected] * len(several)
    assert classifier.classify([]) == []


def test_the_error_for_a_list_names_the_index(classifier, small):
    with pytest.raises(FmnistError, match=r"^item 1 is not a picture \(a text\)"):
        classifier.classify([small.test_images[0], b"hello"])
    with pytest.raises(FmnistError, match=r"^item 1: none.png is missing"):
        classifier.classify([small.test_images[0], "none.png"])


def test_the_kind_is_in_the_prediction_and_can_be_given(classifier, small):
    image = small.test_images[0]
    assert classifier.classify(image).kind == "image"
    assert classifier.classify(255 - image).kind == "product shot"
    assert classifier.classify(image, kind="photo").kind == "photo"
    assert classifier.classify(255 - image, kind="image").kind == "image"
    assert [item.kind for item in classifier.classify([image, 255 - image], kind="image")] == ["image", "image"]
    with pytest.raises(FmnistError, match="kind is 'scan'; expected 'image', 'photo' or None"):
        classifier.classify(image, kind="scan")


def test_an_image_on_white_needs_more_confidence(classifier, small):
    predictions = [classifier.classify(255 - image) for image in small.test_images[:60]]
    accepted = [prediction for prediction in predictions if prediction.accepted]
    threshold = (1 + classifier.rejection_rule.threshold) / 2
    assert min(prediction.confidence for prediction in accepted) >= threshold
    assert {prediction.reason for prediction in predictions if not prediction.accepted} == {photo.FEW_PIXELS}


def test_a_model_of_other_classes_takes_gray_images_on_any_ground(classifier, small_run, small):
    names = [f"letter {number}" for number in range(10)]
    other = fmnist.Classifier(small_run.onnx_path.read_bytes(), names)
    assert other.classify(255 - small.test_images[0]).kind == "image"


def test_the_error_for_bytes_has_the_given_name(classifier):
    with pytest.raises(FmnistError, match=r"^upload is not a picture"):
        classifier.classify(b"hello", name="upload")


def test_path_bytes_and_picture_give_the_same_prediction(classifier, tmp_path):
    scene = Image.new("RGB", (300, 400), (200, 180, 160))
    scene.paste((30, 30, 80), (100, 50, 200, 350))
    scene.save(tmp_path / "scene.png")
    prediction = classifier.classify(tmp_path / "scene.png")
    assert prediction == classifier.classify(str(tmp_path / "scene.png"))
    assert prediction == classifier.classify((tmp_path / "scene.png").read_bytes())
    assert prediction == classifier.classify(scene)
    assert prediction.steps == photo.convert(scene).steps


@pytest.mark.parametrize(
    "image", [np.zeros((28, 28)), np.zeros((28, 28, 2), np.uint8), np.zeros((1, 28, 28), np.uint8)]
)
def test_an_array_of_another_shape_or_dtype_is_refused(classifier, image):
    with pytest.raises(FmnistError, match="expected uint8 of shape"):
        classifier.classify(image)


def test_most_clean_images_are_accepted_and_the_others_have_a_reason(classifier, small):
    predictions = [classifier.classify(image) for image in small.test_images]
    assert np.mean([prediction.accepted for prediction in predictions]) > 0.8
    reasons = {prediction.reason for prediction in predictions if not prediction.accepted}
    assert all(reason.startswith(("between ", "not like any of the ten classes")) for reason in reasons)


def test_noise_has_lower_confidence_than_garments(classifier, small):
    noise = np.random.default_rng(0).integers(0, 256, (200, 28, 28), np.uint8)
    garment_confidence, noise_confidence = (
        classifier.rejection_rule.confidence(outputs) for outputs in map(classifier.outputs, (small.test_images, noise))
    )
    assert np.median(garment_confidence) > np.quantile(noise_confidence, 0.9)


@pytest.mark.parametrize(
    ("problem", "is_accepted", "reason"),
    [
        (None, True, None),
        (photo.TOO_DARK, True, None),  # a reason only for predictions that have low confidence anyway
        (photo.NOTHING_FOUND, False, photo.NOTHING_FOUND),
    ],
)
def test_a_prediction_is_rejected_if_nothing_was_found(classifier, small, monkeypatch, problem, is_accepted, reason):
    image = small.test_images[0]
    monkeypatch.setattr(photo, "convert", lambda *_, **__: photo.Conversion(image, {}, "image", problem))
    prediction = classifier.classify(image)
    assert (prediction.accepted, prediction.reason) == (is_accepted, reason)
    assert (prediction.confidence == 0) == (problem == photo.NOTHING_FOUND)


def rewrite(name, **changes):
    def change(folder):
        document = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**document, **changes}))

    return change


def test_a_model_without_a_rejection_rule_has_no_confidence(copied_run, small):
    rewrite("manifest.json", rejection_rule=None)(copied_run.folder)
    prediction = fmnist.Classifier.load(copied_run).classify(small.test_images[0])
    assert prediction.confidence is prediction.accepted is prediction.reason is None


def test_the_rejection_rule_comes_from_a_small_manifest(small_run, classifier):
    assert classifier.rejection_rule.to_record() == small_run.manifest().rejection_rule
    assert len(small_run.manifest_path.read_text()) < 60_000


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


INVALID_RUNS = {
    "an empty folder": (empty, "is empty; expected a run folder"),
    "no config": (remove("config.json"), "not a run folder: it has no config.json"),
    "no manifest": (remove("manifest.json"), "not finished; `fmnist export"),
    "no graph": (remove("model.onnx"), r"model.onnx is missing; `fmnist export"),
    "another graph": (write("model.onnx", "x"), "not the file that its manifest names"),
    "half a config": (write("config.json", '{"format_version": 2, "cre'), "config.json is damaged"),
    "a list as config": (write("config.json", "[]"), "config.json is damaged"),
    "half a manifest": (write("manifest.json", "{"), "manifest.json is damaged"),
    "config of an old version": (
        rewrite("config.json", format_version=1),
        "format version 1; this fmnist reads version 2",
    ),
    "manifest of a future version": (rewrite("manifest.json", format_version=9), "format version 9"),
    "an unknown setting": (rewrite("config.json", config={"color": "red"}), "config.json is damaged"),
    "no creation time": (rewrite("config.json", created="yesterday"), "config.json is damaged"),
    "no hashes": (rewrite("manifest.json", sha256=None), r"manifest.json is damaged .*sha256"),
    "no class names": (rewrite("manifest.json", class_names="abc"), r"manifest.json is damaged .*class_names"),
    "too few class names": (rewrite("manifest.json", class_names=["a", "b"]), "has 10 classes; expected 2"),
    "an incomplete rejection rule": (
        rewrite("manifest.json", rejection_rule={"midpoint": 1.0}),
        r"manifest.json is damaged .*rejection_rule",
    ),
    "a string as rejection rule": (
        rewrite("manifest.json", rejection_rule="strict"),
        r"manifest.json is damaged .*rejection_rule",
    ),
}


@pytest.mark.parametrize("case", INVALID_RUNS)
def test_an_invalid_run_is_refused_in_one_line(copied_run, case):
    damage, expected = INVALID_RUNS[case]
    damage(copied_run.folder)
    with pytest.raises(FmnistError, match=expected) as caught:
        fmnist.Classifier.load(copied_run.folder)
    assert "\n" not in str(caught.value)


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(FmnistError, match=r"no run folder .*none; `fmnist train`"):
        fmnist.Classifier.load(tmp_path / "none")


def test_bytes_that_are_not_onnx_are_refused():
    with pytest.raises(FmnistError, match="damaged or not an ONNX file"):
        fmnist.Classifier(b"nonsense", ["a"])
