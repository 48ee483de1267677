"""`adm evaluate-classifier`, end to end."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import adm_cli.reports.classifier as classifier_module
from adm_cli.diffusion.process import q_sample
from adm_cli.models.fast import FastResBlock
from tests.commands.test_bad_input import refused
from tests.conftest import Result, Toys
from tests.training.conftest import draw_pictures

Adm = Callable[..., Result]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("shapes") / "shapes", count=4)


@pytest.fixture
def judge(adm: Adm, toys: Toys, shapes: Path) -> Adm:
    def call(*arguments: object) -> Result:
        return adm("evaluate-classifier", shapes, "--classifier", toys.classifier, *arguments)

    return call


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_json_and_files_agree(judge: Adm) -> None:
    *steps, summary = lines(judge("--json", "--timesteps", 4, "-o", "report"))
    assert [row["timestep"] for row in steps] == [0, 33, 66, 99] == summary["timesteps"]
    assert summary["images"] == 8
    assert summary["complete"] is True
    mean = sum(row["acc1"] for row in steps) / 4
    assert summary["mean"]["acc1"] == pytest.approx(mean)
    assert json.loads(Path("report/report.json").read_text()) == summary
    rows = table("report/timesteps.csv")
    assert [float(row["ece"]) for row in rows] == [row["ece"] for row in steps]
    by_class = {row["class"]: row for row in table("report/classes.csv")}
    assert set(by_class) == {"0", "1"}
    accuracy = sum(float(row["acc1"]) for row in by_class.values()) / 2  # equally many of each
    assert accuracy == pytest.approx(mean)
    wrong = sum(int(row["guesses"]) for row in table("report/confusion.csv"))
    assert wrong == round((1 - mean) * 8 * 4)
    assert sum(int(row["guesses"]) for row in table("report/reliability.csv")) == 32
    with Image.open("report/report.png") as plot:
        assert plot.format == "PNG"


def test_both_paths_agree(judge: Adm, fast_blocks: list[FastResBlock]) -> None:
    asked = ("--json", "--timesteps", 2, "--num", 4)
    *_, fast = lines(judge(*asked))
    assert fast_blocks
    fast_blocks.clear()
    *_, plain = lines(judge(*asked, "--plain"))
    assert not fast_blocks
    assert fast["mean"] == pytest.approx(plain["mean"], rel=1e-4)


def test_table(judge: Adm) -> None:
    done = judge("--at", "50,0,50", "--num", 4)
    assert done.code == 0, done.err
    words = [line.split()[0] for line in done.out.splitlines() if line]
    assert words[:6] == ["timestep", "0", "50", "quarter", "quarter", "all"]
    assert "worst classes" in done.out
    assert "4 pictures in" in done.err


def test_the_same_numbers_at_any_batch_size(judge: Adm) -> None:
    a, b = (lines(judge("--json", "--at", 60, "-b", size)) for size in (3, 8))
    assert a[0]["loss"] == pytest.approx(b[0]["loss"], rel=1e-5)
    assert lines(judge("--json", "--at", "60", "--seed", 1))[0]["loss"] != b[0]["loss"]
    assert lines(judge("--json", "--at", "3,60"))[1]["loss"] == pytest.approx(b[0]["loss"])


def test_presets_are_judged_by_their_classifier(adm: Adm, tmp_path: Path) -> None:
    folder = tmp_path / "fish" / "goldfish"
    folder.mkdir(parents=True)
    Image.new("RGB", (32, 32), (250, 120, 20)).save(folder / "1.png")
    done = adm("evaluate-classifier", "fish", "--timesteps", 1, "--json")
    step, summary = lines(done)
    assert summary["classifier"] == "tiny_classifier"
    assert 0 <= step["confidence"] <= 1


def test_interrupted_shows_what_it_has(judge: Adm, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def once(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return q_sample(*arguments)

    monkeypatch.setattr(classifier_module, "q_sample", once)
    done = judge("--json", "-b", 3, "--at", "10,20", "-o", "report")
    assert done.code == 130
    summary = json.loads(done.out.splitlines()[-1])
    assert (summary["images"], summary["complete"]) == (3, False)  # at every timestep
    assert "only a part of 8" in done.err
    assert len(table("report/timesteps.csv")) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--timesteps", "0"], ["--timesteps 0", "from 1 to 100"]),
        (["--at", "100"], ["--at 100", "99"]),
        (["--at", "x"], ["--at 'x'", "0,250,500"]),
        (["--at", "1", "--timesteps", "3"], ["give one"]),
        (["--num", "0"], ["--num"]),
        (["--labels", "none"], ["no labels"]),
        (["--class", "star"], ["no pictures of the class star"]),
        (["--classifier", "gone"], ["'gone' is neither a preset nor a file"]),
        (["--seed", "-1"], ["--seed"]),
    ],
)
def test_wrong_usage(judge: Adm, options: list[str], words: list[str]) -> None:
    refused(judge(*options, "-q"), 2, *words)


def test_a_report_is_not_replaced_unasked(judge: Adm, toys: Toys) -> None:
    assert judge("--timesteps", 1, "-o", "report", "-q").code == 0
    refused(judge("--timesteps", 1, "-o", "report", "-q"), 1, "--overwrite")
    assert judge("--timesteps", 1, "-o", "report", "--overwrite").code == 0
    refused(judge("--classifier", toys.model), 2, "holds a diffusion model")
