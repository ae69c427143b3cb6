"""The command `train`."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fmnist.cli import settings
from fmnist.cli.options import AsJson, DataFolder, Debug, NetworkFunction, require_backend
from fmnist.cli.terminal import console_for, print_json, stderr_console
from fmnist.config import PRESETS, Config
from fmnist.errors import FmnistError, one_line, quote
from fmnist.quiet import importing_keras

if TYPE_CHECKING:
    from fmnist.runs.run import Run

DEFAULT_PRESET = "fast"
OPTIONS = {
    "preset": "--preset",
    "seed": "--seed",
    "full": "--full",
    "flip": "--flip",
    "class_weights": "--class-weights",
    "photos": "--photos",
    "learning_rate": "--lr",
    "batch_size": "--batch-size",
    "optimizer": "--optimizer",
}
"""Options by the setting that they give. The others are given by `--set`."""


def train(
    preset: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(PRESETS)}.", show_default=DEFAULT_PRESET)
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of epochs.", show_default="the preset's")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Seed of everything random.", show_default="0")
    ] = None,
    full: Annotated[
        bool | None, typer.Option("--full", help="Train on all images, without a validation split.", show_default=False)
    ] = None,
    run: Annotated[Path | None, typer.Option(help="New folder for the run.", show_default="runs/PRESET-TIME")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Resume an interrupted run with its own settings.")
    ] = None,
    data: DataFolder = None,
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Mirror images.", show_default="the preset's, for Fashion-MNIST only"),
    ] = None,
    class_weights: Annotated[
        bool | None, typer.Option("--class-weights", help="Give rare classes more weight.", show_default=False)
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Photos for the preset photo.", show_default="the repository's file"),
    ] = None,
    network: NetworkFunction = None,
    learning_rate: Annotated[
        float | None, typer.Option("--lr", help="Learning rate.", show_default="the preset's")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.", show_default="the preset's")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="muon, or an optimizer of Keras, as sgd or adamw.", show_default="the preset's")
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; can be repeated.", show_default=False),
    ] = None,
    help_settings: Annotated[
        bool, typer.Option("--help-settings", help="List all settings, with the preset's values, and exit.")
    ] = False,
    backend: Annotated[
        Literal["tensorflow", "jax"] | None,
        typer.Option(help="Keras backend.", show_default="KERAS_BACKEND or tensorflow"),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="Number of GPUs that share each batch, with --backend jax.")] = 1,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard logs into the run folder.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a network; its curves are redrawn every ten seconds."""
    if preset and preset not in PRESETS:
        raise typer.BadParameter(f"{preset!r} is not one of {', '.join(PRESETS)}", param_hint="'--preset'")
    if help_settings:
        settings.print_settings(PRESETS[preset or DEFAULT_PRESET], as_json)
        return
    if resume and run:
        raise typer.BadParameter("a run is resumed in its own folder; omit --run", param_hint="'--resume'")
    options = {
        "epochs": epochs,
        "seed": seed,
        "full": full,
        "flip": flip,
        "class_weights": class_weights,
        "photos": str(photos) if photos else None,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "optimizer": optimizer.lower() if optimizer else None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    given |= settings.parse_settings(others or [], given)
    require_backend(backend)
    if tensorboard and not find_spec("tensorboard"):
        raise ModuleNotFoundError(name="tensorboard")
    from fmnist.data.dataset import load
    from fmnist.runs.data import data_to_resume
    from fmnist.runs.folders import make_run_folder
    from fmnist.runs.run import open_run

    if resume:
        earlier_run = open_run(resume)
        config, folder = earlier_run.config, earlier_run.folder
        refuse_other_settings(earlier_run, {"preset": preset, **given} if preset else given)
        if earlier_run.status == "finished":
            print_finished(earlier_run, data, as_json)
            return
    else:
        config = Config.from_preset(preset or DEFAULT_PRESET, **given)
    dataset = data_to_resume(earlier_run, data) if resume else load(data)
    with importing_keras():
        import keras

        from fmnist.training import progress
        from fmnist.training import train as training
    if not resume:
        folder = run or make_run_folder(config.preset)
    start = partial(training.resume, earlier_run) if resume else partial(training.train, config, folder=folder)
    start = partial(start, network=network, devices=devices)
    logs = folder / "tensorboard"
    if tensorboard and logs.is_symlink():  # a run folder from another person must not lead to other folders
        raise FmnistError(f"{logs} is a symbolic link; expected a folder, so remove it")
    callbacks = [keras.callbacks.TensorBoard(logs)] if tensorboard else []
    with explain_interruption(folder, remove_if_empty=not (resume or run)):
        stderr_console.print(f"{'Resuming' if resume else 'Training'} {config.preset} in {folder}", soft_wrap=True)
        with progress.ProgressBar(stderr_console) as bar:
            finished = start([bar, *callbacks], dataset=dataset, verbose=False)
    document = training_summary(finished)
    console = console_for(as_json)
    if document["val_accuracy"] is not None:
        recall = f", mean recall of the classes {recall:.2%}" if (recall := document["val_recall_macro"]) else ""
        console.print(f"Validation accuracy {document['val_accuracy']:.2%} after {config.epochs} epochs{recall}")
    console.print(f"Trained in {document['train_seconds']:.0f} s: {folder}", soft_wrap=True)
    print_json(as_json, document)


def print_finished(run: "Run", data: Path | None, as_json: bool) -> None:
    """Print that there is nothing to resume."""
    if data:
        run.load_data(data)  # refuses other data
    console_for(as_json).print(f"{run.folder} is finished: nothing to do", soft_wrap=True)
    print_json(as_json, training_summary(run))


def training_summary(run: "Run") -> dict[str, Any]:
    """Return the JSON document of a finished training."""
    manifest = run.manifest()
    validation = manifest.validation
    if not run.history():
        raise FmnistError(f"{run.history_path} is missing; restore it, or train again into a new folder")
    return {
        "run": str(run.folder),
        "preset": run.config.preset,
        "seed": run.config.seed,
        "epochs": run.config.epochs,
        "parameters": manifest.parameters,
        "train_seconds": manifest.train_seconds,
        "val_accuracy": validation.accuracy if validation else None,
        "val_recall_macro": validation.recall_macro if validation else None,
    }


def refuse_other_settings(run: "Run", given: dict[str, Any]) -> None:
    """Raise an `FmnistError` if an option contradicts the settings of the run to resume."""
    planned = run.config.to_json()
    for name, value in given.items():
        if value == planned[name]:
            continue
        if name == "epochs":
            reason = ", which its learning rate follows" if run.config.has_schedule else ""
            raise FmnistError(
                f"--epochs {value}, but {run.folder} is planned for {planned[name]} epochs{reason}; omit --epochs, or "
                f"train {value} epochs into a new folder"
            )
        option = OPTIONS.get(name)
        if option is None:
            given_as = option = f"--set {name}={value}"
        elif isinstance(value, bool):
            given_as = option = option if value else option.replace("--", "--no-", 1)
        else:
            given_as = f"{option} {value}"
        raise FmnistError(
            f"{given_as}, but {run.folder} was started with {name} {planned[name]}; omit {option}, or train into a new "
            "folder"
        )


@contextmanager
def explain_interruption(folder: Path, *, remove_if_empty: bool = False) -> Iterator[None]:
    """Print what an interrupted training leaves in its folder and how to resume it. Handle SIGTERM like Ctrl-C.

    Args:
        folder: the folder of the run.
        remove_if_empty: remove the folder if the run did not start.
    """

    def terminate(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        stderr_console.print(interruption_message(folder), soft_wrap=True)
        raise
    except OSError as error:
        if not (folder / "config.json").is_file():
            raise
        raise FmnistError(f"{one_line(error)}; `fmnist train --resume {quote(folder)}` resumes training") from error
    finally:
        signal.signal(signal.SIGTERM, before)
        if remove_if_empty:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def interruption_message(folder: Path) -> str:
    """Format what an interrupted training leaves, and what to do with it."""
    from fmnist.runs.run import open_run

    try:
        num_epochs = len(open_run(folder).history())
    except FmnistError:
        return f"Interrupted before the run started: nothing in {folder} to resume."
    resume = f"`fmnist train --resume {quote(folder)}` resumes it"
    if num_epochs == 0:
        return f"Interrupted before the first epoch was completed; {resume}."
    epochs = "1 epoch" if num_epochs == 1 else f"{num_epochs} epochs"
    return f"Interrupted after {epochs}; {resume}, `fmnist export {quote(folder)}` exports it as it is."
