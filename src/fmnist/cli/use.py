"""The commands to use a model with: predict, demo, adapt, export, doctor."""

import sys
import traceback
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import typer

from fmnist.cli.options import (
    AsJson,
    Cluster,
    DataFolder,
    Debug,
    ModelFolder,
    NetworkFunction,
    find_model,
    require_backend,
)
from fmnist.cli.terminal import console_for, print_error, print_json, stderr_console
from fmnist.errors import FmnistError, quote
from fmnist.quiet import importing_keras


def predict(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Pictures, or folders of pictures, without subfolders; - is standard input.", show_default=False
        ),
    ] = None,
    model: ModelFolder = None,
    kind: Annotated[
        Literal["image", "photo"] | None,
        typer.Option(
            "--as",
            help="Take pictures as images in the format of the data set, or as photos, whatever they look like.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        Path | None, typer.Option("--steps", help="Folder for a picture of each conversion.", show_default=False)
    ] = None,
    list_file: Annotated[
        Path | None,
        typer.Option("--list", help="Text file with the name of a picture or folder on each line.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the answers as JSON lines, in parts of 1,000. The same command continues after a kill.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="With --out: number of processes.")] = 1,
    cluster: Cluster = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Predict what garments pictures show, or "not sure"."""
    from rich.progress import Progress

    from fmnist.cli import pictures, tables
    from fmnist.inference.classifier import Classifier
    from fmnist.inference.parts import answer_item

    if not files and not list_file:
        raise typer.BadParameter("expected pictures, folders of pictures, or --list", param_hint="'FILES...'")
    named = chain(files or [], pictures.read_list(list_file) if list_file else [])
    if out:
        if steps:
            raise typer.BadParameter("expected no --steps with --out", param_hint="'--steps'")
        if jobs > 1 and cluster:
            raise typer.BadParameter("the cluster's workers are its processes; leave it out", param_hint="'--jobs'")
        from fmnist.cli.parts import predict_parts

        predict_parts(named, find_model(model), kind, out, jobs, cluster, as_json=as_json)
        return
    if jobs > 1 or cluster:
        name = "--jobs" if jobs > 1 else "--cluster"
        raise typer.BadParameter(f"expected --out with {name}", param_hint=f"'{name}'")
    classifier = Classifier.load(find_model(model))
    stderr_console.print(f"Model: {classifier.name}", soft_wrap=True)
    passed_over: list[str] = []
    found = list(pictures.list_pictures(named, passed_over))
    if passed_over:
        stderr_console.print(pictures.describe_passed_over(passed_over), soft_wrap=True)
    answers: list[pictures.Answer] = []
    code = 0
    try:
        with Progress(console=stderr_console, transient=True, disable=not stderr_console.is_terminal) as progress:
            for answer in progress.track(
                pictures.classify_files(classifier, found, kind, steps), len(found), description="Pictures"
            ):
                answers.append(answer)
                if answer.error:
                    code = 1
                    print_error(answer.error)
                    if debug:
                        traceback.print_exception(answer.error)
    except KeyboardInterrupt:
        code = 130
        stderr_console.print(f"Interrupted after {len(answers)} of {len(found)} pictures", soft_wrap=True)
    predictions = [(str(answer.file), answer.prediction) for answer in answers if answer.prediction]
    if predictions:
        console = console_for(as_json)
        console.print(f"Predictions of {classifier.name}", soft_wrap=True)
        console.print(tables.predictions_table(predictions))
    print_json(
        as_json,
        [
            answer_item(str(answer.file), answer.prediction or answer.error or FmnistError("no answer"))
            for answer in answers
        ],
    )
    if code:
        raise typer.Exit(code)


def demo(
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a finished run, or of a model by `fmnist adapt`. `pretrained` is the model that comes with "
            "fmnist.",
            show_default="pretrained",
        ),
    ] = None,
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
    from fmnist.inference.adapted import AdaptedClassifier
    from fmnist.inference.classifier import Classifier

    run = find_model(model)
    if isinstance(run, Path) and not run.is_dir():
        raise FmnistError(f"{run} is a file; expected the folder of its run, which has also its rejection rule")
    classifier = Classifier.load(run)
    if isinstance(classifier, AdaptedClassifier):
        application = server.create_app(classifier, classifier.record, host=host)
    else:
        assert not isinstance(run, Path)
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


def adapt(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder with a folder for each class, of any kind, with 5 photos or more."),
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder for the model.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a model for other classes from a few photos of each."""
    from rich.progress import Progress

    from fmnist.cli import tables
    from fmnist.inference.adapt import adapt as adapt_to

    with Progress(console=stderr_console, transient=True, disable=not stderr_console.is_terminal) as progress:
        task = progress.add_task("Photos", total=None)
        record, skipped = adapt_to(folder, out, lambda total: progress.update(task, total=total, advance=1))
    for reason in skipped.values():
        stderr_console.print(f"Skipped: {reason}", soft_wrap=True)
    console = console_for(as_json)
    rows = [[name, f"{number:,}"] for name, number in zip(record.class_names, record.num_photos, strict=True)]
    console.print(tables.table("Photos", ["class", "photos"], rows))
    for sentence in tables.adapted_sentences(record):
        console.print(sentence, soft_wrap=True)
    console.print(f"Saved {out}; `fmnist predict --model {quote(out)} photo.jpg` uses it", soft_wrap=True)
    errors = [{"file": str(file), "error": reason} for file, reason in skipped.items()]
    print_json(as_json, {"model": str(out), **record.to_json(), "skipped": errors})


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
    network: NetworkFunction = None,
    data: DataFolder = None,
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
    dataset = chosen.load_data(data) if data else None
    if not (int8 and chosen.manifest_path.is_file()):
        require_backend("tensorflow")
        with importing_keras():
            from fmnist.export.keras_file import export_keras
            from fmnist.export.onnx import export_run
            from fmnist.export.plain import export_plain
    if not (int8 or plain or keras) or not chosen.manifest_path.is_file():
        export_run(chosen, dataset, network)
    if int8:
        from fmnist.export.quantize import quantize_run

        quantize_run(chosen, dataset)
    elif plain:
        export_plain(chosen, network)
    elif keras:
        export_keras(chosen, network)
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
