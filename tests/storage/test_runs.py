"""A run's folder: its plan, its manifests, and what may be gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adm_cli.errors import OutputError, RunError, UsageError
from adm_cli.storage.manifests import (
    ManifestWriter,
    parse_line,
    read_manifest,
    render_line,
    rewrite_manifest,
)
from adm_cli.storage.outputs import image_item
from adm_cli.storage.plans import Item, Plan, check_items, differences, read_plan, render_plan
from adm_cli.storage.runs import RunFolder, Shard

ITEMS = [image_item(c, s, ".png") for c in (7, 300) for s in range(4)]
PLAN = Plan("sample", {"scale": 4.0, "batch_size": 2}, {"torch": "2"}, ITEMS)


def record(item: Item, size: int = 3, **more: Any) -> dict[str, Any]:
    return {"file": item.file, **item.facts, "bytes": size, "sha256": "a" * 64, **more}


def keep(run: RunFolder, *items: Item, manifest: str = "manifest.jsonl") -> None:
    """As if these images had been drawn."""
    for item in items:
        (run.path / item.file).write_bytes(b"png")
    writer = ManifestWriter(run.path / manifest, alone=True)
    writer.append([record(item) for item in items])
    writer.close()


@pytest.mark.parametrize(
    "items",
    [
        ITEMS,
        ITEMS[::-1],
        [image_item(None, s, ".webp") for s in (0, 1, 2, 9, 10, 999_999, 1_000_000, 2**64 - 1)],
        [image_item(3, s, ".png", scale=x) for x in (0.0, 2.5, 1e-7) for s in (5, 6)],
        [Item("odd name*.png".replace("*", "+"), {"source": "a/b", "seed": 1}), Item("x", {})],
        [Item("seed000001-seed000001.png", {"seed": 1}), Item("seed000002-x.png", {"seed": 2})],
    ],
)
def test_a_plan_is_read_as_it_was_written(tmp_path: Path, items: list[Item]) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(render_plan(replace(PLAN, items=items)))
    assert read_plan(path) == replace(PLAN, items=items)


def test_a_plan_is_short(tmp_path: Path) -> None:
    items = [image_item(c, s, ".png") for c in range(10) for s in range(1000)]
    data = render_plan(replace(PLAN, items=items))
    assert len(data) < 2000
    assert json.loads(data)["items"][0] == {
        "file": "class0000_seed*.png",
        "class": 0,
        "seeds": "0-999",
    }


def test_every_flipped_byte_of_a_plan_is_found(tmp_path: Path) -> None:
    path, data = tmp_path / "run.json", render_plan(PLAN)
    for i in range(len(data)):
        for flip in (1, 32, 128):
            path.write_bytes(data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :])
            with pytest.raises(RunError, match=r"run\.json is damaged"):
                read_plan(path)
        path.write_bytes(data[:i])
        with pytest.raises(RunError, match=r"run\.json is damaged"):
            read_plan(path)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x.png", "/etc/x", "a/b", "a\\b", ".hidden", "a\0b", "a\nb", "x" * 300],
)
def test_names_that_leave_the_folder(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of an image"):
        check_items([Item(name, {})])


def test_an_image_is_asked_for_once() -> None:
    with pytest.raises(UsageError, match="asked for twice"):
        check_items([ITEMS[0], ITEMS[1], ITEMS[0]])
    with pytest.raises(UsageError, match="at least one image"):
        check_items([])


def test_differences_in_words() -> None:
    old = {"scale": 4.0, "eta": None, "model_sha256": "a" * 64, "clip": True}
    new = {"scale": 2.5, "eta": 0.5, "model_sha256": "b" * 64, "clip": True, "new": 1}
    assert differences(old, new) == [
        "scale 4 -> 2.5",
        "eta none -> 0.5",
        "model_sha256 aaaaaaaaaaaa -> bbbbbbbbbbbb",
        "new none -> 1",
    ]


def test_every_flipped_byte_of_a_line_is_found() -> None:
    line = render_line(record(ITEMS[0]))
    assert parse_line(line) == record(ITEMS[0])
    for i in range(len(line)):
        for flip in (1, 32, 128):
            assert parse_line(line[:i] + bytes([line[i] ^ flip]) + line[i + 1 :]) is None
        assert parse_line(line[:i]) is None


@pytest.mark.parametrize(
    "wrong", [{"file": "../x"}, {"bytes": -1}, {"bytes": "3"}, {"sha256": 5}, {"again": "1"}]
)
def test_lines_that_mean_nothing(wrong: dict[str, Any]) -> None:
    assert parse_line(render_line({**record(ITEMS[0]), **wrong})) is None


def test_a_manifest_cut_anywhere_is_read_up_to_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    rewrite_manifest(path, [record(item) for item in ITEMS])
    data = path.read_bytes()
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = data[:cut].count(b"\n")
        found = read_manifest(path)
        assert found.records == [record(item) for item in ITEMS[:whole]]
        assert found.torn == (not data[:cut].endswith(b"\n") and cut > 0)
        assert not found.damaged


@pytest.mark.parametrize("alone", [True, False])
def test_going_on_after_a_torn_line(tmp_path: Path, alone: bool) -> None:
    path = tmp_path / "manifest.jsonl"
    first, second = (render_line(record(item)) for item in ITEMS[:2])
    path.write_bytes(first + second[:-20])
    writer = ManifestWriter(path, alone=alone)
    writer.append([record(ITEMS[2])])
    writer.close()
    found = read_manifest(path)
    assert found.records == [record(ITEMS[0]), record(ITEMS[2])]
    assert found.damaged == ([] if alone else [2])  # ended, or cut off
    assert not found.torn


def test_a_line_that_does_not_fit_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written of it is taken back."""
    path = tmp_path / "manifest.jsonl"
    writer = ManifestWriter(path, alone=True)
    writer.append([record(ITEMS[0])])

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            self.file.write(data[:10])
            raise OSError(28, "No space left on device")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    monkeypatch.setattr(writer, "_file", Full(writer._file))
    with pytest.raises(OutputError, match="disk is full"):
        writer.append([record(ITEMS[1])])
    writer.close()
    assert read_manifest(path).records == [record(ITEMS[0])]
    assert not read_manifest(path).torn


