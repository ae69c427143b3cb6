"""The commands to use a model with: predict, demo, export, doctor."""

import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace

from fmnist.cli.options import AsJson, DataFolder, Debug, ModelFolder, find_model, require_backend
from fmnist.cli.terminal import console_for, print_error, print_json, stderr_console
from fmnist.errors import FmnistError, one_line
from fmnist.quiet import quiet_stderr

MAX_STEM_LENGTH = 60
"""Characters of a photo's name in the name of its steps: file systems allow 255 bytes, and a character has up to 4."""

if TYPE_CHECKING:
    from fmnist.inference.prediction import Prediction


def predict(
    files: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    model: ModelFolder = None,
    steps: Annotated[
        Path | None, typer.Option("--steps", help="Folder for a picture of each conversion.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Predict what garments photos show, or "not sure"."""
    from fmnist.cli import tables
    from fmnist.inference.classifier import Classifier

    classifier = Classifier.load(find_model(model))
    stderr_console.print(f"Model: {classifier.name}", soft_wrap=True)
    predictions: list[tuple[str, Prediction]] = []
    documents: list[dict[str, Any]] = []
    has_errors = False
    for number, file in enumerate(list_pictures(files), start=1):
        try:
            prediction = classifier.classify(file)
            documents.append({"file": str(file), **prediction.to_json()})
            predictions.append((str(file), replace(prediction, steps={})))  # pictures of all files would fill memory
            if steps:
                save_steps(prediction, steps / f"{number:03}-{file.stem[:MAX_STEM_LENGTH]}.png")
        except (FmnistError, OSError) as error:
            has_errors = True
            print_error(error)
            if len(documents) < number:
                documents.append({"file": str(file), "error": one_line(error)})
    if predictions:
        console_for(as_json).print(tables.predictions_table(predictions))
    print_json(as_json, documents)
    if has_errors:
        raise typer.Exit(1)


def demo(
    model: ModelFolder = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8000,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Classify pictures in a browser and by REST, on this machine only."""
    from fmnist.demo import server
    from fmnist.inference.classifier import Classifier

    run = find_model(model)
    classifier = Classifier.load(run)
    application = server.create_app(classifier, run.manifest(), server.find_samples(run))
    with server.listen(port) as listener:
        url = f"http://{server.ADDRESS}:{listener.getsockname()[1]}"
        stderr_console.print(f"Model: {classifier.name}", soft_wrap=True)
        console_for(as_json).print(
            f"{url} is the page, {url}/openapi.json the REST interface; Ctrl-C stops the server", soft_wrap=True
        )
        print_json(as_json, {"url": url, "model": classifier.name})
        sys.stdout.flush()
        server.make_server(application, debug).run(sockets=[listener])


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run with weights.")],
    int8: Annotated[bool, typer.Option("--int8", help="Quantize the run's graph: a quarter of the size.")] = False,
    destination: Annotated[
        Path | None, typer.Option("--out", help="Also copy the graph to this file.", show_default=False)
    ] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a run's model.onnx and manifest again, or its model-int8.onnx."""
    from fmnist.cli import tables
    from fmnist.files import write_atomic
    from fmnist.runs.run import open_run
    from fmnist.runs.schemas import INT8_FILE

    chosen = open_run(run)
    dataset = chosen.load_data(data) if data else None
    if not (int8 and chosen.manifest_path.is_file()):
        require_backend("tensorflow")
        with quiet_stderr():
            from fmnist.export.onnx import export_run
        manifest = export_run(chosen, dataset)
    if int8:
        from fmnist.export.quantize import quantize_run

        manifest = quantize_run(chosen, dataset)
    path = chosen.folder / INT8_FILE if int8 else chosen.onnx_path
    if destination:
        write_atomic(destination, chosen.read_graph(path.name, manifest))
    console = console_for(as_json)
    if int8 and manifest.int8:
        console.print(tables.int8_sentence(manifest.int8))
    console.print(f"Exported {destination or path}", soft_wrap=True)
    print_json(as_json, {"run": str(chosen.folder), "file": str(destination or path), **manifest.to_json()})


def doctor(as_json: AsJson = False, debug: Debug = False) -> None:
    """Check this machine, with a hint for each problem."""
    from fmnist import doctor as machine
    from fmnist.cli import tables

    checks = machine.check_machine()
    console = console_for(as_json)
    console.print(tables.checks_table(checks))
    console.print(machine.summarize(checks))
    can_train = machine.can_train(checks)
    print_json(as_json, {"can_train": can_train, "checks": [asdict(check) for check in checks]})
    if not can_train:
        raise typer.Exit(1)


def list_pictures(paths: list[Path]) -> list[Path]:
    """Replace each folder by the pictures in it, in the order of their names. Files are kept, whatever they are."""
    from fmnist.inference.photo import SUFFIXES

    files: list[Path] = []
    for path in paths:
        try:
            entries = list(path.iterdir()) if path.is_dir() else []
            pictures = sorted(entry for entry in entries if entry.suffix.lower() in SUFFIXES and not entry.is_dir())
        except OSError:
            pictures = []
        files += pictures or [path]  # reading a folder as a picture raises the error
    return files


def save_steps(prediction: "Prediction", path: Path) -> None:
    """Save a picture of the steps of a prediction's conversion."""
    from fmnist.files import write_atomic
    from fmnist.inference.photo import contact_sheet

    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    contact_sheet(prediction.steps).save(content, "PNG")
    write_atomic(path, content.getvalue())
