"""What every test may use; the servers and clients that some need are plugins of their own."""

import gc
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("davfusion", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("davfusion")

pytest.register_assert_rewrite(
    "tests.conformance", "tests.conformance_trees", "tests.conformance_versions"
)
pytest_plugins = ["tests.fsspec_servers", "tests.http_names", "tests.servers"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What may take longest begins first: at the end, only one worker would have it.

    What writes gigabytes follows. A worker has its tests in this order, so that two of those are
    at the disk at once only if others have taken over some of them.
    """
    items.sort(key=lambda item: (_limit(item), _is_large(item)), reverse=True)


def _limit(item: pytest.Item) -> float:
    """The seconds that it has of its own, 0 if it has what all have."""
    marker = item.get_closest_marker("timeout")
    return 0 if marker is None else float(marker.args[0])


def _is_large(item: pytest.Item) -> bool:
    return item.get_closest_marker("large") is not None


def pytest_collection_finish() -> None:
    """The collector need not walk over thousands of tests each time."""
    gc.freeze()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """PEM files of a certificate that nobody knows, and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-out", str(cert), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.fixture
def no_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever makes one fails."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
