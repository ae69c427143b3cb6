"""Epochs as compiled programs, for training under JAX on GPUs.

`fit` of Keras 3.15 starts every step from the host, which on a fast GPU takes longer than the step. Here one program
augments the images of an epoch and runs all its steps, by Keras' own `train_step`; another one validates. `fit` sees
an epoch as a single step, and everything else of it stays.

keras-team/keras pull request 23527 does this in Keras for `steps_per_execution` above 1. Once a release has it, that
option should replace this module.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fmnist.errors import FmnistError
from fmnist.training.augment import Plan
from fmnist.training.augment_on_device import apply_plan
from fmnist.training.epochs import Batches, EpochSampler

SCALED = np.arange(256, dtype=np.float32) / np.float32(255)
"""Input of the networks for each gray level. XLA would multiply by 1 / 255, which rounds differently from NumPy."""

State = tuple[list[Any], ...]
"""Values of the trainable variables, the others, those of the optimizer (in training) and of the metrics."""
Step = Callable[[State, tuple[Any, ...]], tuple[dict[str, Any], State]]


class CompiledEpochs:
    """The programs of a training. Signals and callbacks of batches wait for the end of an epoch."""

    def __init__(
        self, network: keras.Model, sampler: EpochSampler, validation: Batches | None = None, num_devices: int = 1
    ):
        """Give a network its programs. They are compiled in the first epoch.

        Args:
            network: built and compiled.
            sampler: of the images. It stops applying its plans.
            validation: the validation images, if there are any.
            num_devices: each batch is divided among so many devices.

        Raises:
            FmnistError: if there are fewer devices, or their number does not divide the batch.
        """
        self.network, self.sampler, self.validation = network, sampler, validation
        self.devices = jax.devices()[:num_devices]
        if len(self.devices) < num_devices or sampler.batches.batch_size % num_devices:
            raise FmnistError(
                f"devices is {num_devices}, with {len(jax.devices())} of JAX and a batch of "
                f"{sampler.batches.batch_size} images; expected a number of devices that are there, which divides the "
                "batch"
            )
        self.mesh = Mesh(np.array(self.devices), ("batch",))
        sampler.applies_plans = False
        self.images = self._put(sampler.images)
        self.validation_data = self._put(_arrays(validation)) if validation else ()
        self.programs: dict[Callable[..., Any], Any] = {}
        self.seconds = {"compile_seconds": 0.0, "device_seconds": 0.0}
        """Compiling the programs, and running them: from their start until their results are there."""
        network.train_function, network.test_function = self._train, self._test

    def one_step(self, batches: Batches) -> Batches:
        """Return the data set of one step for `fit`. Its single image shows the shapes; the programs have the data."""
        return Batches(batches.images[:1], batches.labels[:1], 1, batches.class_weights)

    def release(self) -> None:
        """Let the images and programs be freed with the network, to which they refer, and it to them."""
        self.network.train_function = self.network.test_function = None

    def _train(self, state: State, iterator: Iterator[Any]) -> tuple[dict[str, Any], State]:
        next(iterator)
        sampler = self.sampler
        images, *labels_and_weights = _arrays(sampler.batches)
        data = self._put((sampler.plan or images, *labels_and_weights))
        return self._run(self._train_epoch, state, self.images, data)

    def _test(self, state: State, iterator: Iterator[Any]) -> tuple[dict[str, Any], State]:
        next(iterator)
        return self._run(self._validate, state, self.validation_data)

    def _train_epoch(self, state: State, images: Any, data: tuple[Any, ...]) -> tuple[dict[str, Any], State]:
        selected, *labels_and_weights = data
        if isinstance(selected, Plan):
            selected = apply_plan(images, selected, self.sampler.config.shift)
        batch_size = self.sampler.batches.batch_size
        state = self._run_steps(self.network.train_step, state, (selected, *labels_and_weights), batch_size)
        return self._logs(state), state

    def _validate(self, state: State, data: tuple[Any, ...]) -> tuple[dict[str, Any], State]:
        assert self.validation
        state = self._run_steps(self.network.test_step, state, data, self.validation.batch_size)
        return self._logs(state), state

    def _run_steps(self, step: Step, state: State, arrays: tuple[Any, ...], batch_size: int) -> State:
        """Run the step of each batch. The last batch has the rest of the images."""

        def run(state: State, batch: tuple[Any, ...]) -> tuple[State, None]:
            images, *labels_and_weights = batch
            scaled = jnp.asarray(SCALED)[images][..., jnp.newaxis]
            return step(state, self._divide((scaled, *labels_and_weights)))[1], None

        in_batches = len(arrays[0]) // batch_size * batch_size
        if in_batches:
            batches = tuple(each[:in_batches].reshape(-1, batch_size, *each.shape[1:]) for each in arrays)
            state, _ = lax.scan(run, state, batches)
        return run(state, tuple(each[in_batches:] for each in arrays))[0] if in_batches < len(arrays[0]) else state

    def _divide(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """Divide a batch among the devices. A last batch that they do not divide is computed on each."""
        if len(self.devices) == 1 or len(batch[0]) % len(self.devices):
            return batch
        sharding = NamedSharding(self.mesh, PartitionSpec("batch"))
        return tuple(lax.with_sharding_constraint(each, sharding) for each in batch)

    def _logs(self, state: State) -> dict[str, Any]:
        """Return the results of all metrics. Keras would drop those that are missing without an error."""
        with keras.StatelessScope(zip(self.network.metrics_variables, state[-1], strict=True)):
            logs: dict[str, Any] = self.network.get_metrics_result()
        return logs

    def _run(self, function: Callable[..., Any], state: State, *data: Any) -> tuple[dict[str, Any], State]:
        """Run a program to its end, and count the seconds."""
        state = self._put(state)
        if function not in self.programs:
            started = time.perf_counter()
            self.programs[function] = jax.jit(function, donate_argnums=0).lower(state, *data).compile()
            self.seconds["compile_seconds"] += time.perf_counter() - started
        started = time.perf_counter()
        logs, state = jax.block_until_ready(self.programs[function](state, *data))
        self.seconds["device_seconds"] += time.perf_counter() - started
        return logs, state if len(self.devices) == 1 else jax.device_put(state, self.devices[0])

    def _put(self, arrays: Any) -> Any:
        """Copy arrays to every device that has none of them."""
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return jax.device_put(arrays, everywhere if len(self.devices) > 1 else self.devices[0])


def _arrays(batches: Batches) -> tuple[np.ndarray, ...]:
    """Return images, labels and perhaps weights of all batches."""
    weights = () if batches.class_weights is None else (batches.labels @ batches.class_weights,)
    return batches.images, batches.labels, *weights
