"""The commands to use a model with: predict, demo, export, doctor."""

import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace

from fmnist.cli.options import AsJson, Debug, ModelFolder, find_model, require_backend
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
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets everybody in the network use it.")
    ] = "127.0.0.1",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Classify pictures in a browser and by REST, on this machine only unless --host says otherwise."""
    import os
    import signal

    from fmnist.demo import server
    from fmnist.demo.middleware import is_loopback
    from fmnist.inference.classifier import Classifier

    run = find_model(model)
    if isinstance(run, Path):
        raise FmnistError(f"{run} is a file; expected the folder of its run, which has also its rejection rule")
    classifier = Classifier.load(run)
    application = server.create_app(classifier, run.manifest(), server.find_samples(run), host=host)
    with server.listen(port, host) as listener:
        url = server.url_of(listener)
        stderr_console.print(f"Model: {classifier.name}", soft_wrap=True)
        if not is_loopback(listener.getsockname()[0]):
            stderr_console.print(
                "Warning: everybody in the network can use this server. It has no accounts and no encryption.",
                soft_wrap=True,
            )
        console_for(as_json).print(
            f"{url} is the page, {url}/openapi.json the REST interface; Ctrl-C stops the server", soft_wrap=True
        )
        print_json(as_json, {"url": url, "model": classifier.name})
        sys.stdout.flush()
        server.prepare_process(debug)
        # The server catches these signals, ends, and raises them again. A thread cannot be stopped, and Python would
        # wait for it. There is nothing to save.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os._exit(128 + number))
        server.make_server(application, debug).run(sockets=[listener])


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run with weights.")],
    int8: Annotated[bool, typer.Option("--int8", help="Quantize the run's graph: a quarter of the size.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Write a graph of a single view for other runtimes, as OpenCV.")
    ] = False,
    keras: Annotated[
        bool, typer.Option("--keras", help="Write the network in Keras' format, with layers of Keras alone.")
    ] = False,
    destination: Annotated[
        Path | None, typer.Option("--out", help="Also copy the exported file to this one.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a run's model.onnx and manifest again, or another format of its model."""
    if int8 + plain + keras > 1:
        raise typer.BadParameter("expected one of --int8, --plain and --keras at a time", param_hint="'fmnist export'")
    from fmnist.cli import tables
    from fmnist.files import MAX_MODEL_BYTES, read_bounded, write_atomic
    from fmnist.runs.run import open_run
    from fmnist.runs.schemas import GRAPH_FILE, INT8_FILE, KERAS_FILE, PLAIN_FILE

    chosen = open_run(run)
    if not (int8 and chosen.manifest_path.is_file()):
        require_backend("tensorflow")
        with quiet_stderr():
            from fmnist.export.keras_file import export_keras
            from fmnist.export.onnx import export_run
            from fmnist.export.plain import export_plain
    if not (int8 or plain or keras) or not chosen.manifest_path.is_file():
        export_run(chosen)
    if int8:
        from fmnist.export.quantize import quantize_run

        quantize_run(chosen)
    elif plain:
        export_plain(chosen)
    elif keras:
        export_keras(chosen)
    manifest = chosen.manifest()
    file = INT8_FILE if int8 else PLAIN_FILE if plain else KERAS_FILE if keras else GRAPH_FILE
    path = chosen.folder / file
    if destination:
        write_atomic(destination, read_bounded(path, MAX_MODEL_BYTES, "export again"))
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
