"""The color network: what it sees, and how its answer is combined with the other network's."""

import json
import shutil

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

import fmnist
from fmnist.errors import FmnistError
from fmnist.inference import color
from fmnist.inference.color import ColorNetwork, color_views, combine
from fmnist.runs.run import PRETRAINED_FOLDER
from fmnist.runs.schemas import PhotoModelRecord

OUTPUTS = ("t-shirt", "pants", "longsleeve", "dress", "outwear", "shirt", "shoes", "hat", "shorts", "skirt", "other")
RECORD = PhotoModelRecord(
    outputs=OUTPUTS,
    color_weight=0.5,
    temperature=1.0,
    threshold=0.6,
    sha256="0" * 64,
    photos_sha256="0" * 64,
    commit="a",
)
SNEAKER = np.eye(10)[7] * 0.8 + 0.02


def outputs(**probabilities):
    rest = (1 - sum(probabilities.values())) / (len(OUTPUTS) - len(probabilities))
    return np.array([[probabilities.get(name.replace("-", "_"), rest) for name in OUTPUTS]] * 2)


@pytest.mark.parametrize(
    ("by_view", "gray", "none", "label", "looks_like"),
    [
        (outputs(pants=0.9), np.eye(10)[1], 0.0, 1, "a hat"),
        (outputs(shoes=0.9), SNEAKER, 0.1, 7, "a hat"),
        (outputs(shorts=0.9), np.eye(10)[1], 0.9, None, "shorts"),
        (outputs(other=0.9), np.full(10, 0.1), 0.5, None, None),
        (outputs(skirt=0.6, dress=0.3), np.eye(10)[3], 0.3, 3, "a skirt"),
    ],
    ids=["both agree", "kind of shoe", "shorts", "another thing", "they differ"],
)
def test_networks_are_combined(by_view, gray, none, label, looks_like):
    found = combine(RECORD, by_view, gray, none)
    assert found.classes.sum() + found.none == pytest.approx(1)
    assert (found.classes.argmax() if found.classes.max() > found.none else None) == label
    assert found.looks_like == looks_like


def test_weights_of_zero_and_one_are_a_single_network():
    alone = combine(replace(RECORD, color_weight=0.0), outputs(pants=0.9), SNEAKER, 0.25)
    np.testing.assert_allclose(alone.classes, 0.75 * SNEAKER, atol=1e-6)
    alone = combine(replace(RECORD, color_weight=1.0), outputs(pants=0.9), SNEAKER, 0.25)
    assert alone.classes[1] == pytest.approx(0.9, abs=1e-6)


def test_temperature_below_one_makes_the_answer_more_certain():
    warm, cold = (
        combine(replace(RECORD, temperature=value), outputs(pants=0.6), np.eye(10)[1], 0.2).classes.max()
        for value in (1.0, 0.5)
    )
    assert cold > warm


def test_views_are_the_whole_photo_and_the_garment():
    picture = Image.new("RGB", (320, 240), (10, 20, 30))
    picture.paste((200, 100, 50), (160, 60, 200, 180))
    mask = np.zeros((120, 160), bool)
    mask[30:90, 80:100] = True
    whole, cutout = color_views(picture, mask)
    assert whole.shape == cutout.shape == (224, 224, 3)
    assert whole[0, 0].tolist() == [10, 20, 30]
    assert whole[112, 126].tolist() == [200, 100, 50]
    assert cutout[112, 112].tolist() == [200, 100, 50]
    assert cutout[0, 0].tolist() == list(color.GRAY)  # a tall garment is filled to a square
    is_garment = np.abs(cutout.astype(int) - (200, 100, 50)).max(axis=2) < 20
    assert 0.8 < is_garment.any(axis=1).mean() < 0.95  # with a margin


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(PRETRAINED_FOLDER, tmp_path / "pretrained")


def test_a_changed_color_network_is_refused(copied):
    (copied / "color.onnx").write_bytes((copied / "color.onnx").read_bytes()[:-1])
    with pytest.raises(FmnistError, match=r"color\.onnx is not the file that its record names"):
        ColorNetwork.load(copied)


