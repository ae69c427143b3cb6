"""Weights and optimizer states as NumPy arrays, and the network of a run."""

import os
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from fmnist.config import MAX_CLASSES
from fmnist.errors import FmnistError, quote
from fmnist.files import MAX_MODEL_BYTES, read_bounded, sha256
from fmnist.models.custom import CustomParts
from fmnist.models.networks import NETWORKS, build_network
from fmnist.models.user_functions import NetworkFunction
from fmnist.runs.run import TRAIN_AGAIN, Run, open_run
from fmnist.runs.schemas import WEIGHTS_FILE


def get_weights(network: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights of a network as arrays by name. Seed generators are left out.

    The names are `layer/variable` for the networks of the presets, and `number/variable` for those of users, whose
    layers may have no names. The names that Keras gives them differ each time that a network is built.
    """
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in _variables(network).items()}


def set_weights(network: keras.Model, weights: dict[str, np.ndarray], source: Path) -> None:
    """Set the weights of a network.

    Args:
        network: a network of the same architecture as that of the weights.
        weights: arrays by name, as from `get_weights`.
        source: where the weights come from, for the error message.

    Raises:
        FmnistError: if a name or a shape differs.
    """
    variables = _variables(network)
    if variables.keys() != weights.keys():
        different = ", ".join(sorted(variables.keys() ^ weights.keys()))
        raise FmnistError(f"{source} does not fit the network {network.name}: only one of them has {different}")
    for name, variable in variables.items():
        if tuple(variable.shape) != weights[name].shape:
            raise FmnistError(
                f"{source} does not fit the network {network.name}: {name} has shape {weights[name].shape}; "
                f"expected {tuple(variable.shape)}"
            )
        variable.assign(weights[name])


def _variables(network: keras.Model) -> dict[str, keras.Variable]:
    if network.name in NETWORKS:
        return {f"{layer.name}/{variable.name}": variable for layer in network.layers for variable in layer.weights}
    return {f"{number:04d}/{variable.name}": variable for number, variable in enumerate(network.weights)}


def load_model(run: Run | str | Path, network: NetworkFunction | str | None = None) -> keras.Model:
    """Load the trained network of a run.

    It takes (n, 28, 28, 1) float32 from 0 to 1, as `keras.Sequential.predict` does, unlike the exported graph, which
    takes stored pixels from 0 to 255. It can be saved, cloned and trained further.

    The weights file contains only arrays, so loading it runs no code.

    Args:
        run: the run, or its folder.
        network: for a run with a network of the user's own: the function that builds it, or its name, as for `train`.

    Returns:
        The network in float32, with the weights of the last completed epoch. Its input is
        `fmnist.data.dataset.normalize(images)`.

    Raises:
        FmnistError: if the run has no weights, or they are damaged or do not fit the network.
    """
    run = run if isinstance(run, Run) else open_run(run)
    parts = CustomParts.check(network)
    parts.compare(run.custom, run.folder)
    weights = read_weights(run)
    is_custom = run.config.network == "custom"
    num_outputs = _num_outputs(run) if is_custom else weights["head/bias"].size
    loaded = build_network(run.config, num_outputs, "float32", parts.network)
    set_weights(loaded, weights, run.weights_path)
    return loaded


def _num_outputs(run: Run) -> int:
    class_names = run.environment().class_names
    if not class_names:
        raise FmnistError(f"{run.folder / 'environment.json'} has no class names; {TRAIN_AGAIN}")
    return run.config.num_outputs(len(class_names))


def read_weights(run: Run) -> dict[str, np.ndarray]:
    """Read the weights of a run.

    Returns:
        Arrays by name, as from `get_weights`. Those of a preset's network are float32, with `head/bias` among them.

    Raises:
        FmnistError: if there are no weights, or the file is damaged or is not the one in the manifest.
    """
    path = run.weights_path
    if not os.path.lexists(path):
        if run.is_pretrained:
            raise FmnistError("the pretrained model is a graph without weights; `make pretrained` trains its network")
        if run.manifest_path.is_file() or run.history_path.is_file():
            raise FmnistError(
                f"{path} is missing, the weights of a run that has been trained; restore it or train again"
            )
        raise FmnistError(
            f"run {run.folder} has no weights: it stopped before the end of its first epoch; "
            f"`fmnist train --resume {quote(run.folder)}` continues it"
        )
    content = read_bounded(path, MAX_MODEL_BYTES, "train again")
    if run.manifest_path.is_file() and sha256(content) != run.manifest().sha256[WEIGHTS_FILE]:
        raise FmnistError(
            f"{path} is damaged or not the file that its manifest names (SHA-256 differs); restore that file or, if "
            f"you changed it yourself, remove manifest.json and run `fmnist export {quote(run.folder)}`"
        )
    try:
        weights = load(content)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FmnistError(f"{path} is damaged ({error}); train again") from error
    if run.config.network == "custom":
        return weights
    if not all(values.dtype == np.float32 for values in weights.values()):
        raise FmnistError(f"{path} holds other numbers than float32; train again")
    if "head/bias" not in weights or not 1 <= weights["head/bias"].size <= MAX_CLASSES:
        raise FmnistError(f"{path} holds no weights of this program's networks; train again")
    return weights


def get_optimizer_state(optimizer: keras.optimizers.Optimizer) -> dict[str, np.ndarray]:
    """Return all variables of a built optimizer as arrays by name, `number/variable`."""
    return {
        f"{number}/{variable.name}": keras.ops.convert_to_numpy(variable)
        for number, variable in enumerate(optimizer.variables)
    }


def set_optimizer_state(optimizer: keras.optimizers.Optimizer, state: dict[str, np.ndarray]) -> None:
    """Set the variables of an optimizer.

    Args:
        optimizer: built for the same variables as the optimizer that the state comes from.
        state: arrays by name, as from `get_optimizer_state`.

    Raises:
        FmnistError: if there are more or fewer variables, or one has another shape.
    """
    # The rest of a name has names of layers, which differ each time that a network without names is built.
    by_number = {name.partition("/")[0]: array for name, array in state.items()}
    found = {name: array.shape for name, array in by_number.items()}
    if found != {f"{number}": tuple(variable.shape) for number, variable in enumerate(optimizer.variables)}:
        raise FmnistError(
            f"the state does not fit the optimizer {optimizer.name}; pass the one that the run was started with, or "
            "train again"
        )
    for number, variable in enumerate(optimizer.variables):
        variable.assign(by_number[f"{number}"])
