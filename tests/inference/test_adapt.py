"""Models for other classes from a few photos of each."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import tree
from PIL import Image, ImageDraw

import fmnist
from fmnist.errors import FmnistError
from fmnist.files import sha256
from fmnist.inference import adapt as module
from fmnist.inference.adapt import adapt
from fmnist.inference.color import NUM_FEATURES
from fmnist.inference.discriminant import class_scores, fit_and_score, softmax

NAMES = ("9", "10", "disc", "grid")
NUM_PHOTOS = 6


def draw(name, seed):
    """Draw a thing of a class on a noisy ground, in a color of its own."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(150, 190, (180, 160, 3), np.uint8))
    pen, color = ImageDraw.Draw(picture), tuple(map(int, rng.integers(0, 100, 3)))
    left, top = rng.integers(15, 40, 2).tolist()
    right, bottom = left + 100, top + 110
    if name == "disc":
        pen.ellipse((left, top, right, bottom), fill=color)
    elif name == "grid":
        for offset in range(0, 101, 20):
            pen.line((left + offset, top, left + offset, bottom), fill=color, width=6)
            pen.line((left, top + offset, right, top + offset), fill=color, width=6)
    elif name == "9":
        pen.polygon((left, bottom, (left + right) // 2, top, right, bottom), fill=color)
    else:
        pen.rectangle((left + 40, top, left + 58, bottom), fill=color)
    return picture


def write_photos(folder, names=NAMES, num_photos=NUM_PHOTOS):
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(num_photos):
            draw(name, 100 * label + number).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """The photos, the folder of a model, and what `adapt` returned."""
    root = tmp_path_factory.mktemp("adapt")
    photos = write_photos(root / "photos")
    record, skipped = adapt(photos, root / "model")
    return SimpleNamespace(photos=photos, folder=root / "model", record=record, skipped=skipped)


@pytest.fixture
def copied(adapted, tmp_path):
    return shutil.copytree(adapted.folder, tmp_path / "model")


def edit(folder, **changes):
    path = folder / "adapted.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def replace_weights(folder, weights):
    np.save(folder / "adapted.npy", weights, allow_pickle=True)
    edit(folder, sha256=sha256((folder / "adapted.npy").read_bytes()))


def test_drawn_classes_are_told_apart(adapted):
    classifier = fmnist.Classifier.load(adapted.folder)
    assert classifier.class_names == NAMES  # numbers by value
    for label, name in enumerate(NAMES):
        prediction = classifier.classify(draw(name, 1_000 + label))
        assert (prediction.label, prediction.class_index) == (name, label)
        assert prediction.accepted == (prediction.confidence >= adapted.record.threshold)
        assert prediction.accepted == (prediction.reason is None)
        assert sum(each.probability for each in prediction.top) == pytest.approx(1)
        assert (prediction.model, prediction.kind) == (str(adapted.folder), "photo")
        assert list(prediction.steps) == ["original", "mask", "crop"]


def test_record_has_the_scores(adapted):
    record = adapted.record
    assert record.num_photos == (NUM_PHOTOS,) * len(NAMES)
    low, high = record.accuracy_interval_95
    assert low <= record.accuracy <= high
    assert record.accuracy > 0.8
    assert record.accuracy_accepted >= 0.97
    assert not adapted.skipped
    assert json.loads((adapted.folder / "adapted.json").read_text()) == json.loads(json.dumps(record.to_json()))
    assert {path.name for path in adapted.folder.iterdir()} == {"adapted.json", "adapted.npy"}


def test_same_photos_give_the_same_model(adapted, tmp_path):
    adapt(adapted.photos, tmp_path / "again")
    assert tree(tmp_path / "again") == tree(adapted.folder)


def test_a_list_is_classified_and_errors_name_the_item(adapted, tmp_path):
    classifier = fmnist.Classifier.load(str(adapted.folder))
    first, second = classifier.classify([draw("disc", 1), draw("grid", 2)])
    assert (first.label, second.label) == ("disc", "grid")
    with pytest.raises(FmnistError, match="item 1"):
        classifier.classify([draw("disc", 1), tmp_path / "none.png"])


def test_a_small_picture_is_answered_as_a_photo(adapted):
    prediction = fmnist.Classifier.load(adapted.folder).classify(np.zeros((28, 28), np.uint8))
    assert prediction.kind in {"photo", "product shot"}
    assert prediction.label in NAMES


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.predict(np.zeros((1, 28, 28), np.uint8)),
        lambda model: model.outputs(np.zeros((1, 28, 28), np.uint8)),
        lambda model: model.classify(draw("disc", 1), kind="image"),
    ],
    ids=["predict", "outputs", "as image"],
)
def test_what_an_adapted_model_cannot_do_is_refused(adapted, call):
    with pytest.raises(FmnistError, match="is an adapted model, which takes"):
        call(fmnist.Classifier.load(adapted.folder))