def test_a_record_out_of_bounds_is_refused(copied):
    document = json.loads((copied / "photos.json").read_text())
    (copied / "photos.json").write_text(json.dumps({**document, "threshold": 7}))
    with pytest.raises(FmnistError, match="threshold"):
        ColorNetwork.load(copied)


def test_images_of_the_data_set_are_not_asked_of_the_color_network(small, monkeypatch):
    classifier = fmnist.Classifier.load()
    monkeypatch.setattr(classifier, "color", None)
    alone = classifier.classify(small.test_images[3]).to_json()
    assert fmnist.Classifier.load().classify(small.test_images[3]).to_json() == alone


def test_probabilities_of_a_photo_leave_room_for_none_of_the_classes():
    shapes = Image.new("RGB", (300, 300), (180, 170, 150))
    shapes.paste((200, 30, 30), (60, 60, 240, 240))
    prediction = fmnist.Classifier.load().classify(shapes)
    assert prediction.kind == "photo"
    assert sum(each.probability for each in prediction.top) < 1
    assert prediction.confidence == prediction.probability


@pytest.mark.parametrize(("gray", "reason"), [(8, "too dark: more light would help"), (150, "between ")])
def test_a_dark_photo_is_told_so(monkeypatch, gray, reason):
    rng = np.random.default_rng(0)
    scene = rng.normal(gray, 2, (300, 300, 3)).clip(0, 255).astype(np.uint8)
    scene[60:240, 100:200] = rng.normal(gray + 60, 2, (180, 100, 3))
    found = color.PhotoProbabilities(np.full(10, 0.1), 0.0, None)
    monkeypatch.setattr(ColorNetwork, "combine", lambda *_: found)
    assert fmnist.Classifier.load().classify(scene, kind="photo").reason.startswith(reason)


def test_each_view_is_seen_from_both_sides(monkeypatch):
    network = ColorNetwork.load(PRETRAINED_FOLDER)
    views = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    pictures = []

    class Session:
        def run(self, names, inputs):
            pictures.append(inputs["pictures"])
            return [np.repeat(outputs(pants=0.9)[:1], len(inputs["pictures"]), axis=0)]

    monkeypatch.setattr(network, "_session", Session())
    network.combine(views, SNEAKER, 0.0)
    (both,) = pictures
    np.testing.assert_array_equal(both[:2], views)
    np.testing.assert_array_equal(both[2:], np.flip(views, axis=2))


def test_kinds_of_shoes_have_the_shares_of_the_other_network():
    found = combine(replace(RECORD, color_weight=1.0), outputs(shoes=0.9), SNEAKER, 0.5)
    shoes = found.classes[[5, 7, 9]]
    np.testing.assert_allclose(shoes / shoes.sum(), SNEAKER[[5, 7, 9]] / SNEAKER[[5, 7, 9]].sum(), rtol=1e-6)


@pytest.mark.parametrize("size", [(28, 6_000), (6_000, 28)])
def test_a_narrow_picture_has_views(size):
    picture = Image.new("RGB", size, (230, 220, 210))
    picture.paste((30, 40, 90), (size[0] // 3, size[1] // 3, 2 * size[0] // 3, 2 * size[1] // 3))
    assert 0 <= fmnist.Classifier.load().classify(picture, kind="photo").confidence <= 1
    mask = np.zeros((100, 100), bool)
    mask[10, 50] = True
    assert color_views(picture.resize((320, 1)), mask).shape == (2, 224, 224, 3)


def test_features_are_the_mean_over_the_views_and_their_mirror_images():
    network = ColorNetwork.load(PRETRAINED_FOLDER)
    views = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    features = network.features(views)
    assert features.shape == (color.NUM_FEATURES,)
    assert features.std() > 0
    np.testing.assert_allclose(network.features(np.flip(views, axis=2)), features, atol=1e-4)
    single = np.mean([network.features(view[np.newaxis]) for view in views], axis=0)
    np.testing.assert_allclose(single, features, atol=1e-4)


def test_photos_have_a_threshold_of_their_own():
    pretrained = fmnist.Classifier.load()
    assert pretrained.photo_threshold == pretrained.color.record.threshold
    assert pretrained.threshold == pretrained.rejection_rule.threshold
