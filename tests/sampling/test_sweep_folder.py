"""What is kept beside the cells of a sweep, and what is made of damage to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adm_cli.errors import AdmError
from adm_cli.files.sealed import seal
from adm_cli.sampling.sweeps.folder import Results, SweepFolder, shown

ROW = {"cell": "a", "scale": 2.0, "drawn": 3, "seconds": 1.5, "metrics": ["fid"], "scores_of": "x"}

WHOLE: dict[str, Any] = {"format": 2, "facts": {}, "files": {}, "axes": {}, "cells": []}


def test_round_trip(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "new")
    assert folder.read() == Results({}, {}, {}, {})
    folder.write({"scale": [2.0]}, [ROW], {"adm": "1"})
    assert folder.read() == Results({"scale": [2.0]}, {"a": ROW}, {"adm": "1"}, {})
    assert folder.results() == ["sweep.csv", "sweep.json"]
    assert folder.table.read_text().splitlines() == ["cell,scale,drawn,seconds", "a,2.0,3,1.5"]
    assert "scores_of" not in shown(ROW)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {**WHOLE, "format": 1},
        {**WHOLE, "axes": []},
        {**WHOLE, "axes": {"scale": 1}},
        {**WHOLE, "cells": ["a"]},
        {**WHOLE, "cells": [{"scale": 1}]},
        {**WHOLE, "cells": [{**ROW, "seconds": "long"}]},
        {**WHOLE, "cells": [{**ROW, "metrics": 3}]},
        {**WHOLE, "facts": 3},
        {**WHOLE, "files": {"../sheet.png": ""}},
    ],
)
def test_damage_is_told(tmp_path: Path, value: Any) -> None:
    sealed = seal((json.dumps(value, indent=2)[:-2] + ",\n").encode())
    for data in (json.dumps(value).encode(), sealed):
        (tmp_path / "sweep.json").write_bytes(data)
        with pytest.raises(AdmError, match=r"sweep\.json is damaged .*remove it; the images are"):
            SweepFolder(tmp_path).read()


def test_one_of_two_copies_is_enough(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    folder.write({}, [ROW], {})
    for path in tmp_path.glob("*sweep.json*"):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert folder.read().rows == {"a": ROW}
        assert [finding.file for finding in folder.verify()] == [path.name, "a"]  # no cell
        path.write_bytes(whole)
