"""The commands data and explore."""

from pathlib import Path
from typing import Annotated

import typer

from fmnist.cli.options import AsJson, DataFolder, Debug
from fmnist.cli.terminal import console_for, print_json, stderr_console
from fmnist.errors import FmnistError, one_line


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
