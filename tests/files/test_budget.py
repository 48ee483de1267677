"""One rule for what foreign files may cost: it refuses too much, and nothing that people write."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adm_cli.files.budget import (
    MOST_WHOLE,
    LimitedFile,
    TooMuchError,
    counted,
    finite_number,
    parse_json,
    whole_number,
    whole_text,
)

at_leisure = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MOST_WHOLE + 1, MOST_WHOLE - 1)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@at_leisure
@given(JSON, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_json_is_read_as_ever(value: Any, encoding: str) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert parse_json(text) == value
    assert parse_json(json.dumps(value)) == value
    if text.isprintable():  # with half surrogates there is no encoding
        assert parse_json(text.encode(encoding)) == value


@at_leisure
@given(JSON)
def test_entries_and_depth_are_counted_exactly(value: Any) -> None:
    def size(value: Any) -> tuple[int, int]:
        inner = list(value.values() if isinstance(value, dict) else value)
        found = [size(v) for v in inner if isinstance(v, (list, dict))]
        commas = max(0, len(inner) - 1)
        return 1 + commas + sum(n for n, _ in found), 1 + max((d for _, d in found), default=0)

    entries, depth = size([value])
    text = json.dumps([value])
    assert parse_json(text, entries=entries, depth=depth) == [value]
    with pytest.raises(TooMuchError):
        parse_json(text, entries=entries - 1)
    with pytest.raises(TooMuchError):
        parse_json(text, depth=depth - 1)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**6,
        '{"a":' * 1000 + "1" + "}" * 1000,
        "[" + "[]," * 10**6 + "1]",
        '["' + '","' * 10**6 + '"]',
        '["\\\\", "\\"", ' + "[" * 40 + "]" * 40 + "]",
        "1" * 10**6,
        "-" + "9" * 30,
        str(2**64),
        "1e999",
        "-1e999",
        " " * 2**25,
    ],
    ids=range(11),
)
def test_too_much_json_is_refused_at_once(text: str) -> None:
    for form in (text, text.encode()):
        with pytest.raises(TooMuchError):
            parse_json(form)


@at_leisure
@given(st.text(alphabet='[]{},:"\\ 1e9-n\n', max_size=40))
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011  # of whatever text
            parse_json(text)
        return
    try:
        assert parse_json(text) == expected
    except TooMuchError:
        assert "9" in text or "1" in text  # a number


def test_numbers() -> None:
    assert whole_number(0, 0, 0) == 0
    assert finite_number(3) == 3.0
    for value in (True, 1.0, "1", None, -1, 2**64, 10**5000):
        with pytest.raises(ValueError, match="expected a whole number from 0 to 5"):
            whole_number(value, 0, 5)
    for other in (True, "1", None, float("nan"), float("inf"), 10**400, -(10**5000)):
        with pytest.raises(ValueError, match="expected a finite number"):
            finite_number(other)


def test_what_comes_one_by_one_is_counted() -> None:
    assert list(counted(range(3), "files", 3)) == [0, 1, 2]
    endless = iter(int, 1)
    with pytest.raises(TooMuchError, match="over 3 files"):
        list(counted(endless, "files", 3))


def test_a_library_s_reads_are_bounded() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i in range(20):
            archive.writestr(f"{i}", bytes(100))
    with zipfile.ZipFile(LimitedFile(buffer, 2000)) as archive:
        assert archive.read("7") == bytes(100)
    with pytest.raises(TooMuchError, match="500 bytes"):
        zipfile.ZipFile(LimitedFile(buffer, 500))
    with pytest.raises(TooMuchError, match="19 files"):
        zipfile.ZipFile(LimitedFile(buffer, 2000, mark=b"PK\1\2", entries=19))
    buffer.seek(0)
    with pytest.raises(TooMuchError):
        LimitedFile(buffer, 100).read()


def test_a_text_that_is_no_number_is_shown() -> None:
    with pytest.raises(ValueError, match=r"^'many', expected a whole number$"):
        whole_text("many")
