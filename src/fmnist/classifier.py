"""Images in, answers out, through ONNX Runtime alone: the one way by which everything asks a trained model."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from fmnist import data, environment, photo, runs
from fmnist.errors import FmnistError

BATCH_SIZE = 100
"""Images a call, each in every view: more are no faster on two cores and take more memory."""
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP")


class Classifier:
    """A trained model, ready to be asked."""

    def __init__(self, onnx: bytes, class_names: Sequence[str], name: str = "model"):
        """Open a complete graph.

        Args:
            onnx: the content of a `model.onnx`.
            class_names: one for each probability.
            name: what to call it in answers.
        """
        self.class_names = tuple(class_names)
        self.name = name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = environment.num_processors()
        # Threads that wait sleep: spinning takes twice the processor time, and is slower wherever others work too.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        # Where the processor cannot add products of bytes without overflow (no VNNI), int8 graphs go a slower way
        # that can, and give the same answers everywhere. The switch does nothing elsewhere.
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            first_line = str(error).strip().splitlines()[0]
            raise FmnistError(f"ONNX Runtime cannot read the graph of {name}: {first_line}") from error
        width = next(output.shape[-1] for output in self._session.get_outputs() if output.name == "probabilities")
        if width != len(self.class_names):
            raise FmnistError(f"the graph of {name} knows {width} classes, but {len(self.class_names)} are named")

    @classmethod
    def load(cls, run: runs.Run | str | Path, *, int8: bool = False) -> "Classifier":
        """Open the model of a finished run.

        Args:
            run: the run, or its folder.
            int8: take the quantised graph, smaller and quicker, that `fmnist export --int8` has made.

        Raises:
            FmnistError: if it is missing, not finished, of another format version, or not what its manifest says.
        """
        run = run if isinstance(run, runs.Run) else runs.open_run(run)
        content = run.read_onnx(runs.INT8_FILE if int8 else "model.onnx")
        return cls(content, run.manifest()["class_names"], str(run.folder))

    def predict(self, images: np.ndarray, *, single_view: bool = False) -> np.ndarray:
        """Ask for images that are as in the data set.

        Args:
            images: (n, 28, 28) uint8, garment bright on black.
            single_view: look at each image once, as it is, instead of averaging over views: quicker, and a little
                less accurate.

        Returns:
            (n, classes) float32, rows that sum to 1.

        Raises:
            FmnistError: for images of another shape or type, or a single view of a graph that has no such choice.
        """
        return self.outputs(images, single_view=single_view)["probabilities"]

    def outputs(self, images: np.ndarray, *, single_view: bool = False) -> dict[str, np.ndarray]:
        """Give all that the graph tells of images; arguments and errors as in `predict`.

        Returns:
            `probabilities` and `probabilities_single_view`, (n, classes), and `features`, (n, width), all float32.
        """
        data.check_images(images)
        more = {"num_views": np.array(1, np.int32)} if single_view else {}
        if single_view and not self._session.get_overridable_initializers():
            raise FmnistError(f"the graph of {self.name} cannot be asked for a single view; `fmnist export` renews it")
        names = [output.name for output in self._session.get_outputs()]
        batches = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)] or [images]
        answers = [self._session.run(names, {"images": batch, **more}) for batch in batches]
        return {name: np.concatenate(parts) for name, parts in zip(names, zip(*answers, strict=True), strict=True)}

    def classify(self, picture: str | Path | np.ndarray) -> dict[str, Any]:
        """Ask for one picture.

        Args:
            picture: a file, or an array of shape (28, 28), uint8.

        Returns:
            `label` and `class` (name and index of the likeliest), its `probability`; `acceptance`, `accepted` and
            `reason`, None as long as models have no threshold; `top`, all classes by falling probability, each
            with `label`, `class` and `probability`.

        Raises:
            FmnistError: if it is no picture of 28x28 grey pixels.
        """
        image = picture if isinstance(picture, np.ndarray) else read_picture(Path(picture))
        return self._answer(image)

    def answer(self, conversion: photo.Conversion) -> dict[str, Any]:
        """Ask for a converted photo, as `classify` does."""
        answer = self._answer(conversion.pixels)
        acceptance = 0.0 if conversion.problem else answer["probability"]
        accepted = acceptance >= 0.6
        reason = (
            None if accepted else conversion.problem or f"between {answer['label']} and {answer['top'][1]['label']}"
        )
        return {**answer, "acceptance": acceptance, "accepted": accepted, "reason": reason, "top": answer["top"]}

    def _answer(self, image: np.ndarray) -> dict[str, Any]:
        (probabilities,) = self.predict(image[np.newaxis])
        top = [
            {
                "label": self.class_names[index],
                "class": int(index),
                "probability": float(probabilities[index]),
            }
            for index in np.argsort(-probabilities, kind="stable")
        ]
        return {**top[0], "acceptance": None, "accepted": None, "reason": None, "top": top}


def read_picture(path: Path) -> np.ndarray:
    """Read a picture that is as in the data set: 28x28, grey, garment bright on black.

    Returns:
        (28, 28) uint8.

    Raises:
        FmnistError: if it cannot be read, or has another size or mode.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=PICTURE_FORMATS) as picture:
            if (picture.mode, picture.size) != ("L", (28, 28)):
                raise FmnistError(
                    f"{path} is {picture.width}x{picture.height} pixels in mode {picture.mode}; expected 28x28 grey "
                    "(mode L), the garment bright on black"
                )
            return np.asarray(picture)
    except FileNotFoundError as error:
        raise FmnistError(f"no picture {path}; check the name") from error
    except IsADirectoryError as error:
        raise FmnistError(f"{path} is a folder; name the pictures in it") from error
    except UnidentifiedImageError as error:
        raise FmnistError(f"{path} is no picture; expected {', '.join(PICTURE_FORMATS)}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FmnistError(f"{path} cannot be read as a picture ({error})") from error
