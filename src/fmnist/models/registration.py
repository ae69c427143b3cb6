"""Register the classes of fmnist with Keras, whichever is imported first.

`keras.models.load_model` finds the classes of a saved network by their registered names only. Importing Keras takes
seconds, so `import fmnist` does not do it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

CLASSES = {
    "AnyOfCrossentropy": "fmnist.training.photo_batches",
    "Dirac": "fmnist.models.networks",
    "FusedBatchNormalization": "fmnist.models.layers",
    "LossRecorder": "fmnist.training.epochs",
    "MatmulGradientConv2D": "fmnist.models.layers",
    "Muon": "fmnist.models.muon",
    "SummedConv2D": "fmnist.models.layers",
    "WindowMaxPooling2D": "fmnist.models.layers",
}
"""Name of each class that a file of Keras can contain, and its module, which registers it under `PACKAGE`."""
PACKAGE = "fmnist"


@dataclass(frozen=True)
class UnimportedClass:
    """Stands for a class in Keras' registry until its module is imported.

    The modules import each other and Keras, so they cannot be imported while Keras is.
    """

    name: str

    def from_config(self, config: dict[str, Any]) -> Any:
        """Return an instance of the class, as Keras asks for it."""
        return getattr(import_module(CLASSES[self.name]), self.name).from_config(config)


def register_classes(keras: ModuleType) -> None:
    """Register all classes that are not registered yet."""
    for name in CLASSES:
        keras.saving.get_custom_objects().setdefault(f"{PACKAGE}>{name}", UnimportedClass(name))


class RegisterAfterImport(MetaPathFinder):
    """Find Keras as without this finder, and register the classes once it is imported.

    Other libraries look for Keras without importing it, so the finder stays until an import has succeeded.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of Keras; None for all other modules."""
        if fullname != "keras":
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found), None)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                register_classes(module)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_with_keras() -> None:
    """Register the classes now if Keras is imported already, otherwise as soon as it is."""
    if keras := sys.modules.get("keras"):
        register_classes(keras)
    elif not any(isinstance(finder, RegisterAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, RegisterAfterImport())
