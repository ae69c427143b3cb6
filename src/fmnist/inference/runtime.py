"""ONNX Runtime, imported without its telemetry.

Its official builds report sessions to Microsoft unless ORT_DISABLE_TELEMETRY is set while they are imported. The
variable is set for the import only, so the environment of the process stays as it is. A user who wants to report sets
it to 0. A program that imports onnxruntime before fmnist makes its own choice.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fmnist.errors import FmnistError, one_line
from fmnist.inference.onnx_check import EXPORT_HINT, check_graph
from fmnist.runs.environment import has_vnni, num_cpus

_NAME = "ORT_DISABLE_TELEMETRY"
_is_set = _NAME in os.environ
os.environ.setdefault(_NAME, "1")
try:
    import onnxruntime
finally:
    if not _is_set:
        del os.environ[_NAME]

__all__ = ["limited_threads", "onnxruntime", "open_session", "session_options"]

_num_threads: ContextVar[int | None] = ContextVar("num_threads", default=None)


@contextmanager
def limited_threads(number: int) -> Iterator[None]:
    """Give the graphs that are opened in this block a number of threads each, instead of one for each processor."""
    token = _num_threads.set(number)
    try:
        yield
    finally:
        _num_threads.reset(token)


def open_session(content: bytes, name: str, hint: str = EXPORT_HINT) -> "onnxruntime.InferenceSession":
    """Open a graph.

    Args:
        content: the content of the ONNX file.
        name: the model's name for error messages.
        hint: what to do if the graph cannot be opened, for error messages.

    Raises:
        FmnistError: if the graph is damaged or not safe to open.
    """
    check_graph(content, name, hint)
    try:
        return onnxruntime.InferenceSession(content, session_options(), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise FmnistError(f"ONNX Runtime cannot read the graph of {name}: {one_line(error)}") from error


def session_options() -> onnxruntime.SessionOptions:
    """Return the options with which graphs are opened, as a new object."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _num_threads.get() or num_cpus()
    options.log_severity_level = 3
    # A thread that waits actively takes the processor from the other pictures of a batch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without VNNI, the fast int8 kernels overflow when products are added. The exact kernels take twice as long, but
    # give the same results on every processor. By default ONNX Runtime uses the exact ones on every x86 processor.
    options.add_session_config_entry("session.x64quantprecision", str(int(not has_vnni())))
    # `check_graph` reads ONNX files only; ONNX Runtime also has a format of its own.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options
