"""Import what the user names on the command line: `module:function` or `file.py:function`.

Nothing that a run folder or a model file contains comes here: it would run the code of whoever wrote it.
"""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from fmnist.errors import FmnistError, one_line, type_of
from fmnist.files import sha256

MAX_SUGGESTIONS = 10
"""Functions that are named in the message about one that is missing."""


def import_function(reference: str) -> tuple[Callable[..., Any], str]:
    """Import a function, which runs the code of its module.

    The current folder is importable, as are the modules beside a named file.

    Args:
        reference: `module:function` or `file.py:function`. The function can be anything callable, also an attribute,
            as in `module:model.predict`.

    Returns:
        The function, and the SHA-256 of the file that the reference names, which is not always the one that the
        function was written in.

    Raises:
        FmnistError: if there is no such file, module or function, it is not callable, or the import fails.
    """
    source, _, function_name = reference.rpartition(":")
    if not source or not all(part.isidentifier() for part in function_name.split(".")):
        raise FmnistError(f"{reference!r} names no function; expected module:function or file.py:function")
    module, content = _import_file(Path(source)) if _is_file(source) else _import_module(source)
    try:
        function = attrgetter(function_name)(module)
    except AttributeError as error:
        raise FmnistError(f"{source} has no function {function_name}; {_suggestions(module)}") from error
    if not callable(function):
        raise FmnistError(f"{reference} is {type_of(function)}; expected a function; {_suggestions(module)}")
    return function, sha256(content)


def _is_file(source: str) -> bool:
    return source.endswith(".py") or not all(part.isidentifier() for part in source.split("."))


def _import_file(path: Path) -> tuple[ModuleType, bytes]:
    """Execute a file as a module, once as long as it stays the same. Return the module and the file's content."""
    try:
        path = path.expanduser().resolve()
        content = path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a null byte; RuntimeError: no home folder
        raise FmnistError(f"{one_line(error)}; expected module:function or file.py:function") from error
    _make_importable(path.parent)
    # The name is no other module's, and that of the file at this place with this content.
    name = f"{path.stem}_{sha256(str(path).encode(errors='surrogateescape') + content)[:12]}"
    if name in sys.modules:
        return sys.modules[name], content
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look there
    try:
        exec(compile(content, path, "exec"), module.__dict__)  # what is hashed, not a cached older version
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _import_error(path, error) from error
    return module, content


def _import_module(name: str) -> tuple[ModuleType, bytes]:
    """Import a module. Return it and the content of its file."""
    _make_importable(Path.cwd())
    importlib.invalidate_caches()  # a file that was written a moment ago
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise FmnistError(
                f"no module {error.name} in {Path.cwd()} or among the installed packages; check the name, or name its "
                "file: file.py:function"
            ) from error
        raise _import_error(name, error) from error
    if not getattr(module, "__file__", None):
        raise FmnistError(f"{name} has no source file; expected a module that is a file: module:function")
    return module, Path(str(module.__file__)).read_bytes()


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _import_error(source: object, error: BaseException) -> FmnistError:
    """Return the error of a module that cannot be imported, with the line where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    line = "" if isinstance(error, SyntaxError) else f" ({place.filename}, line {place.lineno})"
    return FmnistError(f"importing {source} failed: {one_line(error)}{line}; correct it, or name another file")


def _suggestions(module: ModuleType) -> str:
    """Name the functions of a module: those that are written in it, or all if there are none."""
    functions = {name: value for name, value in vars(module).items() if callable(value) and not name.startswith("_")}
    own = [name for name, value in functions.items() if getattr(value, "__module__", None) == module.__name__]
    names = own or list(functions)
    if not names:
        return "it has no functions"
    return f"its functions: {', '.join(names[:MAX_SUGGESTIONS])}{', ...' if len(names) > MAX_SUGGESTIONS else ''}"
