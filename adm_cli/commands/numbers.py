"""Numbers as a person reads them: no more digits than their errors allow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from adm_cli.commands import console
from adm_cli.commands.progress import duration

_ROUNDING = 1e-12  # shown as 0
_SMALL = 1e-5  # from here down, a number has an exponent
_MOST_DIGITS = 6  # of a number without an error


def rounded(value: float, error: float | None) -> str:
    """``value`` to the last of the two digits of its ``error``: 12.3457 ± 0.012 is 12.346.

    Six digits at most; so many without an error, or with one of 0.
    """
    value = 0.0 if abs(value) < _ROUNDING else value
    if value == 0 or not error or not math.isfinite(error) or error < _ROUNDING:
        return f"{value:.{_MOST_DIGITS}g}"
    most = _MOST_DIGITS - 1 - math.floor(math.log10(max(abs(value), error)))
    places = max(0, min(most, 1 - math.floor(math.log10(float(f"{error:.1e}")))))
    if abs(value) < _SMALL and error < _SMALL:
        return f"{value:.{max(0, places + math.floor(math.log10(abs(value))))}e}"
    return f"{value:.{places}f}"


def error_text(error: float | None) -> str:
    """Two digits of it; "-" where there is none."""
    if error is None or not math.isfinite(error):
        return "-"
    if error < _ROUNDING:
        return "0"
    return rounded(error, error) if _SMALL <= error < 1e6 else f"{error:.1e}"


def with_error(value: float | None, error: float | None) -> str:
    """ "12.346 ± 0.012"; the number alone where nobody knows its error."""
    if value is None:
        return "-"
    if error is None or not math.isfinite(error):
        return rounded(value, None)
    return f"{rounded(value, error)} ± {error_text(error)}"


def show_costs(facts: Mapping[str, Any], *, json: bool) -> None:
    """What something would cost, a line a fact: bytes in GB, seconds as a person says them."""
    if json:
        console.print_json(facts)
        return
    for name, value in facts.items():
        text = "-" if value in (None, "") else str(value)
        if name.endswith("_bytes") and value is not None:
            name, text = name.removesuffix("_bytes"), _size(value)
        elif name == "seconds":
            known = "not known before the first images" if value is None else duration(value)
            name, text = "time", known if value is None else f"about {known}"
        elif isinstance(value, int):
            text = f"{value:,}"
        console.out.print(f"{name:14} {console.one_line(text)}", markup=False)


def _size(count: float) -> str:
    return f"{count / 1e9:.3f} GB" if count >= 1e7 else f"{count / 1e6:.3g} MB"
