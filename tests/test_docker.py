"""The Dockerfile is whole. Tests have no engine to build it with: they read it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import typer.main

from adm_cli.commands.main import app

PROJECT = Path(__file__).parents[1]
DOCKERFILE = PROJECT / "examples" / "docker" / "Dockerfile"
CONTEXT = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
INSTALL = (PROJECT / "docs" / "install.md").read_text()
KNOWN = {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "VOLUME", "ENTRYPOINT", "CMD"}


def instructions(name: str) -> list[str]:
    """The arguments of every instruction of a name, continuation lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M))
    found = [line.split(maxsplit=1) for line in text.splitlines() if line]
    assert {words[0] for words in found} <= KNOWN
    return [words[1] for words in found if words[0] == name]


def copied() -> list[str]:
    return [word.rstrip("/") for line in instructions("COPY") for word in shlex.split(line)[:-1]]


def test_what_it_copies_is_there_and_in_the_context() -> None:
    assert CONTEXT[1] == "*"
    assert [line[1:] for line in CONTEXT if line.startswith("!")] == copied()
    for name in copied():
        assert (PROJECT / name).exists(), name


def test_it_copies_what_the_package_is_built_from() -> None:
    project = (PROJECT / "pyproject.toml").read_text()
    needed = re.findall(r'^(?:readme = |packages = \[|path = )"(.*?)"', project, re.M)
    needed += re.findall(r'^"(weights/.*?)" = ', project, re.M)
    needed += json.loads(re.findall(r"^license-files = (.*)$", project, re.M)[0])
    assert len(needed) == 10
    for path in needed:
        assert path in copied() or path.split("/")[0] in copied(), path


def test_it_installs_as_documented() -> None:
    (index,) = [line for line in instructions("ARG") if line.startswith("TORCH_INDEX=")]
    (line,) = [line for line in instructions("RUN") if line.startswith("pip install")]
    line = line.replace("${TORCH_INDEX}", index.partition("=")[2]).replace(" --no-cache-dir", "")
    assert f"\n{line}\n" in INSTALL
    assert f"\n{line}\n" in (PROJECT / "README.md").read_text()


def test_it_runs_the_command_of_the_package() -> None:
    (entry,), (rest,) = instructions("ENTRYPOINT"), instructions("CMD")
    assert json.loads(entry) == ["adm"]
    assert json.loads(rest) == ["--help"]


def test_documented_containers_build_this_file_and_run_commands_that_exist() -> None:
    group = typer.main.get_command(app)
    builds = re.findall(r"docker build -f (\S+) ", INSTALL + DOCKERFILE.read_text())
    assert len(builds) == 4
    assert {PROJECT / path for path in builds} == {DOCKERFILE}
    runs = re.findall(r"docker run .* adm(?::cuda)? (.*)", INSTALL + DOCKERFILE.read_text())
    assert len(runs) == 4
    for name, *words in map(shlex.split, runs):
        command = group.commands[name]  # type: ignore[attr-defined]
        assert command.make_context(f"adm {name}", words, resilient_parsing=False)
