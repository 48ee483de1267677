"""`adm` as its own process: closed pipes, redirected output, and how soon help is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import adm_cli
from adm_cli.files.disk import weights_folder
from tests.conftest import Result, Toys

PACKAGE = Path(adm_cli.__file__).parent
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


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams(toys: Toys, tmp_path: Path, closed: str) -> None:
    """As of a daemon: no picture's file gets a stream's number, and nothing is said of it."""
    options = ("--model", str(toys.model), "--scale", "0", "--steps", "1", "-n", "2", "--out", "o")
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *ADM, "sample", *options],
        env=environment(), cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert len(list(tmp_path.glob("o/*.png"))) == 2
    if closed == ">&-":
        assert done.stderr.startswith(b"adm: 2 images in ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_nothing_can_be_printed(toys: Toys, tmp_path: Path) -> None:
    """Results must reach somebody; messages need not."""
    options = ("--model", str(toys.model), "--scale", "0", "--steps", "1", "-n", "2", "--out", "o")
    lost = "adm: error: No space left on device: the output cannot be written"
    with open("/dev/full", "wb") as full:
        for arguments in (("--version",), ("models",), ("sample", *options)):
            done = subprocess.run(
                [*ADM, *arguments], env=environment(), cwd=tmp_path, stdout=full,
                stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stderr.splitlines()[-1]) == (1, lost)
            assert "Traceback" not in done.stderr
        heard = subprocess.run(
            [*ADM, "sample", *options], env=environment(), cwd=tmp_path, stdout=subprocess.PIPE,
            stderr=full, text=True, check=False,
        )  # fmt: skip
    assert (heard.returncode, len(heard.stdout.splitlines())) == (0, 2)


def without_privileges() -> None:
    """Root may write to what is read-only, unless it gives that up (prctl, PR_CAPBSET_DROP)."""
    import ctypes

    drop, dac_override = 24, 1
    if ctypes.CDLL(None).prctl(drop, dac_override, 0, 0, 0) != 0:
        raise OSError("the capability to write anywhere cannot be given up")


@pytest.mark.skipif(sys.platform != "linux", reason="needs permissions, of Linux for root")
def test_a_read_only_package(tmp_path: Path) -> None:
    """Nothing is written beside the code, no home is needed, and any locale will do."""
    site = tmp_path / "site"
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, site / "adm_cli", ignore=hidden)
    if not (PACKAGE / "weights").is_dir():
        shutil.copytree(weights_folder(), site / "adm_cli" / "weights")
    for path in (site, *site.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(site.rglob("*"))
    (tmp_path / "work").mkdir()
    try:
        done = subprocess.run(
            [*ADM, *"sample --class 207 --scale 0 --steps 1 --no-upsample -n 1 --out o".split()],
            env={"PYTHONPATH": os.pathsep.join([str(site), *sys.path]), "LANG": "C"},
            cwd=tmp_path / "work", capture_output=True, text=True, check=False,
            preexec_fn=without_privileges if os.getuid() == 0 else None,
        )  # fmt: skip
    finally:
        for path in (site, *filter(Path.is_dir, before)):
            path.chmod(0o755)
    assert (done.returncode, done.stdout) == (0, "o/0207_golden-retriever_seed000000.png\n"), (
        done.stderr
    )
    assert sorted(site.rglob("*")) == before


@pytest.mark.skipif(sys.platform == "win32", reason="gloo and signals")
def test_torchrun_draws_what_one_process_draws(
    adm: Callable[..., Result], toys: Toys, tmp_path: Path
) -> None:
    """Two processes that share a part of the run, and one that draws the other part."""
    models = ("--model", str(toys.model), "--classifier", str(toys.classifier))
    sample = ("sample", *models, "--class", "0,3", "-n", "3", "--steps", "2", "-b", "2", "--quiet")
    environ = {**environment(), "OMP_NUM_THREADS": "1"}
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    shares = ("--nproc-per-node", "2", "-m", "adm_cli", *sample, "--out", "parts")
    done = subprocess.run(
        [*torchrun, *shares, "--shard", "2/2"],
        env=environ, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for more in (("--out", "whole"), ("--out", "parts", "--shard", "1/2")):
        one = adm(*sample, *more)
        assert one.code == 0, one.err
    names = {path.name for path in (tmp_path / "parts").glob("manifest*")}
    assert names == {f"manifest-{i}.jsonl" for i in ("1-of-2", "2-of-4", "4-of-4")}
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.png")}
    assert len(whole) == 6
    assert whole == {path.name: path.read_bytes() for path in (tmp_path / "parts").glob("*.png")}


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


COMPLETED: list[tuple[str, set[str]]] = [
    ("adm sample --model ti", {"tiny"}),
    (
        "adm sample --model imagenet256 --class gold",
        {"goldfish", "goldfinch", "golden_retriever"},
    ),
    ("adm sample --class gold", {"goldfish", "golden_retriever"}),
    ("adm sample --device c", {"cpu", "cuda"}),
    ("adm train-diffusion --dtype b", {"bfloat16"}),
    ("adm upsample --format n", {"npz"}),
    ("adm convert --preset 64", {"64x64_diffusion", "64x64_classifier"}),
    ("adm evaluate --metrics fid,p", {"fid,pr"}),
    ("adm fetch i", {"imagenet256", "inception"}),
    ("adm sample --classifier ti", {"tiny_classifier"}),
    ("adm sample -m none --class 20", {"20", *(str(i) for i in range(200, 210))}),
    ("adm veri", {"verify"}),
    ("adm sample --sha", {"--shard"}),
]


def test_shells_complete() -> None:
    """Without torch, which takes seconds to import."""
    for (words, offered), found in zip(
        COMPLETED, completions(*(words for words, _ in COMPLETED)), strict=True
    ):
        assert set(found) >= offered, words
        assert all(word.startswith(words.rsplit(maxsplit=1)[-1]) for word in found), words


def test_models_that_draw_are_offered_as_such() -> None:
    """No classifiers and no upsamplers for --model, and nothing that ships with it for fetch."""
    from adm_cli.commands import completing

    assert not [w for w, _ in completing.complete_model("") if "classifier" in w or "upsam" in w]
    assert all("upsampler" in w for w, _ in completing.complete_upsampler(""))
    assert not {"tiny", "tiny_classifier"} & {w for w, _ in completing.complete_fetch("")}


def test_shells_know_the_names_that_there_are() -> None:
    from adm_cli.commands import completing
    from adm_cli.devices import DTYPES
    from adm_cli.reports.scores import METRICS
    from adm_cli.sampling.outputs import FORMATS

    assert completing.FORMAT_NAMES == FORMATS
    assert set(completing.DTYPE_NAMES) == {"auto", *DTYPES}
    assert completing.METRIC_NAMES == METRICS


def test_shells_complete_the_classes_of_the_model(toys: Toys, tmp_path: Path) -> None:
    """Of the default, a preset or a file; ImageNet's where that cannot be read."""
    bad = [tmp_path / f"{i}.safetensors" for i in range(4)]
    contents = (b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", toys.model.read_bytes()[:99])
    for path, content in zip(bad, contents, strict=True):
        path.write_bytes(content)
    default, named, number, *unreadable = completions(
        "adm sample --class 2",
        f"adm sample --model {toys.model} --class s",
        f"adm sample -m {toys.model} -c 3",
        *(f"adm sample --model {path} --class 20" for path in bad),
    )
    assert set(default) == {"207", "291"}
    assert named == ["square", "star"]
    assert set(number) == {"3"}
    assert len(unreadable) == len(bad)
    assert all("208" in found for found in unreadable)


COMPLETE = """
import contextlib, io, json, os, sys
from adm_cli.commands.main import main
found, lines, sys.argv = [], sys.argv[1:], ["adm"]
for words in lines:
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = words, str(len(words.split()) - 1)
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main()
    found.append(out.getvalue().split())
print(json.dumps([found, "torch" in sys.modules]))
"""


def completions(*lines: str) -> list[list[str]]:
    """What bash offers for the last word of each; asserts that torch was not imported."""
    done = subprocess.run(
        [sys.executable, "-c", COMPLETE, *lines],
        env={**environment(), "_ADM_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, torch = json.loads(done.stdout)
    assert not torch, found
    return found  # type: ignore[no-any-return]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="a terminal of POSIX")
@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_shows_a_sign_at_once_and_takes_it_back(quiet: bool) -> None:
    ours, theirs = os.openpty()
    words = ["nonsense", "--quiet"] if quiet else ["nonsense"]
    subprocess.run([*ADM, *words], check=False, env=environment(), stderr=theirs, stdout=theirs)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    back = "\b" * len("adm ...")
    assert shown.startswith(f"adm ...{back}{' ' * len(back)}{back}") != quiet
    assert shown.count("no command 'nonsense'") == 1