def test_a_run_is_begun_once_and_gone_on_with(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "r")
    assert not run.exists()
    with pytest.raises(RunError, match="is no run"):
        run.read()
    assert run.begin(PLAN) == (PLAN, [])
    assert run.read() == PLAN
    keep(run, ITEMS[0], ITEMS[5])
    (run.path / ITEMS[5].file).write_bytes(b"cut short"[:2])
    later = replace(PLAN, environment={"torch": "3"})
    plan, changes = run.begin(later)
    assert (plan, changes) == (later, ["torch 2 -> 3"])
    assert run.read() == PLAN  # the first environment stays
    assert list(run.kept(ITEMS)) == [ITEMS[0].file]  # the other one is drawn again


def test_another_setting_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(PLAN)
    for call in (run.check, run.begin):
        with pytest.raises(
            RunError, match=r"other settings: scale 4 -> 2, batch_size 2 -> 3; .*--out"
        ):
            call(replace(PLAN, settings={"scale": 2.0, "batch_size": 3}))
        with pytest.raises(RunError, match="kind sample -> upsample"):
            call(replace(PLAN, kind="upsample"))
    chosen = replace(PLAN, settings={"scale": 4.0, "batch_size": 3})
    plan, _ = run.begin(chosen, automatic=["batch_size"])
    assert plan.settings["batch_size"] == 2  # chosen, not asked for


