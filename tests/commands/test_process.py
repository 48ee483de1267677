"""`adm` as its own process: closed pipes, redirected output, and how soon help is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Toys

ADM = (sys.executable, "-m", "adm_cli")


def environment() -> dict[str, str]:
    """Without what would change buffering, colours or the default model."""
    hidden = ("ADM_MODEL", "ADM_DEBUG", "PYTHONUNBUFFERED", "FORCE_COLOR", "NO_COLOR")
    return {name: value for name, value in os.environ.items() if name not in hidden}


@pytest.mark.parametrize("arguments", [["--version"], ["classes", "golden"], ["classes"]])
def test_a_reader_that_has_gone(arguments: list[str]) -> None:
    """Short output meets the closed pipe only as the program ends, long output before."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*ADM, *arguments],
            check=False,
            env=environment(),
            stdout=writing,
            stderr=subprocess.PIPE,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_redirected_output_is_plain_text(toys: Toys, tmp_path: Path) -> None:
    """No colours and no bar: a log of a run can be read."""
    models = ["--model", str(toys.model), "--classifier", str(toys.classifier)]
    done = subprocess.run(
        [*ADM, "sample", *models, "--steps", "2", "--num", "2", "--batch-size", "1"],
        check=False,
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 0
    for text, lines in ((done.stdout, 2), (done.stderr, 1)):
        assert text.count(b"\n") == lines
        assert not set(text) & set(b"\x1b\r\x08")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("adm sample --model ti", {"tiny", "tiny_classifier"}),
        ("adm sample --model imagenet256 --class gold", {"goldfish", "goldfinch"}),
        ("adm sample -m none --class 20", {"20", *(str(i) for i in range(200, 210))}),
        ("adm veri", {"verify"}),
        ("adm sample --sha", {"--shard"}),
    ],
)
def test_shells_complete(words: str, offered: set[str]) -> None:
    """Without torch, which takes seconds to import."""
    found = completions(words)
    assert set(found) >= offered
    assert all(word.startswith(words.rsplit(maxsplit=1)[-1]) for word in found)


def test_shells_complete_the_classes_of_the_model(toys: Toys, tmp_path: Path) -> None:
    """Of the default, a preset or a file; ImageNet's where that cannot be read."""
    assert set(completions("adm sample --class 2")) == {"207", "291", "2"} - {"2"}
    assert completions(f"adm sample --model {toys.model} --class s") == ["square", "star"]
    assert set(completions(f"adm sample -m {toys.model} -c 3")) == {"3"}
    bad = tmp_path / "bad.safetensors"
    for content in (b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", toys.model.read_bytes()[:99]):
        bad.write_bytes(content)
        assert "208" in completions(f"adm sample --model {bad} --class 20")


def completions(words: str) -> list[str]:
    """What bash offers for the last word; asserts that torch was not imported."""
    code = (
        "import sys, atexit\nfrom adm_cli.commands.main import main\n"
        "atexit.register(lambda: print('torch' in sys.modules))\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **environment(),
            "_ADM_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    *found, torch = done.stdout.split()
    assert torch == "False", (found, done.stderr)
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource usage of children")
def test_help_needs_little_time() -> None:
    import resource

    def cpu_seconds() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(3):  # the best of them: the others waited for disks and caches
        before = cpu_seconds()
        subprocess.run([*ADM, "--help"], env=environment(), check=True, capture_output=True)
        times.append(cpu_seconds() - before)
    assert min(times) < 0.5
