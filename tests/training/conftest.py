"""Fixtures of the tests of training."""

import pytest

from fmnist.training import checks
from fmnist.training import train as training


@pytest.fixture
def no_export(monkeypatch):
    """Omit the export, which takes longer than the training."""
    monkeypatch.setattr(training, "export", lambda *_: None)
    monkeypatch.setattr(checks, "check_exportable", lambda *_: None)
