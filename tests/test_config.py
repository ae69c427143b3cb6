"""Configurations: presets, changes, refusals, and a faithful way through JSON."""

import json

import pytest

from fmnist.config import PRESETS, Config
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


@pytest.mark.parametrize("change", [{"views": None}, {"views": [[1]]}, {"colour": "red"}, {"epochs": "many"}])
def test_damaged_json_is_refused(change):
    with pytest.raises(FmnistError, match="not a configuration"):
        Config.from_json({**PRESETS["fast"].to_json(), **change})
