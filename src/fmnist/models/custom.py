"""A user's own network, optimizer, loss and augmentation: how they are checked, and what is recorded of them.

Nothing here is loaded from a run folder: only what the user names is imported or called.
"""

import inspect
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from msgspec.structs import replace

from fmnist.config import Config
from fmnist.errors import FmnistError, one_line, type_of
from fmnist.files import sha256
from fmnist.imports import import_function
from fmnist.models.user_functions import Augment, NetworkFunction
from fmnist.runs.schemas import CustomPart, CustomPartName

log = logging.getLogger("fmnist")

SPARSE_LOSSES = ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy")


@dataclass(frozen=True)
class CustomParts:
    """What a training takes from the user in place of a preset's."""

    network: NetworkFunction | None = None
    optimizer: keras.optimizers.Optimizer | None = None
    loss: Any = None
    augment: Augment | None = None
    reference: str | None = None
    """How the user named the network: `module:function` or `file.py:function`. None for a function in memory."""
    record: tuple[CustomPart, ...] = ()
    """For `config.json`."""

    @classmethod
    def check(
        cls,
        network: NetworkFunction | str | None = None,
        optimizer: keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        augment: Augment | None = None,
    ) -> "CustomParts":
        """Check what a user passes, and describe it.

        Args:
            network: a function from the number of outputs to a network; or its name, `module:function` or
                `file.py:function`, which is imported.
            optimizer: a Keras optimizer. A copy of it is used, so it stays as it is.
            loss: a loss of Keras, its name, or a function of labels and predictions. The labels are one-hot.
            augment: a function of images (n, 28, 28) uint8, labels (n, outputs) float32 and a NumPy generator, that
                returns images of the same shape, or images and labels.

        Raises:
            FmnistError: naming the part that cannot be used.
        """
        reference, source = None, None
        if isinstance(network, str):
            reference = network
            network, source = import_function(network)
        if isinstance(network, keras.Model):
            raise FmnistError(
                "network is a Keras model; expected a function from the number of classes to a new model, because "
                "training, resuming and export each build it: def network(num_classes): return keras.Sequential([...])"
            )
        for part, value in (("network", network), ("augment", augment)):
            if value is not None and not callable(value):
                raise FmnistError(f"{part} is {type_of(value)}; expected a function")
        if optimizer is not None and not isinstance(optimizer, keras.optimizers.Optimizer):
            hint = ": call it, as keras.optimizers.SGD(0.1)" if isinstance(optimizer, type) else ""
            if isinstance(optimizer, str):
                hint = f". By name it is a setting: Config.from_preset(..., optimizer={optimizer!r})"
            raise FmnistError(f"optimizer is {type_of(optimizer)}; expected a Keras optimizer{hint}")
        loss = _check_loss(loss) if loss is not None else None
        given: dict[CustomPartName, Any] = {
            "network": network,
            "optimizer": optimizer,
            "loss": loss,
            "augment": augment,
        }
        record = {part: _describe(part, value) for part, value in given.items() if value is not None}
        if reference:
            record["network"] = CustomPart(part="network", name=reference, sha256=source)
        return cls(network, optimizer, loss, augment, reference, tuple(record.values()))

    def applied_to(self, config: Config) -> Config:
        """Return a configuration whose network and optimizer are these, if there are any.

        An own network is trained in float32 unless the configuration says bfloat16, in which not every network learns.

        Raises:
            FmnistError: if the configuration asks for an own network or optimizer, and there is none.
        """
        for name in ("network", "optimizer"):
            if getattr(config, name) == "custom" and getattr(self, name) is None:
                raise FmnistError(f"{name} is 'custom' in the configuration; pass your own as {name}=...")
        if self.network:
            precision = "float32" if config.precision == "auto" else config.precision
            config = replace(config, network="custom", precision=precision)
        if self.optimizer:
            rate = float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))
            has_schedule = isinstance(self.optimizer.get_config()["learning_rate"], dict)
            schedule = "custom" if has_schedule else "constant"
            config = replace(config, optimizer="custom", learning_rate=rate, schedule=schedule)
        return config

    def compare(self, recorded: tuple[CustomPart, ...], folder: Path, needed: Sequence[str] = ("network",)) -> None:
        """Compare these parts with those that a run was started with, and log what has changed since.

        Args:
            recorded: of the run.
            folder: of the run, for messages.
            needed: which parts are compared; the others are not needed.

        Raises:
            FmnistError: if a needed part is missing, or the run was started without it.
        """
        before = {each.part: each for each in recorded if each.part in needed}
        now = {each.part: each for each in self.record if each.part in needed}
        for part in (name for name in needed if name not in now and name in before):
            option = "--network module:function or file.py:function, " if part == "network" else ""
            raise FmnistError(
                f"the {part} of {folder} is a user's own ({before[part].name}), and its code is not in the run folder; "
                f"pass it again: {option}in Python {part}=..."
            )
        for part, given in now.items():
            if part not in before:
                raise FmnistError(f"{folder} was started without {part}=; omit it, or train into a new folder")
            if given.sha256 != before[part].sha256:
                log.warning(
                    "the %s of %s is not the one that it was started with (%s then, %s now): its file or configuration "
                    "has changed, so the result can differ from an uninterrupted run",
                    part, folder, before[part].name, given.name,
                )  # fmt: skip

    def new_optimizer(self) -> keras.optimizers.Optimizer:
        """Return a copy of the optimizer without state.

        Raises:
            FmnistError: if it cannot be made again from its configuration.
        """
        assert self.optimizer
        try:
            return type(self.optimizer).from_config(self.optimizer.get_config())
        except Exception as error:
            raise FmnistError(
                f"{type(self.optimizer).__name__} cannot be made again from its get_config() ({one_line(error)}), "
                "which training and resuming do; let get_config() return all arguments of its constructor"
            ) from error


def _check_loss(loss: Any) -> Any:
    """Return a loss as Keras takes it."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    if name in SPARSE_LOSSES:
        raise FmnistError(f"the loss {name} needs class indices, but labels are one-hot; use CategoricalCrossentropy")
    try:
        return keras.losses.get(loss)
    except ValueError as error:
        raise FmnistError(
            f"loss is {loss if isinstance(loss, str) else type_of(loss)}; expected a Keras loss, its name, or a "
            "function of one-hot labels and probabilities"
        ) from error


def _describe(part: CustomPartName, value: Any) -> CustomPart:
    """Describe a part by its name and a hash of its configuration or source."""
    described = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    name = f"{described.__module__}:{described.__qualname__}"
    if described.__module__.startswith("keras."):
        name = f"keras:{described.__name__}"
    content = None
    with suppress(OSError, TypeError, NotImplementedError, ValueError):  # no source, no configuration
        if described is not value and hasattr(value, "get_config"):
            serialized = keras.saving.serialize_keras_object(value)
            serialized["config"].pop("name", None)  # Keras' number of the optimizer in this process
            content = json.dumps(serialized, sort_keys=True, default=str).encode()
        if not name.startswith("keras:"):
            content = _source_of(described) + (content or b"")
    return CustomPart(part=part, name=name[:1_000], sha256=sha256(content) if content else None)


def _source_of(described: Any) -> bytes:
    """Return the whole file of a function or class, because it may call others there; of a notebook, its cell."""
    file = Path(inspect.getsourcefile(described) or "")
    return file.read_bytes() if file.is_file() else inspect.getsource(described).encode()
