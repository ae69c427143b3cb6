"""The command line: parse, call, print."""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from fmnist.config import PRESETS, Config
from fmnist.errors import FmnistError, one_line
from fmnist.terminal import complain, errors, give, out, quiet_stderr, show_log, table

if TYPE_CHECKING:
    from fmnist.inference.classifier import Classifier
    from fmnist.runs.run import Run

app = typer.Typer(
    help="Train, score and ask a Fashion-MNIST classifier.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}
DEFAULT_PRESET = "fast"
PACKAGED = Path("packaged")
MACRO = ("precision_macro", "recall_macro", "f1_macro")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; all else goes to stderr.")]
ModelFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a finished run; `packaged` is the model that comes with fmnist, which knows photos.",
        show_default="the newest, or else packaged",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="Folder with a data set of the same format.", show_default=False)
]


@app.command("data")
def data_command(data: DataFolder = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Find or fetch the data set, verify it and say what it is."""
    from fmnist.data.dataset import load

    dataset = load(data)
    document = {
        "source": dataset.source,
        "is_fashion_mnist": dataset.is_fashion_mnist,
        "num_train_images": len(dataset.train_images),
        "num_test_images": len(dataset.test_images),
        "class_names": list(dataset.class_names),
        "sha256": dataset.sha256,
    }
    name = "Fashion-MNIST, every byte verified" if dataset.is_fashion_mnist else "another data set of this format"
    console = out(as_json)
    console.print(f"{name}; from {dataset.source}")
    console.print(f"{len(dataset.train_images):,} training and {len(dataset.test_images):,} test images")
    give(as_json, document)


@app.command()
def explore(
    folder: Annotated[Path, typer.Option("--out", help="Folder for the figures.")] = Path("explore"),
    data: DataFolder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what is in the data: tables here, figures in a folder."""
    from fmnist.data.dataset import load
    from fmnist.evaluation import explore as exploring

    dataset = load(data)
    summary = exploring.summarise(dataset)
    figures = exploring.save_figures(dataset, summary, folder)
    console = out(as_json)
    parts = summary["parts"]
    console.print(
        table(
            "Parts",
            ["part", "shape", "type", "pixels", "mean", "std"],
            [
                [name, " x ".join(map(str, part["shape"])), part["dtype"], f"{part['min']} to {part['max']}",
                 f"{part['mean']:.4f}", f"{part['std']:.4f}"]
                for name, part in parts.items()
            ],
        )
    )  # fmt: skip
    console.print(
        table(
            "Classes",
            ["class", "training images", "test images", "mean pixel", "ink"],
            [
                [row["label"], f"{train:,}", f"{test:,}", f"{row['mean']:.3f}", f"{100 * row['ink']:.1f} %"]
                for row, train, test in zip(
                    summary["classes"],
                    parts["train"]["class_counts"],
                    parts["test"]["class_counts"],
                    strict=True,
                )
            ],
        )
    )
    duplicates = summary["duplicates"]
    console.print(
        f"Images that occur again byte by byte: {duplicates['train']} in training, {duplicates['test']} in test, "
        f"{duplicates['across']} of test in training"
    )
    console.print("Figures: " + ", ".join(map(str, figures)), soft_wrap=True)
    give(as_json, {**summary, "figures": [str(path) for path in figures]})


@app.command()
def train(
    preset: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(PRESETS)}.", show_default=DEFAULT_PRESET)
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's own.", show_default=False)] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Decides everything random.", show_default="0")
    ] = None,
    full: Annotated[
        bool | None, typer.Option("--full", help="Train on all images, without a validation part.", show_default=False)
    ] = None,
    run: Annotated[Path | None, typer.Option(help="New folder for the run.", show_default="runs/PRESET-TIME")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with a run that was cut off, as its config.json says."),
    ] = None,
    data: DataFolder = None,
    backend: Annotated[
        Literal["tensorflow", "jax"] | None,
        typer.Option(help="What Keras computes with.", show_default="KERAS_BACKEND or tensorflow"),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard logs into the run folder.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a network, with its curves redrawn after every epoch."""
    if preset and preset not in PRESETS:
        raise typer.BadParameter(f"{preset!r} is not one of {', '.join(PRESETS)}", param_hint="'--preset'")
    if resume and run:
        raise typer.BadParameter("a run goes on in its own folder; leave --run out", param_hint="'--resume'")
    settings = {"epochs": epochs, "seed": seed, "full": full, "data": str(data) if data else None}
    given = {name: value for name, value in settings.items() if value is not None}
    if tensorboard and not find_spec("tensorboard"):
        raise FmnistError("--tensorboard needs the package tensorboard; `pip install tensorboard` brings it")
    if backend == "jax" and not find_spec("jax"):
        raise FmnistError("--backend jax needs the package jax; `pip install 'fmnist[jax]'` brings it")
    if backend:
        os.environ["KERAS_BACKEND"] = backend
    from fmnist.data.dataset import load, load_from
    from fmnist.runs import run as runs

    if resume:
        begun = runs.open_run(resume)
        config, folder = begun.config, begun.folder
        refuse_other_settings(begun, {"preset": preset, **given} if preset else given)
        if begun.is_complete:
            out(as_json).print(f"{folder} is finished: nothing to do", soft_wrap=True)
            give(as_json, trained(begun))
            return
    else:
        config = Config.from_preset(preset or DEFAULT_PRESET, **given)
        folder = run or runs.new_folder(config.preset)
    with saying_how_to_go_on(folder):
        dataset = load_from(config.data) if resume else load(config.data)
        with quiet_stderr():
            import keras

            from fmnist.training import progress as live
            from fmnist.training import train as training
        start = partial(training.resume, folder) if resume else partial(training.train, config, folder=folder)
        callbacks = [keras.callbacks.TensorBoard(folder / "tensorboard")] if tensorboard else []
        errors.print(f"{'Resuming' if resume else 'Training'} {config.preset} into {folder}", soft_wrap=True)
        with live.ProgressBar(errors) as bar:
            finished = start([bar, *callbacks], dataset=dataset)
    document = trained(finished)
    console = out(as_json)
    if document["val_accuracy"] is not None:
        console.print(f"Validation accuracy {document['val_accuracy']:.2%} after {config.epochs} epochs")
    console.print(f"Trained in {document['train_seconds']:.0f} s: {folder}", soft_wrap=True)
    give(as_json, document)


@app.command()
def evaluate(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run.", show_default="the newest")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draws the two random test images.", show_default="random")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score a run on every test image and write its report."""
    from fmnist.evaluation import evaluate as evaluating

    chosen = find_run(run)
    result = evaluating.evaluate(chosen, seed)
    console = out(as_json)
    low, high = result["accuracy_interval_95"]
    console.print(
        table(
            f"{chosen.folder} on {result['num_images']:,} test images",
            ["", ""],
            [
                ["accuracy", f"{result['accuracy']:.2%}"],
                ["95 % interval", f"{low:.2%} to {high:.2%}"],
                ["accuracy, single view", f"{result['accuracy_single_view']:.2%}"],
                ["precision, recall, F1 (macro)", ", ".join(f"{result[name]:.2%}" for name in MACRO)],
                [
                    "Keras' precision, recall",
                    f"{result['keras_precision']:.2%}, {result['keras_recall']:.2%}",
                ],
                ["expected calibration error", f"{result['ece']:.2%}"],
            ],
        )
    )
    console.print(
        "Keras' values differ because they count every probability above 0.5 as a claim, over all classes at once."
    )
    console.print(
        table(
            "Classes",
            ["class", "precision", "recall", "F1"],
            [
                [row["label"], f"{row['precision']:.1%}", f"{row['recall']:.1%}", f"{row['f1']:.1%}"]
                for row in result["per_class"]
            ],
        )
    )
    names = result["class_names"]
    rows = [
        [f"{index} {name}", *map(str, counts)]
        for index, (name, counts) in enumerate(zip(names, result["confusion"], strict=True))
    ]
    console.print(table("Confusion (rows true, columns predicted)", ["", *map(str, range(len(names)))], rows))
    for sample in result["samples"]:
        verdict = "right" if sample["predicted"] == sample["true"] else "wrong"
        console.print(
            f"Random test image {sample['index']}: predicted {sample['predicted']} "
            f"({sample['probability']:.1%}), true {sample['true']}: {verdict}",
            highlight=False,
        )
    console.print(f"Report: {chosen.folder / 'report.html'}", soft_wrap=True)
    give(as_json, result)


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    model: ModelFolder = None,
    steps: Annotated[
        Path | None, typer.Option("--steps", help="Folder for a picture of each conversion.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what garments photos show, and whether to believe it."""
    from fmnist.inference.classifier import Classifier

    classifier = Classifier.load(find_model(model))
    errors.print(f"Model: {classifier.name}", soft_wrap=True)
    answers: list[dict[str, Any]] = []
    for number, file in enumerate(pictures(files), start=1):
        sheet = steps / f"{number:03}-{file.stem}.png" if steps else None
        try:
            answers.append({"file": str(file), **look(file, classifier, sheet)})
        except FmnistError as error:
            answers.append({"file": str(file), "error": str(error)})
            complain(error)
    rows = [
        [item["file"], item["label"], f"{item['probability']:.1%}", verdict(item)]
        for item in answers
        if "label" in item
    ]
    if rows:
        out(as_json).print(table(None, ["file", "answer", "probability", "accepted"], rows))
    give(as_json, answers)
    if any("error" in item for item in answers):
        raise typer.Exit(1)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run with weights.")],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise the run's graph: a quarter of the size.")] = False,
    copy: Annotated[
        Path | None, typer.Option("--out", help="Also copy the graph to this file.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a run's model.onnx and manifest again, or for the first time if it was cut off; or its model-int8.onnx."""
    from fmnist import atomic
    from fmnist.runs import run as runs

    chosen = runs.open_run(run)
    if not (int8 and chosen.is_finished):
        with quiet_stderr():
            from fmnist.export import onnx as exporting
        manifest = exporting.finish(chosen)
    if int8:
        from fmnist.export import quantize as quantise

        manifest = quantise.finish(chosen)
    path = chosen.folder / runs.INT8_FILE if int8 else chosen.onnx_path
    if copy:
        atomic.write(copy, path.read_bytes())
    console = out(as_json)
    if int8:
        console.print(compared(manifest["int8"]))
    console.print(f"Exported {copy or path}", soft_wrap=True)
    give(as_json, {"run": str(chosen.folder), "file": str(copy or path), **manifest})


def compared(record: dict[str, Any]) -> str:
    """Say what quantisation has cost."""
    same = f"the same answer as in float on {record['same_top1']:.2%} of {record['num_images']:,} images"
    if record["accuracy"] is None:
        return f"{record['bytes']:,} bytes; {same} ({record['compared_on']})"
    accuracy = f"validation accuracy {record['accuracy']:.2%}, in float {record['accuracy_float']:.2%}"
    return f"{record['bytes']:,} bytes; {accuracy}; {same}"


@app.command("doctor")
def doctor_command(as_json: AsJson = False, debug: Debug = False) -> None:
    """Say whether this machine can train, and what would mend it."""
    from fmnist import doctor

    lines = doctor.examine()
    is_able = not any(line.status == "error" for line in lines)
    rows: list[list[str | Text]] = [
        [line.name, Text(line.status, COLOURS[line.status]), line.found, line.mend or ""] for line in lines
    ]
    console = out(as_json)
    console.print(table(None, ["", "status", "found", "mend"], rows, justify="left"))
    console.print("This machine can train." if is_able else "This machine cannot train yet: mend the errors first.")
    give(as_json, {"is_able": is_able, "lines": [asdict(line) for line in lines]})
    if not is_able:
        raise typer.Exit(1)


@app.command()
def demo(
    model: ModelFolder = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8000,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Ask for pictures in a browser, and by REST, on this machine alone."""
    if not all(find_spec(name) for name in ("fastapi", "uvicorn", "fastapi_offline")):
        raise FmnistError("fmnist demo needs FastAPI and uvicorn; `pip install 'fmnist[demo]'` brings them")
    from fmnist.demo import server
    from fmnist.inference.classifier import Classifier

    run = find_model(model)
    classifier = Classifier.load(run)
    application = server.create_app(classifier, run.manifest(), server.find_samples(run))
    with server.listen(port) as listener:
        url = f"http://{server.ADDRESS}:{listener.getsockname()[1]}"
        errors.print(f"Model: {classifier.name}", soft_wrap=True)
        out(as_json).print(f"{url} is the page, {url}/docs its REST interface; Ctrl-C ends it", soft_wrap=True)
        give(as_json, {"url": url, "model": classifier.name})
        sys.stdout.flush()
        server.prepare(application, debug).run(sockets=[listener])


def find_run(folder: Path | None) -> "Run":
    """Open the run that was named, or the newest finished one."""
    from fmnist.runs import run as runs

    return runs.open_run(folder) if folder else runs.newest_finished()


def find_model(folder: Path | None) -> "Run":
    """Open the run that was named, or the newest finished one, or, where there is none, what comes with fmnist."""
    from fmnist.runs import run as runs

    if folder == PACKAGED and not folder.exists():
        return runs.packaged()
    return find_run(folder) if folder or runs.finished_runs(runs.RUNS_FOLDER) else runs.packaged()


def trained(run: "Run") -> dict[str, Any]:
    """Sum up a finished run."""
    manifest = run.manifest()
    return {
        "run": str(run.folder),
        "preset": run.config.preset,
        "seed": run.config.seed,
        "epochs": run.config.epochs,
        "parameters": manifest["parameters"],
        "train_seconds": manifest["train_seconds"],
        "val_accuracy": run.history()[-1]["val_accuracy"],
    }


def refuse_other_settings(run: "Run", given: dict[str, Any]) -> None:
    """Refuse flags that contradict a run that was begun without them."""
    planned = run.config.to_json()
    if "data" in given:
        given = {**given, "data": str(Path(given["data"]).expanduser().absolute())}
    for name, value in given.items():
        if value == planned[name]:
            continue
        if name == "epochs":
            raise FmnistError(
                f"--epochs {value}, but {run.folder} is planned for {planned[name]}, which its learning rate follows; "
                f"leave --epochs out, or train {value} epochs into a new folder"
            )
        raise FmnistError(
            f"--{name} {value}, but {run.folder} was begun with {name} {planned[name]}, and goes on as it was begun; "
            f"leave --{name} out"
        )


@contextmanager
def saying_how_to_go_on(folder: Path) -> Iterator[None]:
    """Whatever ends the training in a folder, say what is there and how to go on; SIGTERM ends it as Ctrl-C does."""

    def terminate(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        errors.print(interrupted(folder), soft_wrap=True)
        raise
    except OSError as error:
        if not (folder / "config.json").is_file():
            raise
        raise FmnistError(f"{one_line(error)}; `fmnist train --resume {folder}` goes on") from error
    finally:
        signal.signal(signal.SIGTERM, before)


def pictures(paths: list[Path]) -> list[Path]:
    """Put in place of each folder the pictures in it, by name; files stay, whatever they are."""
    from fmnist.inference.photo import SUFFIXES

    found: list[Path] = []
    for path in paths:
        try:
            inside = list(path.iterdir()) if path.is_dir() else []
        except OSError:
            inside = []  # what it is will be said when its turn to be read comes
        photos = sorted(item for item in inside if item.suffix.lower() in SUFFIXES and not item.is_dir())
        found += photos or [path]  # a folder without any is named as an error later
    return found


def look(file: Path, classifier: "Classifier", sheet: Path | None) -> dict[str, Any]:
    """Ask about one photo and, where a file is named for it, show how it was converted."""
    from fmnist import atomic
    from fmnist.inference import photo

    conversion = photo.convert(photo.read(file))
    if sheet:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        photo.contact_sheet(conversion.steps).save(content, "PNG")
        atomic.write(sheet, content.getvalue())
    return classifier.answer(conversion)


def verdict(answer: dict[str, Any]) -> str:
    """Say whether an answer is accepted, or why not."""
    if answer["accepted"] is None:
        return "no threshold"
    return "yes" if answer["accepted"] else f"not sure: {answer['reason']}"


def interrupted(folder: Path) -> str:
    """Say what an interrupted run leaves, and what can be done with it."""
    from fmnist.runs import run as runs

    try:
        num_epochs = len(runs.open_run(folder).history())
    except FmnistError:
        return f"Interrupted before the run began: nothing in {folder} to go on with."
    resume = f"`fmnist train --resume {folder}` goes on"
    if num_epochs == 0:
        return f"Interrupted before the first epoch was over; {resume}."
    return (
        f"Interrupted after {num_epochs} epochs. {resume} to the result of one go; `fmnist export {folder}` makes a "
        "model of what is there."
    )


def main() -> None:
    """Run the command line; every error but a usage error ends in one line and exit code 1."""
    show_log()
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        complain(error)
        sys.exit(1)
