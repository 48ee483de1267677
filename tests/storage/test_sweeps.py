"""What is kept beside the cells of a sweep, and what is made of damage to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adm_cli.errors import AdmError
from adm_cli.storage.sweeps import SweepFolder, shown

ROW = {"cell": "a", "scale": 2.0, "drawn": 3, "seconds": 1.5, "metrics": ["fid"], "scores_of": "x"}


def test_round_trip(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "new")
    assert folder.read() == ({}, {})
    folder.write({"scale": [2.0]}, [ROW], {"adm": "1"})
    assert folder.read() == ({"scale": [2.0]}, {"a": ROW})
    assert folder.results() == ["sweep.csv", "sweep.json"]
    assert folder.table.read_text().splitlines() == ["cell,scale,drawn,seconds", "a,2.0,3,1.5"]
    assert "scores_of" not in shown(ROW)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"format": 2, "axes": {}, "cells": []},
        {"format": 1, "axes": [], "cells": []},
        {"format": 1, "axes": {"scale": 1}, "cells": []},
        {"format": 1, "axes": {}, "cells": ["a"]},
        {"format": 1, "axes": {}, "cells": [{"scale": 1}]},
        {"format": 1, "axes": {}, "cells": [{**ROW, "seconds": "long"}]},
        {"format": 1, "axes": {}, "cells": [{**ROW, "metrics": 3}]},
    ],
)
def test_damage_is_told_and_mended(tmp_path: Path, value: Any) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps(value))
    with pytest.raises(AdmError, match=r"sweep\.json is damaged .*remove it; the images are safe"):
        SweepFolder(tmp_path).read()
