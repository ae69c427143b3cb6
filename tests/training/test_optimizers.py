"""Optimizers and schedules by name."""

import logging
from typing import get_args, get_type_hints

import keras
import numpy as np
import pytest

from fmnist.config import Config
from fmnist.models.custom import CustomParts
from fmnist.training.checks import warn_of_learning_rate
from fmnist.training.optimizers import make_optimizer

NAMES = [name for name in get_args(get_type_hints(Config)["optimizer"]) if name != "custom"]


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_makes_a_step(name):
    config = Config.from_preset("fast", optimizer=name, learning_rate=0.01, weight_decay=0.01)
    optimizer = make_optimizer(config, 10, CustomParts())
    assert type(optimizer).__name__.lower() == name
    assert optimizer.weight_decay == pytest.approx(0.01)
    kernel = keras.Variable(np.ones((3, 3, 2, 4), np.float32), name="kernel")
    optimizer.apply([np.ones((3, 3, 2, 4), np.float32)], [kernel])
    assert np.isfinite(kernel.numpy()).all()
    assert (kernel.numpy() != 1).any()


@pytest.mark.parametrize(
    ("optimizer", "schedule", "expected"),
    [
        ("sgd", "auto", [0.1, 0.1, 0.1]),
        ("muon", "auto", [0.1, 0.05, 0]),
        ("muon", "constant", [0.1, 0.1, 0.1]),
        ("sgd", "linear", [0.1, 0.05, 0]),
        ("sgd", "cosine", [0.1, 0.05, 0]),
        ("adam", "cosine", [0.1, 0.05, 0]),
    ],
)
def test_learning_rate_decays_by_the_schedule(optimizer, schedule, expected):
    config = Config.from_preset("fast", optimizer=optimizer, learning_rate=0.1, schedule=schedule)
    made = make_optimizer(config, 10, CustomParts())
    rates = []
    for step in (0, 5, 10):
        made.iterations.assign(step)
        rates.append(float(made.learning_rate))
    assert rates == pytest.approx(expected, abs=1e-6)
    assert config.has_schedule == (expected[-1] == 0)


def test_cosine_and_linear_differ_between_their_ends():
    rates = []
    for schedule in ("cosine", "linear"):
        made = make_optimizer(Config.from_preset("fast", schedule=schedule), 10, CustomParts())
        made.iterations.assign(2)
        rates.append(float(made.learning_rate))
    assert rates[0] > rates[1] + 0.005


def test_momentum_is_that_of_the_configuration():
    config = Config.from_preset("fast", optimizer="sgd", momentum=0.7)
    assert make_optimizer(config, 10, CustomParts()).momentum == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("changes", "is_warned"),
    [
        ({}, False),
        ({"optimizer": "adam"}, True),
        ({"optimizer": "adam", "learning_rate": 0.001}, False),
    ],
)
def test_learning_rate_of_another_optimizer_is_a_warning(changes, is_warned, caplog):
    caplog.set_level(logging.WARNING)
    warn_of_learning_rate(Config.from_preset("fast", **changes))
    assert ("learning rate 0.12 is that of fast for muon" in caplog.text) == is_warned