SHAPE = NUM_FEATURES + 1, len(NAMES)


def weights_of(value=0.0, shape=SHAPE, dtype=np.float32):
    return lambda folder: replace_weights(folder, np.full(shape, value, dtype))


def link(folder):
    path = folder / "adapted.npy"
    path.rename(folder / "other.npy")
    path.symlink_to("other.npy")


DAMAGES = {
    "changed weights": (lambda folder: (folder / "adapted.npy").write_bytes(b"\x93NUMPY"), "SHA-256 differs"),
    "no weights": (lambda folder: (folder / "adapted.npy").unlink(), "is missing"),
    "a link": (link, "is a symbolic link"),
    "oversized weights": (lambda folder: os.truncate(folder / "adapted.npy", 2**21), "expected at most"),
    "oversized record": (lambda folder: os.truncate(folder / "adapted.json", 2**21), "expected at most"),
    "no array": (
        lambda folder: ((folder / "adapted.npy").write_bytes(b"weights"), edit(folder, sha256=sha256(b"weights"))),
        "is damaged or no array",
    ),
    "objects": (weights_of(None, dtype=object), "Python objects"),
    "another type": (weights_of(dtype=np.float64), "expected finite float32"),
    "another shape": (weights_of(shape=(10, 4)), "expected finite float32"),
    "NaN": (weights_of(np.nan), "expected finite float32"),
    "another network": (lambda folder: edit(folder, color_sha256="0" * 64), "another version of fmnist"),
    "a temperature of 0": (lambda folder: edit(folder, temperature=0), "temperature"),
    "the same name twice": (lambda folder: edit(folder, class_names=["a", "a", "b", "c"]), "class_names"),
    "a class without a number": (lambda folder: edit(folder, num_photos=[5]), "num_photos"),
    "an unknown field": (lambda folder: edit(folder, code="print()"), "code"),
    "another format": (lambda folder: edit(folder, format_version=1), "format version 1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_foreign_files_are_refused_in_one_line(damage, copied, cli):
    change, message = DAMAGES[damage]
    change(copied)
    with pytest.raises(FmnistError, match=message):
        fmnist.Classifier.load(copied)
    code, out, err = cli("predict", "--model", copied, "picture.png")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err


def remove_class(folder):
    for name in NAMES[1:]:
        shutil.rmtree(folder / name)


def remove_photos(folder):
    for number in range(2):
        (folder / "disc" / f"{number}.png").unlink()


def damage_photos(folder):
    for number in range(2):
        (folder / "disc" / f"{number}.png").write_bytes(b"no picture")


def nest(folder):
    classes = list(folder.iterdir())
    for part in ("train", "test"):
        (folder / part).mkdir()
        for path in classes:
            shutil.copytree(path, folder / part / path.name)
    for path in classes:
        shutil.rmtree(path)


UNSUITABLE = {
    "parts of a data set": (nest, "has parts with a folder of pictures for each class; name one of them: "),
    "no folder": (shutil.rmtree, "no folder"),
    "no class": (lambda folder: (shutil.rmtree(folder), folder.mkdir()), "0 class folders"),
    "one class": (remove_class, "1 class folders; expected a folder of photos for each of at least 2"),
    "too few": (remove_photos, r"too few photos of disc \(4\)"),
    "an empty class": (lambda folder: (folder / "empty").mkdir(), r"too few photos of empty \(0\)"),
    "too few good ones": (damage_photos, r"disc \(4\); expected at least 5 of each class\. Skipped: .*is not a pic"),
    "a name": (lambda folder: (folder / "disc").rename(folder / "a\u202eb"), "control character U\\+202E"),
    "a file": (lambda folder: (shutil.rmtree(folder), folder.write_text("")), "no folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSUITABLE)
def test_unsuitable_folders_are_refused_in_one_line(case, adapted, tmp_path):
    photos = shutil.copytree(adapted.photos, tmp_path / "photos")
    change, message = UNSUITABLE[case]
    change(photos)
    with pytest.raises(FmnistError, match=message) as caught:
        adapt(photos, tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"photos"}


def test_too_many_photos_are_refused(adapted, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_PHOTOS", 10)
    with pytest.raises(FmnistError, match="4 classes and 24 files; expected at most"):
        adapt(adapted.photos, tmp_path / "model")


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("nowhere")])
def test_what_exists_is_not_replaced(make, adapted, tmp_path):
    make(tmp_path / "model")
    with pytest.raises(FmnistError, match="model exists; expected a new folder"):
        adapt(adapted.photos, tmp_path / "model")


def test_what_cannot_be_used_is_skipped_and_named(adapted, tmp_path, cli):
    photos = shutil.copytree(adapted.photos, tmp_path / "photos")
    shutil.copy(photos / "disc" / "0.png", photos / "grid" / "copy.png")
    (photos / "9" / "damaged.jpg").write_bytes((photos / "9" / "0.png").read_bytes()[:500])
    (photos / "9" / "inner").mkdir()
    (photos / "9" / ".DS_Store").write_bytes(b"hidden")
    (photos / "notes.txt").write_text("beside the classes")
    code, out, err = cli("adapt", photos, "--out", tmp_path / "new" / "model", "--json")
    assert code == 0
    document = json.loads(out)
    reasons = {os.path.relpath(each["file"], photos): each["error"] for each in document["skipped"]}
    expected = {
        "notes.txt": "is in no class folder", "9/damaged.jpg": "cannot be read", "9/inner": "is a folder",
        "grid/copy.png": "shows the same as",
    }  # fmt: skip
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in reasons[name]
        assert reasons[name] in err
    assert document["model"] == str(tmp_path / "new" / "model")
    assert tree(tmp_path / "new" / "model") == tree(adapted.folder)


def test_command_prints_the_scores_and_predict_takes_the_model(adapted, tmp_path, cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = cli("adapt", adapted.photos, "--out", "my model")
    assert code == 0
    assert "right (95 % interval" in out
    assert "Confidence threshold" in out
    assert "`fmnist predict --model 'my model' photo.jpg` uses it" in out
    code, out, err = cli("predict", "--model", "my model", adapted.photos / "disc", "--json", "--steps", "steps")
    assert code == 0
    assert "Model: my model" in err
    assert [each["label"] for each in json.loads(out)] == ["disc"] * NUM_PHOTOS
    assert len(list((tmp_path / "steps").iterdir())) == NUM_PHOTOS


def test_an_interrupted_command_leaves_nothing(adapted, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(adapted.photos, tmp_path / "model", interrupt)
    monkeypatch.setattr(module, "write_document", interrupt)
    with pytest.raises(KeyboardInterrupt):
        adapt(adapted.photos, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_only_inference_dependencies_are_imported(adapted, tmp_path):
    script = (
        "import sys; from pathlib import Path; from fmnist.inference.adapt import adapt\n"
        "adapt(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", script, adapted.photos, tmp_path / "model"]
    imported = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "onnxruntime" in imported
    assert not imported & {"scipy", "sklearn", "keras", "tensorflow", "safetensors", "onnx", "matplotlib"}


def separated(distance, num_examples=40, width=30):
    rng = np.random.default_rng(0)
    labels = np.arange(num_examples) % 2
    return rng.normal(size=(num_examples, width)) + distance * labels[:, np.newaxis], labels


def test_noise_is_not_called_accurate():
    features, labels = separated(0.0)
    weights, scores = fit_and_score(features, labels)
    low, high = scores["accuracy_interval_95"]
    assert low < 0.5 < high
    assert softmax(class_scores(weights, features) / scores["temperature"]).max() < 0.95


def test_many_classes_of_noise_are_not_accepted():
    rng = np.random.default_rng(0)
    _, scores = fit_and_score(rng.normal(size=(100, 30)), np.arange(100) % 20)
    assert (scores["accepted"], scores["accuracy_accepted"], scores["threshold"]) == (0, None, 1)


def test_certainty_grows_with_the_number_of_examples():
    top = []
    for num_examples in (10, 200):
        features, labels = separated(2.0, num_examples)
        weights, scores = fit_and_score(features, labels)
        assert scores["accuracy"] == 1
        top.append(softmax(class_scores(weights, separated(2.0)[0]) / scores["temperature"]).max(axis=1).mean())
    assert top[0] < top[1]


def test_equal_examples_in_each_class_have_weights():
    features = np.repeat(np.eye(3), 5, axis=0)
    weights, scores = fit_and_score(features, np.repeat(np.arange(3), 5))
    assert np.isfinite(weights).all()
    assert scores["accuracy"] == 1
