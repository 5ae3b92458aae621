"""Generated calls against the OpenAPI document: no defect, no undocumented status, only problems as errors."""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from apiflask import APIFlask
from hypothesis import HealthCheck, Phase, given, settings

from tests.trading_api.conftest import CONTROLLER

# A seeded selection by default; all 2,000 calls and more: SCHEMATHESIS_EXAMPLES=60.
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "6"))
CALLS: list[int] = []
RELAXED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
)


@pytest.mark.parametrize("signed_in", [True, False])
def test_generated_calls(app: APIFlask, signed_in: bool) -> None:
    app.config.update(REQUESTS_PER_MINUTE=10**9, REFUSALS_PER_MINUTE=10**9)
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", app)
    headers = CONTROLLER if signed_in else {}
    for result in schema.get_all_operations():
        CALLS.append(_call_often(result.ok(), headers))
        assert CALLS[-1] > 0, "an operation without a single call proves nothing"
    print(f"{sum(CALLS)} calls so far")


def _call_often(operation: Any, headers: dict[str, str]) -> int:
    """Call one operation with generated values; returns how often."""
    calls = 0
    documented = {int(status) for status in operation.definition.raw["responses"]}
    is_open = operation.path in ("/api/health", "/api/ready")

    @RELAXED
    @given(case=operation.as_strategy())
    def call(case: Any) -> None:
        nonlocal calls
        calls += 1
        answer = case.call(headers=headers)
        said = (case.method, case.path, answer.status_code, answer.text[:300])
        assert answer.status_code < 500 or answer.status_code == 503, said
        assert answer.status_code in documented, said
        if answer.status_code >= 400 and not is_open:
            assert answer.headers["content-type"] == ["application/problem+json"], said
        if not headers and not is_open:
            assert answer.status_code == 401, said

    call()
    return calls
