"""Amounts as people say them: digit for digit, however many there are."""

from decimal import Decimal, localcontext

from hypothesis import example, given
from hypothesis import strategies as st

from executor.amounts import dollars, plain


@given(units=st.integers(0, 10**60), decimals=st.integers(0, 19))
@example(units=10**40 + 1, decimals=12)
def test_an_amount_is_never_rounded(units, decimals):
    said = plain(units, decimals)
    with localcontext(prec=100):
        assert Decimal(said).scaleb(decimals) == units
    assert said == "0" or not said.startswith("0") or said.startswith("0.")
    assert "." not in said or not said.endswith(("0", "."))
    assert Decimal(dollars(units, decimals).removeprefix("$")) == Decimal(said)
    assert len(dollars(units, decimals).partition(".")[2]) >= 2
