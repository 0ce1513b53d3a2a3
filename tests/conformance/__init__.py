"""What each port promises, checked on every adapter of it."""

import pytest

pytest.register_assert_rewrite("tests.conformance.sink_behaviours", "tests.conformance.source_behaviours")
