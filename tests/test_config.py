"""Configurations: presets, changes, bounds, and JSON."""

import json
import math

import msgspec
import pytest
from msgspec.structs import fields, replace

from fmnist.config import IDENTITY_VIEW, PRESETS, Config
from fmnist.errors import FmnistError


def from_json(values):
    return msgspec.convert(values, Config)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_survives_json(preset):
    config = Config.from_preset(preset, seed=3, epochs=2)
    assert from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.preset == preset


def test_every_number_has_bounds():
    for field in fields(Config):
        if field.type in {int, float}:
            pytest.fail(f"{field.name} has no bounds")


def test_whole_numbers_become_floats_where_floats_are_declared():
    """Otherwise a configuration and its copy from a file would have different hashes."""
    config = Config.from_preset("fast", learning_rate=1)
    assert json.dumps(config.to_json()) == json.dumps(from_json(config.to_json()).to_json())
    assert isinstance(config.learning_rate, float)


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("fats", {}, "unknown preset 'fats'; expected one of textbook, fast"),
        ("fast", {"epoch": 3}, "unknown setting epoch; did you mean epochs\\? expected one of preset, network, epochs"),
    ],
)
def test_unknown_names_are_refused(preset, changes, message):
    with pytest.raises(FmnistError, match=message):
        Config.from_preset(preset, **changes)


INVALID = [
    ({"tta_views": None}, "tta_views is None; expected array, got null"),
    ({"tta_views": [[1]]}, "expected array of length 3, got 1"),
    ({"tta_views": []}, "expected array of length >= 1"),
    ({"tta_views": [[False, 0, 0]] * 65}, "expected array of length <= 64"),
    ({"tta_views": [[False, 0, 15]]}, "expected int <= 14"),
    ({"tta_views": [[0, 0, 0]]}, "expected bool, got int"),
    ({"epochs": "many"}, "epochs is many; expected int, got str"),
    ({"epochs": 3.5}, "epochs is 3.5; expected int, got float"),
    ({"epochs": True}, "epochs is True; expected int, got bool"),
    ({"epochs": 0}, "epochs is 0; expected int >= 1"),
    ({"epochs": 10**9}, "epochs is 1000000000; expected int <= 5000"),
    ({"batch_size": -1}, "batch_size is -1"),
    ({"batch_size": 10**12}, "batch_size is 1000000000000"),
    ({"learning_rate": math.nan}, "learning_rate is nan; expected float >= 0"),
    ({"learning_rate": math.inf}, "learning_rate is inf; expected float <= 1000"),
    ({"learning_rate": "1"}, "learning_rate is 1; expected float, got str"),
    ({"hard_example_fraction": 0}, "hard_example_fraction is 0"),
    ({"shift": 10**6}, "shift is 1000000; expected int <= 14"),
    ({"seed": -1}, "seed is -1; expected int >= 0"),
    ({"seed": 2**31}, "seed is 2147483648"),
    ({"flip": 1}, "flip is 1; expected bool . str, got int"),
    ({"network": "os.system"}, "network is os.system; expected one of textbook, fast"),
    ({"precision": "float8"}, "precision is float8; expected one of auto"),
    ({"data": 5}, "data is 5"),
    ({"data": "x" * 5_000}, "data is xxx"),
    ({"preset": None}, "preset is None; expected str, got null"),
]


@pytest.mark.parametrize(("change", "message"), INVALID, ids=str)
def test_an_invalid_setting_is_refused_however_it_is_set(change, message):
    """By a constructor call, by a changed copy, and in a file: msgspec alone checks only the last."""
    valid = {name: getattr(PRESETS["fast"], name) for name in Config.__struct_fields__}
    for make in (lambda: Config(**{**valid, **change}), lambda: replace(PRESETS["fast"], **change)):
        with pytest.raises(FmnistError, match=message) as caught:
            make()
        assert len(str(caught.value)) < 300
    with pytest.raises((FmnistError, msgspec.ValidationError)):
        from_json({**PRESETS["fast"].to_json(), **change})


def test_unknown_fields_in_a_file_are_refused():
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        from_json({**PRESETS["fast"].to_json(), "colour": "red"})


@pytest.mark.parametrize("preset", ["fast", "best", "photo"])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shift", [0, 1])
def test_views_follow_flip_and_shift(preset, flip, shift):
    for config in (
        Config.from_preset(preset, flip=flip, shift=shift),
        replace(replace(PRESETS[preset], flip=flip), shift=shift),
        Config.from_preset(preset, shift=shift).resolve(flip),
    ):
        assert len(config.tta_views) == (1 + flip) * (5 if shift else 1)
        assert any(is_mirrored for is_mirrored, *_ in config.tta_views) == flip
        assert any(down or right for _, down, right in config.tta_views) == bool(shift)
        assert config.tta_views[0] == IDENTITY_VIEW
        assert from_json(config.to_json()) == config


def test_other_data_is_flipped_if_asked_for_only():
    assert Config.from_preset("fast").flip == "auto"
    assert Config.from_preset("fast").resolve(True).flip is True
    assert Config.from_preset("fast").resolve(False).flip is False
    assert Config.from_preset("fast", flip=True).resolve(False).flip is True
    assert Config.from_preset("fast", flip=False).resolve(True).flip is False
    assert Config.from_preset("textbook").resolve(True).flip is False


@pytest.mark.parametrize(
    ("given", "is_fashion_mnist", "on_gpu", "expected"),
    [({}, True, True, 1_000), ({}, True, False, 512), ({}, False, True, 512), ({"batch_size": 64}, True, True, 64)],
)
def test_batches_are_larger_on_a_gpu_for_fashion_mnist(given, is_fashion_mnist, on_gpu, expected):
    assert Config.from_preset("best", **given).resolve(is_fashion_mnist, on_gpu).batch_size == expected


def test_views_that_are_all_excluded_leave_the_image_itself():
    assert Config.from_preset("fast", tta_views=[(True, 0, 0)], flip=False).tta_views == (IDENTITY_VIEW,)


@pytest.mark.parametrize(("fraction", "expected"), [(1.0, None), (0.5, 3), (0.3, 5), (0.9, 3), (0.1, 11)])
def test_hard_epochs_begin_once_every_image_was_used(fraction, expected):
    assert replace(PRESETS["fast"], hard_example_fraction=fraction).first_hard_epoch == expected


def test_custom_is_not_offered():
    """It stands for an object that is passed in Python."""
    with pytest.raises(FmnistError, match="optimizer is SGD; expected one of muon") as raised:
        Config.from_preset("fast", optimizer="SGD")
    assert "custom" not in str(raised.value)
