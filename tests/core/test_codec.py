from __future__ import annotations

import json
import math
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.trading import cycle, symbol_inputs
from tradewind.core.codec import decode, encode
from tradewind.core.inputs import CycleInputs
from tradewind.core.params import StrategyParams
from tradewind.core.types import ClosedTrade


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_reads_back_to_the_same_bits(value: float) -> None:
    trade = ClosedTrade("p", "SOL/USDT", cycle().now, value, Decimal("0.1"))
    again = decode(ClosedTrade, json.loads(json.dumps(encode(trade))))
    assert math.copysign(1, again.net_r) == math.copysign(1, value)
    assert again == trade


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_keeps_its_digits(value: Decimal) -> None:
    trade = ClosedTrade("p", "SOL/USDT", cycle().now, 0.0, value)
    assert str(decode(ClosedTrade, encode(trade)).net_quote) == str(value)


def test_a_whole_cycle_reads_back_equal() -> None:
    inputs = cycle(symbol_inputs(), symbol_inputs("ETH/USDT", prediction=None, missing=("features",)))
    again = CycleInputs.from_json(json.loads(json.dumps(inputs.to_json())))
    assert again == inputs
    assert again.params.hash == StrategyParams().hash


def test_what_json_has_no_word_for_is_refused() -> None:
    for value in (math.nan, math.inf, datetime(2024, 1, 1)):
        with pytest.raises(ValueError, match=r"NaN|time zone"):
            encode(value)
    with pytest.raises(TypeError, match="object"):
        encode(object())


def test_an_unknown_or_a_missing_field_is_told() -> None:
    data = encode(ClosedTrade("p", "SOL/USDT", cycle().now, 0.0, Decimal(1)))
    with pytest.raises(ValueError, match="surprise"):
        decode(ClosedTrade, {**data, "surprise": 1})
    del data["net_r"]
    with pytest.raises(TypeError):
        decode(ClosedTrade, data)
