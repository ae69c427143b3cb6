"""ONNX Runtime, imported without its telemetry.

Its official builds report sessions to Microsoft unless ORT_DISABLE_TELEMETRY is set while they are imported. The
variable is set for the import only, so the environment of the process stays as it is. A user who wants to report sets
it to 0. A program that imports onnxruntime before fmnist makes its own choice.
"""

import os

_NAME = "ORT_DISABLE_TELEMETRY"
_is_set = _NAME in os.environ
os.environ.setdefault(_NAME, "1")
try:
    import onnxruntime
finally:
    if not _is_set:
        del os.environ[_NAME]

__all__ = ["onnxruntime"]
