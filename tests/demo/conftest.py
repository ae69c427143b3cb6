import pytest

from fmnist.inference.classifier import Classifier
from fmnist.runs.run import open_pretrained


@pytest.fixture(scope="session")
def classifier():
    """The pretrained model, which needs no training."""
    return Classifier.load()


@pytest.fixture(scope="session")
def manifest():
    """The manifest of `classifier`."""
    return open_pretrained().manifest()
