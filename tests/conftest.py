"""What every test may use; the servers and clients that some need are plugins of their own."""

import pytest

pytest.register_assert_rewrite(
    "tests.conformance", "tests.conformance_trees", "tests.conformance_versions"
)
pytest_plugins = ["tests.http_names", "tests.servers"]
