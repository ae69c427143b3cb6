"""Configurations: presets, changes, refusals, and a faithful way through JSON."""

import json
from typing import get_type_hints

import pytest

from fmnist.config import BOUNDS, PRESETS, Config
from fmnist.errors import FmnistError


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_survives_json(preset):
    config = Config.from_preset(preset, seed=3, epochs=2)
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.preset == preset


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("fats", {}, "unknown preset 'fats'; expected one of textbook, fast"),
        ("fast", {"epoch": 3}, "unknown setting epoch"),
        ("fast", {"epochs": 0}, "epochs is 0; expected"),
        ("fast", {"batch_size": -1}, "batch_size is -1; expected"),
        ("fast", {"seed": -1}, "seed is -1; expected"),
        ("fast", {"seed": 2**31}, "expected a whole number from 0"),
    ],
)
def test_what_cannot_be_is_refused(preset, changes, message):
    with pytest.raises(FmnistError, match=message):
        Config.from_preset(preset, **changes)


def test_every_number_has_its_bounds():
    numbers = {name for name, hint in get_type_hints(Config).items() if hint in {int, float}}
    assert numbers == set(BOUNDS)


BAD_SETTINGS = [
    ({"views": None}, "not a configuration"),
    ({"views": [[1]]}, "views is"),
    ({"views": []}, "expected 1 to 64"),
    ({"views": [[False, 0, 0]] * 65}, "expected 1 to 64"),
    ({"views": [[False, 0, 15]]}, "shifted by at most 14"),
    ({"views": [[0, 0, 0]]}, "views is"),
    ({"colour": "red"}, "not a configuration"),
    ({"epochs": "many"}, "epochs is many; expected a whole number from 1 to 5000"),
    ({"epochs": 3.0}, "epochs is 3.0"),
    ({"epochs": True}, "epochs is True"),
    ({"epochs": 10**9}, "epochs is 1000000000"),
    ({"batch_size": 10**12}, "batch_size is"),
    ({"learning_rate": float("nan")}, "learning_rate is nan; expected a number from 0 to 1000"),
    ({"learning_rate": float("inf")}, "learning_rate is inf"),
    ({"learning_rate": -1}, "learning_rate is -1"),
    ({"visited": 0}, "visited is 0"),
    ({"shift": 10**6}, "shift is 1000000; expected a whole number from 0 to 14"),
    ({"flip": 1}, "flip is 1; expected true or false"),
    ({"network": "os.system"}, "network is os.system; expected one of textbook, whitened"),
    ({"precision": "float8"}, "precision is float8"),
    ({"data": 5}, "data is 5"),
    ({"data": "x" * 5_000}, "data is xxx"),
    ({"preset": None}, "preset is None; expected a short text"),
]


@pytest.mark.parametrize(("change", "message"), BAD_SETTINGS, ids=str)
def test_a_setting_of_a_stranger_is_refused_in_one_short_line(change, message):
    with pytest.raises(FmnistError, match=message) as caught:
        Config.from_json({**PRESETS["fast"].to_json(), **change})
    assert len(str(caught.value)) < 300
