"""The command evaluate: a run, or anybody's model."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fmnist.cli.options import AsJson, DataFolder, Debug, find_run
from fmnist.cli.terminal import console_for, print_json
from fmnist.errors import FmnistError, quote
from fmnist.imports import import_function

NUM_MISTAKES = 3
"""Mistakes of a model that are printed."""
BIASED = 0.03
"""Difference between validation and test accuracy from which a model was probably trained on validation images."""


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run.", show_default="the newest")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Score another model instead: FILE.onnx, or a function, module:function or file.py:function, from "
            "images (n, 28, 28) uint8 to probabilities, logits or labels. The code of its module is run.",
            show_default=False,
        ),
    ] = None,
    scaling: Annotated[
        str | None,
        typer.Option(help="Pixels that --model takes, as 0..1, -1..1 or mnist.", show_default="found out"),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="Shape of an image that --model takes, as 1x28x28 or 784.", show_default="found out"),
    ] = None,
    class_order: Annotated[
        str | None,
        typer.Option(
            metavar="INDICES",
            help="Class of each column or label of --model, as 9,8,4,3,2,5,6,7,0,1.",
            show_default="as in the data",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draws the two random test images.", show_default="random")
    ] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Evaluate a run, or any model, on all test images and write the report of a run."""
    if model is None:
        for option, value in (("--scaling", scaling), ("--layout", layout), ("--class-order", class_order)):
            if value is not None:
                raise typer.BadParameter("only with --model: a run has it on record", param_hint=f"'{option}'")
        evaluate_run(run, seed, data, as_json)
        return
    if run is not None:
        raise typer.BadParameter("either a run is evaluated or --model; omit one of them", param_hint="'--model'")
    if seed is not None:
        raise typer.BadParameter("not with --model: it is for the report of a run", param_hint="'--seed'")
    score_model(model, data, scaling, layout, parse_indices(class_order), as_json)


def evaluate_run(run: Path | None, seed: int | None, data: Path | None, as_json: bool) -> None:
    """Evaluate a run and print the result."""
    from fmnist.cli import tables
    from fmnist.evaluation.evaluate import evaluate_and_save

    if run and run.is_file():
        raise FmnistError(
            f"{run} is a file; expected the folder of a run. `fmnist evaluate --model {quote(run)}` scores a model"
        )
    chosen = find_run(run)
    evaluation, problem = evaluate_and_save(chosen, seed, dataset=chosen.load_data(data) if data else None)
    console = console_for(as_json)
    console.print(tables.scores_table(f"{chosen.folder} on {evaluation['num_images']:,} test images", evaluation))
    console.print("Keras' values differ because Keras counts every probability above 0.5, over all classes at once.")
    console.print(tables.class_scores_table(evaluation))
    console.print(tables.confusion_table(evaluation, console.width))
    for sample in evaluation["samples"]:
        console.print(tables.sample_sentence(sample), highlight=False)
    if not problem:
        console.print(f"Report: {chosen.folder / 'report.html'}", soft_wrap=True)
    print_json(as_json, evaluation)
    if problem:
        raise FmnistError(f"the evaluation is not saved: {problem}")


def score_model(
    model: str,
    data: Path | None,
    scaling: str | None,
    layout: str | None,
    class_order: list[int] | None,
    as_json: bool,
) -> None:
    """Score a model that the user names, and print the result."""
    from fmnist.data.dataset import load
    from fmnist.evaluation.score import score

    path = folder = Path(model)
    if folder.is_dir():
        raise FmnistError(f"{model} is a folder; `fmnist evaluate {quote(folder)}` evaluates a run")
    if path.is_file() and path.suffix != ".onnx":
        raise FmnistError(
            f"{model} is no ONNX file by its name; expected FILE.onnx, or a function that loads the model: "
            "module:function or file.py:function"
        )
    with redirect_stdout(sys.stderr):  # where the model's own output goes: stdout is for the result
        if path.suffix == ".onnx":
            result = score(path, load(data), scaling=scaling, layout=layout, class_order=class_order)
        else:
            predict, sha256 = import_function(model)
            scored = score(predict, load(data), scaling=scaling, layout=layout, class_order=class_order)
            result = {**scored, "model": model, "sha256": sha256}
    print_score(console_for(as_json), result)
    print_json(as_json, result)


def print_score(console: Console, result: dict[str, Any]) -> None:
    """Print what `score` returns, for people."""
    from fmnist.cli import tables

    console.print(tables.model_table(f"{result['model']} on {result['num_images']:,} test images", result))
    console.print(tables.class_scores_table(result))
    console.print(tables.confusion_table(result, console.width))
    for sentence in sentences(result):
        console.print(sentence, soft_wrap=True)


def sentences(result: dict[str, Any]) -> list[str]:
    """Return what was found out about a model, and its most confident mistakes, as sentences."""
    given, accuracy = result["input"], result["accuracy"]
    found = [
        f"Results: {result['output']}. Input: {given['dtype']}, layout {given['layout']}, scaling {given['scaling']}; "
        f"{given['train_accuracy']:.1%} of {given['num_train_images']:,} training images are right. --scaling and "
        "--layout overrule this."
    ]
    if given["alternatives"]:
        others = ", ".join(
            f"layout {other['layout']}, scaling {other['scaling']}: {other['train_accuracy']:.1%}"
            for other in given["alternatives"]
        )
        found.append(f"Nearly as good: {others}.")
    if result["temperature"] is None:
        found.append("No temperature is fitted." if result["output"] != "labels" else "Labels have no calibration.")
    else:
        bias = (
            f"This model was probably trained on them: it is right about {result['val_accuracy']:.1%} of them, but of "
            f"the test images about {accuracy:.1%}."
            if result["val_accuracy"] - accuracy > BIASED
            else f"{result['val_accuracy']:.1%} of them are right."
        )
        found.append(
            f"Temperature {result['temperature']:.3f}: fitted on {result['temperature_fitted_on']}. {bias}"
        )  # fmt: skip
    for mistake in result["mistakes"][:NUM_MISTAKES]:
        probability = "" if mistake["probability"] is None else f" ({mistake['probability']:.1%})"
        found.append(
            f"Mistake: test image {mistake['index']}, predicted {mistake['predicted']}{probability}, "
            f"true {mistake['true']}"
        )
    return found


def parse_indices(text: str | None) -> list[int] | None:
    """Return the indices of classes in an option. Raises a usage error for anything but whole numbers and commas."""
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no list of class indices; expected numbers, as 0,2,1", param_hint="'--class-order'"
        ) from error
