from __future__ import annotations

import pytest

from tests.testing.recording_cluster import RecordingCluster


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Runs pytest on a user's tests, in an environment that chooses no cluster."""
    for name in ("KAFKA_IMAGE", "POOLEDKAFKA_BOOTSTRAP", "POOLEDKAFKA_REQUIRE_DOCKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")  # it would import all of hypothesis in each run
    return pytester


@pytest.fixture
def made(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> list[RecordingCluster]:
    """The clusters that the plugin makes, none of which starts anything."""
    return RecordingCluster.install(monkeypatch)
