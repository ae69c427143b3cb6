"""The command line: `fmnist` and its commands."""

import io
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fmnist.cli import learn, research, use
from fmnist.cli.evaluate import evaluate
from fmnist.cli.study import study
from fmnist.cli.terminal import print_error, show_log
from fmnist.cli.train import train
from fmnist.errors import FmnistError, one_line

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Learn": (learn.data, learn.explore, train, evaluate),
    "Use": (use.predict, use.demo, use.adapt, use.export, use.doctor),
    "Research": (research.runs, research.compare, study),
}
"""The commands, in the groups of `fmnist --help`."""
EXTRAS = {
    **dict.fromkeys(("fastapi", "starlette", "uvicorn"), "demo"),
    **dict.fromkeys(("jinja2", "keras", "matplotlib", "onnx", "requests", "safetensors", "scipy", "sklearn"), "train"),
    "distributed": "cluster",
    "optuna": "search",
    "tensorboard": "tensorboard",
    "tf2onnx": "train",
}
"""Package to the extra that installs it."""


class GroupedHelp(TyperGroup):
    """A command group whose help lists the commands in groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group."""
        for title, functions in COMMANDS.items():
            with formatter.section(title):
                names = [function.__name__ for function in functions]
                formatter.write_dl([(name, self.commands[name].get_short_help_str(80)) for name in names])


app = typer.Typer(
    cls=GroupedHelp,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _function in (function for functions in COMMANDS.values() for function in functions):
    app.command()(_function)


def show_version(is_requested: bool) -> None:
    """Print the version and exit, if requested."""
    if is_requested:
        from fmnist import __version__

        typer.echo(f"fmnist {__version__}")
        raise typer.Exit


@app.callback()
def fmnist(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Train, evaluate and use a Fashion-MNIST classifier."""


def main() -> None:
    """Run the command line. Every error but a usage error is one line and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # there is none in a program without a console
            stream.reconfigure(errors="backslashreplace")  # a file name can have characters that the console has not
    show_log()
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        print_error(explain(error))
        sys.exit(1)


def explain(error: Exception) -> Exception:
    """Add what to do: install a missing optional package, or report an error that fmnist did not foresee."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in EXTRAS:
        hint = f"`pip install 'fmnist[{EXTRAS[package]}]'` installs it"
        return FmnistError(f"this command needs the package {package}; {hint}")
    if isinstance(error, FmnistError | OSError | MemoryError):
        return error
    return FmnistError(
        f"{one_line(error)}. This is a bug in fmnist: repeat the command with --debug, and report its output together "
        "with that of `fmnist doctor --json`"
    )
