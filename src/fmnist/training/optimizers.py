"""The optimizer of a run, by the names of Keras."""

from typing import Any

import keras
from keras.optimizers.schedules import CosineDecay, PolynomialDecay

from fmnist.config import Config
from fmnist.models.custom import CustomParts
from fmnist.models.muon import Muon


def make_optimizer(config: Config, num_steps: int, parts: CustomParts) -> keras.optimizers.Optimizer:
    """Return the optimizer of a configuration, or a copy of the user's own.

    Args:
        config: the configuration.
        num_steps: steps of the whole run, over which a learning rate decays.
        parts: what is the user's own.
    """
    if parts.optimizer:
        return parts.new_optimizer()
    rate: Any = config.learning_rate
    if config.has_schedule:
        is_cosine = config.schedule == "cosine"
        rate = CosineDecay(rate, num_steps) if is_cosine else PolynomialDecay(rate, num_steps, end_learning_rate=0.0)
    options: dict[str, Any] = {} if config.weight_decay is None else {"weight_decay": config.weight_decay}
    if config.optimizer == "muon":
        return Muon(rate, config.momentum, config.adam_lr_ratio, **options)
    if config.optimizer in {"sgd", "rmsprop"}:
        options["momentum"] = config.momentum
    return keras.optimizers.get({"class_name": config.optimizer, "config": {"learning_rate": rate, **options}})