def test_images_may_be_added_but_not_left_out(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(replace(PLAN, items=ITEMS[:4]))
    keep(run, *ITEMS[:2])
    more, _ = run.begin(PLAN)
    assert run.read().items == more.items == ITEMS
    fewer, _ = run.begin(replace(PLAN, items=ITEMS[:2]))  # the others were not drawn yet
    assert fewer.items == ITEMS[:2]
    with pytest.raises(
        RunError, match=f"1 images of .* not among those asked for now.*{ITEMS[0].file}"
    ):
        run.begin(replace(PLAN, items=ITEMS[1:]))


def test_overwriting_begins_anew(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(PLAN)
    keep(run, *ITEMS[:2])
    keep(run, ITEMS[3], manifest="manifest-2-of-3.jsonl")
    (tmp_path / "notes.txt").write_text("mine")
    other = replace(PLAN, settings={"scale": 1.0}, items=ITEMS[4:])
    run.begin(other, overwrite=True)
    assert run.read() == other
    assert not run.records()
    left = {p.name for p in tmp_path.iterdir() if p.suffix != ".lock"}
    assert left == {"run.json", ".run.json.copy", "notes.txt"}


def test_a_run_that_is_drawn_is_not_overwritten(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(PLAN)
    keep(run, ITEMS[0], manifest="manifest-2-of-3.jsonl")
    with run.lock("manifest-2-of-3"), pytest.raises(RunError, match="another process"):
        run.begin(PLAN, overwrite=True)
    assert list(run.kept(ITEMS)) == [ITEMS[0].file]


def test_foreign_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / ITEMS[3].file).write_bytes(b"precious")
    with pytest.raises(OutputError, match=f"1 of the files .*{ITEMS[3].file}.*--overwrite"):
        RunFolder(tmp_path).begin(PLAN)
    RunFolder(tmp_path).begin(PLAN, overwrite=True)


@pytest.mark.parametrize("name", ["run.json", ".run.json.copy"])
@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_either_copy_is_enough(tmp_path: Path, name: str, damage: str) -> None:
    run = RunFolder(tmp_path)
    run.begin(PLAN)
    if damage == "gone":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(b"?" + (tmp_path / name).read_bytes()[1:])
    assert run.exists()
    assert run.read() == PLAN
    assert not run.whole()
    run.begin(PLAN)
    assert run.whole()


def test_a_file_made_again_counts_whichever_manifest_says_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(PLAN)
    old, new = record(ITEMS[0], 3), record(ITEMS[0], 5, again=1)
    for names in (("manifest-1-of-2.jsonl", "manifest.jsonl"), ("z.jsonl", "a.jsonl")):
        for name, line in zip(names, (new, old), strict=True):
            rewrite_manifest(tmp_path / f"manifest{name.removeprefix('manifest')}", [line])
        assert run.records() == {ITEMS[0].file: new}
        for path in run.manifests():
            path.unlink()


def test_one_process_a_shard(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.lock("manifest") as locked:
        assert locked
        with pytest.raises(RunError, match="another process is drawing into"), run.lock("manifest"):
            pass
        with run.lock("manifest-1-of-2") as other:
            assert other
    with run.lock("manifest") as again:
        assert again


def test_shards_are_disjoint_and_together_all() -> None:
    for count in (1, 2, 3, 8, 20):
        shares = [list(Shard(i + 1, count).share(ITEMS)) for i in range(count)]
        names = [item.file for share in shares for item in share]
        assert sorted(names) == sorted(item.file for item in ITEMS)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert Shard.parse("3/8") == Shard(3, 8)


def test_a_part_of_a_part_stays_inside() -> None:
    """Each part may be divided in its own way: so with machines of one, two and five GPUs."""
    outer = [Shard(i + 1, 3) for i in range(3)]
    names = []
    for whole, count in zip(outer, (1, 2, 5), strict=True):
        inner = [Shard(i + 1, count).within(whole) for i in range(count)]
        drawn = [item.file for part in inner for item in part.share(ITEMS)]
        assert sorted(drawn) == sorted(item.file for item in whole.share(ITEMS))
        names += drawn
    assert sorted(names) == sorted(item.file for item in ITEMS)


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "a/b", "3/8/2", "-1/2", "1/0", "٣/٨", ""])
def test_no_shards(text: str) -> None:
    with pytest.raises(UsageError, match="expected i/n"):
        Shard.parse(text)
