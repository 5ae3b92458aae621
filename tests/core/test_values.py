from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, replace

import pytest

from tests.support.trading import prediction
from tradewind.core.values import changed


def test_it_is_replace() -> None:
    before = prediction()
    after = changed(before, p_long=0.25, model_version="other")
    assert after == replace(before, p_long=0.25, model_version="other")
    assert before == prediction()
    assert hash(after) != hash(before)
    with pytest.raises(FrozenInstanceError):
        after.p_long = 0.5  # type: ignore[misc]  # that it cannot be set is what is tested


def test_an_unknown_field_and_a_value_with_checks_are_refused() -> None:
    with pytest.raises(KeyError):
        changed(prediction(), nonsense=1)

    @dataclass(frozen=True, slots=True)
    class Checked:
        a: int
        b: int

        def __post_init__(self) -> None:
            assert self.a < self.b

    with pytest.raises(TypeError, match="__post_init__"):
        changed(Checked(1, 2), a=3)
