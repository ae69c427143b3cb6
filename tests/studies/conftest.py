"""What the tests of studies share."""

import tempfile

import pytest


@pytest.fixture(autouse=True)
def own_processors(tmp_path_factory, monkeypatch):
    """Keep the locks of the processors apart from those of a study that runs on this machine."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setattr(tempfile, "tempdir", folder)
