"""The commands to learn with: data, explore, train, evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmnist.cli.options import AsJson, DataFolder, Debug, find_run
from fmnist.cli.terminal import console_for, print_json, stderr_console
from fmnist.errors import FmnistError, one_line

if TYPE_CHECKING:
    pass

DEFAULT_PRESET = "fast"


def data(
    data: DataFolder = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="New folder for the data as IDX files.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Find or download the data set and verify it."""
    from fmnist.data.dataset import check_trainable, load, write_folder

    dataset = load(data)
    name = "Fashion-MNIST, verified by SHA-256" if dataset.is_fashion_mnist else "another data set"
    console = console_for(as_json)
    console.print(f"{name}; from {dataset.source}", soft_wrap=True)
    console.print(
        f"{len(dataset.train_images):,} training and {len(dataset.test_images):,} test images of "
        f"{len(dataset.class_names)} classes: {', '.join(dataset.class_names)}",
        soft_wrap=True,
    )
    try:
        check_trainable(dataset)
    except FmnistError as error:
        stderr_console.print(
            f"Warning: `fmnist train` would refuse this: {one_line(error)}", soft_wrap=True, markup=False
        )
    files = write_folder(dataset, folder) if folder else []
    if folder:
        console.print(f"Written as IDX files: {folder}", soft_wrap=True)
    document = {
        "source": dataset.source,
        "is_fashion_mnist": dataset.is_fashion_mnist,
        "num_train_images": len(dataset.train_images),
        "num_test_images": len(dataset.test_images),
        "class_names": list(dataset.class_names),
        "sha256": dataset.sha256,
        "files": [str(path) for path in files],
    }
    print_json(as_json, document)


def explore(
    folder: Annotated[Path, typer.Option("--out", help="Folder for the figures.")] = Path("explore"),
    data: DataFolder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print tables about the data and save figures."""
    from fmnist.cli import tables
    from fmnist.data.dataset import load
    from fmnist.evaluation.explore import save_figures, summarize
    from fmnist.fonts import labels_for

    dataset = load(data)
    summary = summarize(dataset)
    figures = save_figures(dataset, summary, folder)
    console = console_for(as_json)
    console.print(tables.parts_table(summary))
    console.print(tables.classes_table(summary))
    duplicates = summary["duplicates"]
    console.print(
        f"Duplicate images, byte by byte: {duplicates['train']} in training, {duplicates['test']} in test, "
        f"{duplicates['across']} of test in training"
    )
    console.print("Figures: " + ", ".join(map(str, figures)), soft_wrap=True)
    if numbers := labels_for(dataset.class_names).numbers:
        names = ", ".join(f"{number} {name}" for name, number in numbers.items())
        console.print(f"No installed font has all names, so the figures have numbers: {names}", soft_wrap=True)
    print_json(as_json, {**summary, "figures": [str(path) for path in figures]})


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run.", show_default="the newest")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draws the two random test images.", show_default="random")
    ] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Evaluate a run on all test images and write its report."""
    from fmnist.cli import tables
    from fmnist.evaluation.evaluate import evaluate_and_save

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
