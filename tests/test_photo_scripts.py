"""The scripts that build the models for photos: drawn things, the color network, the file of photos."""

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmnist.inference.onnx_check import check_graph
from fmnist.inference.runtime import open_session

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


@pytest.fixture
def weights(scripts):
    """Small random weights of all convolutions."""
    import efficientnet

    rng = np.random.default_rng(0)
    found, num_channels = {}, 3
    for each in efficientnet.convolutions():
        shape = (each.size, each.size, *((num_channels, 1) if each.is_depthwise else (num_channels, each.filters)))
        fan_in = each.size**2 * (1 if each.is_depthwise else num_channels)
        kernel = rng.normal(0, np.sqrt(2 / fan_in), shape)
        found[each.name] = (kernel.astype(np.float32), rng.normal(0, 0.1, each.filters).astype(np.float32))
        num_channels = each.filters
    return found


def test_every_kind_of_shape_is_drawn(scripts):
    import other_things

    grounds = [np.full((160, 160, 3), 200, np.uint8)]
    for kind in other_things.SHAPES:
        first, again, other = (
            np.asarray(other_things.draw_thing(kind, np.random.default_rng(seed), grounds)) for seed in (1, 1, 2)
        )
        assert first.shape == (other_things.SIZE, other_things.SIZE, 3), kind
        assert (first == again).all(), kind
        assert (first != other).any(), kind


def test_kinds_that_measure_are_not_trained_on(scripts):
    import other_things

    assert not set(other_things.NOT_TRAINED_ON) & set(other_things.TRAINED_ON)
    assert not other_things.NOT_DRAWN - {*"🎅🎽🎩💼🏇🚣🛀🛍", *map(chr, range(0x1F300, 0x1F700))}


def test_network_has_the_blocks_of_efficientnet_lite0(scripts):
    import efficientnet

    convolutions = efficientnet.convolutions()
    assert len(convolutions) == 1 + 2 + 15 * 3 + 1
    assert sum(each.adds_input for each in convolutions) == 9
    assert np.prod([each.stride for each in convolutions]) == 32


def test_onnx_computes_what_keras_does(weights):
    import efficientnet

    rng = np.random.default_rng(1)
    head = rng.normal(0, 0.03, (efficientnet.NUM_FEATURES, 4)).astype(np.float32), np.zeros(4, np.float32)
    # Only rounded kernels can be compared exactly.
    rounded = {}
    for name, (kernel, bias) in weights.items():
        axes = (0, 1, 3) if kernel.shape[3] == 1 else (0, 1, 2)
        scale = np.abs(kernel).max(axis=axes, keepdims=True) / 127 + 1e-12
        rounded[name] = (np.rint(kernel / scale) * scale).astype(np.float32), bias
    network = efficientnet.build(rounded, -1, efficientnet.NUM_BLOCKS, (224, 224, 3))
    pictures = rng.integers(0, 256, (2, 224, 224, 3), np.uint8)
    features = np.asarray(network((pictures.astype(np.float32) - 127) / 128)).mean(axis=(1, 2))
    logits = features @ head[0] + head[1]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    content = efficientnet.to_onnx(weights, head)
    check_graph(content, "it")
    found, found_features = open_session(content, "it").run(["probabilities", "features"], {"pictures": pictures})
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(found_features, features, atol=1e-3)
    assert len(content) < 4_500_000


def test_normalization_is_folded(scripts):
    import efficientnet

    rng = np.random.default_rng(0)
    convolution = efficientnet.Convolution("conv", "norm", 5, 1, 0)
    tensors = {
        "conv.weight": rng.normal(size=(5, 3, 1, 1)),
        **{f"norm.{part}": rng.uniform(0.5, 2, 5) for part in ("weight", "bias", "running_mean", "running_var")},
    }
    kernel, bias = efficientnet.fold(convolution, tensors)
    values = rng.normal(size=3)
    before = tensors["conv.weight"][:, :, 0, 0] @ values
    normalized = (before - tensors["norm.running_mean"]) / np.sqrt(tensors["norm.running_var"] + 1e-3)
    expected = normalized * tensors["norm.weight"] + tensors["norm.bias"]
    np.testing.assert_allclose(values @ kernel[0, 0] + bias, expected, rtol=1e-5)


def test_weights_that_call_something_are_refused(scripts, tmp_path):
    import efficientnet

    class Call:
        def __reduce__(self):
            return print, ("called",)

    path = tmp_path / "weights.pth"
    path.write_bytes(b"".join(pickle.dumps(value, 2) for value in (1, 2, {})) + pickle.dumps(Call(), 2))
    with pytest.raises(pickle.UnpicklingError, match="print is not expected"):
        efficientnet.read_tensors(path)


def test_tensors_are_read_with_their_strides(scripts, tmp_path):
    import efficientnet

    stream = io.BytesIO()
    for value in (1, 2, {}):
        pickle.dump(value, stream, 2)
    # protocol 2: {"w": torch._utils._rebuild_tensor_v2(storage, offset 0, shape (2, 3), strides (1, 2))}
    content = (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x03\x00\x00\x00keyX\x03\x00\x00\x00cpuK\x06NtQK\x00K\x02K\x03\x86K\x01K\x02\x86tRs."
    )
    stream.write(content)
    pickle.dump(["key"], stream, 2)
    stream.write(struct.pack("<q6f", 6, *range(6)))
    path = tmp_path / "weights.pth"
    path.write_bytes(stream.getvalue())
    assert efficientnet.read_tensors(path)["w"].tolist() == [[0, 2, 4], [1, 3, 5]]


def test_folder_of_photos_is_reduced_and_written(scripts, tmp_path):
    import build_photos

    from fmnist.data.photos import load_photos

    rng = np.random.default_rng(0)
    for index in range(6):
        picture = Image.fromarray(rng.integers(180, 220, (120, 90, 3), np.uint8))
        picture.paste((20, 30, 40 + 5 * index), (25, 20, 65, 100))
        picture.save(tmp_path / f"{index}.png")
    rows = [f"{index}.png,shirt,6" if index < 4 else f"{index}.png,hat," for index in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,category,accepted_classes", *rows]))
    photos = build_photos.read_folder(tmp_path)
    grounds = build_photos.cut_grounds(photos)
    assert all(ground.shape == (160, 160, 3) and ground.min() > 100 for ground in grounds)
    things, kinds = build_photos.draw_things(["box"], 2, grounds)
    build_photos.write(tmp_path / "photos.npz", photos, things, kinds)
    loaded = load_photos(tmp_path / "photos.npz", 10)
    assert loaded.category.tolist() == ["shirt"] * 4 + ["hat"] * 2 + ["box"] * 2
    assert loaded.accepted.any(axis=1).tolist() == [True] * 4 + [False] * 4
    assert set(photos.fold.tolist()) <= set(range(build_photos.NUM_FOLDS))
    assert not loaded.is_held_out[-2:].any()
