"""A run's folder: its plan, its manifests, and what may be gone on with."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import adm_cli.sampling.folder as folder_module
from adm_cli.errors import ConfigError, OutputError, RunError, UsageError
from adm_cli.files import manifests
from adm_cli.files.manifests import (
    ManifestWriter,
    parse_line,
    render_line,
    rewrite_manifest,
)
from adm_cli.files.sealed import is_whole, seal
from adm_cli.sampling.choosing.images import MAX_IMAGES, Image, Images, drawn_row
from adm_cli.sampling.folder import RunFolder, Shard
from adm_cli.sampling.run import Filter, Run, read_run, render_run
from tests.manifests import read_manifest
from tests.sampling.runs import STAGE, image, names, run_of

ITEMS = [image(c, s) for c in (7, 300) for s in range(4)]
RUN = run_of(ITEMS)


def with_images(*items: Image) -> Run:
    return replace(RUN, images=Images.of(items))


def record(item: Image, size: int = 3, **more: Any) -> dict[str, Any]:
    return {"file": item.file, **item.facts(), "bytes": size, "sha256": "a" * 64, **more}


def keep(run: RunFolder, *items: Image, manifest: str = "manifest.jsonl") -> None:
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
        [image(None, s, ".webp") for s in (0, 1, 2, 9, 10, 999_999, 1_000_000, 2**64 - 1)],
        [image(3, s, scale=x) for x in (0.0, 2.5, 1e-7) for s in (5, 6)],
        [Image("odd name+.png", 3, 1, input="a/b", small_sha256="0"), Image("x", None, 0)],
        [Image("seed000001-seed000001.png", 1, 1), Image("seed000002-x.png", 1, 2)],
        [Image("seed000001.png", 1, 2), Image("seed000002.png", 1, 3), Image("seed1.png", 1, 4)],
    ],
)
def test_a_run_is_read_as_it_was_written(tmp_path: Path, items: list[Image]) -> None:
    path, run = tmp_path / "run.json", with_images(*items)
    path.write_bytes(render_run(run))
    assert read_run(path) == run
    assert list(read_run(path).images) == items
    for place, one in enumerate(items):
        assert run.images[place] == one
        assert run.images.find(one.file) == place


def test_stages_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    guided = replace(
        STAGE, guide_interval=(0.1, 0.9), cfg=2.0, cfg_interval=(0, 0.5), eta=0.5, steps="",
        entropy_scaling=True, size=(4, 6),
    )  # fmt: skip
    enlarging = replace(STAGE, upsampler=True, project=8, low_res_noise=0.1, dtype="bfloat16")
    for later in ((), (enlarging,), (Filter(model="lanczos", size=(8, 12)),)):
        run = replace(RUN, stages=(guided, *later), threads=None)
        path.write_bytes(render_run(run))
        assert read_run(path) == run


def test_a_run_is_short(tmp_path: Path) -> None:
    data = render_run(with_images(*(image(c, s) for c in range(10) for s in range(1000))))
    assert len(data) < 3000
    assert json.loads(data)["images"][0] == {
        "file": "class0000_seed*.png",
        "class": 0,
        "seeds": "0-999",
    }


def test_images_are_what_their_list_is() -> None:
    """Places, names and rows, however they are asked for."""
    listed = [image(c, s) for c in (7, 8, 7) for s in (range(3) if c == 7 else (5, 6, 9))]
    listed = [one._replace(file=f"{i}{one.file}") for i, one in enumerate(listed)]
    listed += [image(1, s) for s in (999_998, 999_999, 1_000_000, 1_000_001)]
    images = Images.of(listed)
    assert (len(images), list(images), images[-1]) == (len(listed), listed, listed[-1])
    assert images[2:5] == listed[2:5]
    assert images.rows[-1] == drawn_row(1, range(999_998, 1_000_002), ".png")
    assert [images.find(one.file) for one in listed] == list(range(len(listed)))
    for name in ("class0001_seed1000002.png", "class0001_seed0999999.png", "x", "seed000001.png"):
        assert images.find(name) is None
    assert images == Images.of(listed)
    assert images != Images.of(listed[1:])
    with pytest.raises(IndexError):
        images[len(listed)]


def test_ten_million_images_take_no_memory() -> None:
    tracemalloc.start()
    images = Images([drawn_row(1, range(MAX_IMAGES), ".png")])
    assert images.find("class0001_seed9999999.png") == MAX_IMAGES - 1
    assert images[MAX_IMAGES - 1].seed == MAX_IMAGES - 1
    assert tracemalloc.get_traced_memory()[1] < 10**5
    tracemalloc.stop()
    with pytest.raises(UsageError, match="over 10,000,000 images"):
        Images([drawn_row(1, range(MAX_IMAGES), ".png"), drawn_row(2, range(1), ".png")])


def test_another_format_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(seal(b'{\n  "format": 1,\n'))
    with pytest.raises(RunError, match="has format 1, expected 2: another version of adm made it"):
        read_run(path)


def test_every_flipped_byte_of_a_run_is_found(tmp_path: Path) -> None:
    path, data, found = tmp_path / "run.json", render_run(RUN), 0
    for i in range(len(data)):
        for flip in (1, 32, 128):
            path.write_bytes(data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :])
            found += says_the_same(path)
        path.write_bytes(data[:i])
        found += says_the_same(path)
    assert found < 3  # the last line end is gone, an e in a number is an E


def says_the_same(path: Path) -> bool:
    """Whether it is read, as it was, but known not to be whole; else it is called damaged."""
    try:
        run = read_run(path)
    except RunError as error:
        assert "run.json is damaged" in str(error)  # noqa: PT017
        return False
    assert (run, is_whole(path)) == (RUN, False)
    return True


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x.png", "/etc/x", "a/b", "a\\b", ".hidden", "a\0b", "a\nb", "x" * 300],
)
def test_names_that_leave_the_folder(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of an image"):
        Images.of([Image(name, None, 0)])


def test_an_image_is_asked_for_once() -> None:
    ranges = [drawn_row(1, range(5), ".png"), drawn_row(2, range(5), ".png")]
    for rows in (
        [*ranges, drawn_row(1, range(4, 6), ".png")],
        [drawn_row(1, range(4, 6), ".png"), *ranges],
    ):
        with pytest.raises(UsageError, match="asked for twice"):
            Images(rows)
    for one in (ITEMS[0], Image("x.png", 1, 2)):
        with pytest.raises(UsageError, match="asked for twice"):
            Images.of([one, ITEMS[1], one])
    with pytest.raises(UsageError, match="at least one image"):
        Images.of([])
    with pytest.raises(
        ConfigError, match="whole number from 0 to 2\\^64 - 1, got 18446744073709551616"
    ):
        Images([drawn_row(1, range(2**64 - 1, 2**64 + 1), ".png")])


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
    assert run.begin(RUN) == (RUN, [])
    assert run.read() == RUN
    keep(run, ITEMS[0], ITEMS[5])
    (run.path / ITEMS[5].file).write_bytes(b"cut short"[:2])
    later = replace(RUN, versions={"adm": "1", "torch": "3"})
    again, changes = run.begin(later)
    assert (again, changes) == (later, ["torch 2 -> 3"])
    assert run.read() == RUN  # the first environment stays
    assert names(run.kept(RUN.images)) == [ITEMS[0].file]  # the other one is drawn again
    wanted = run.survey(RUN.images)
    assert (wanted.there, wanted.missing.tolist()) == ([ITEMS[0].file], [1, 2, 3, 4, 5, 6, 7])
    part = run.survey(RUN.images, Shard(1, 2), [ITEMS[0].file, ITEMS[1].file, ITEMS[2].file])
    assert (part.there, part.missing.tolist()) == ([ITEMS[0].file], [1, 2])  # of any shard


def test_what_a_folder_knows_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what others append to it as it comes; what is written anew, anew."""
    run = RunFolder(tmp_path)
    run.begin(RUN)
    keep(run, *ITEMS[:3])
    parsed: list[bytes] = []
    real = manifests.parse_line

    def parse(line: bytes) -> Any:
        parsed.append(line)
        return real(line)

    monkeypatch.setattr(manifests, "parse_line", parse)
    monkeypatch.setattr(folder_module, "read_run", None)  # it is known
    for _ in range(3):
        assert len(run.records()) == len(list(run.kept(run.read().images))) == 3
    assert len(parsed) == 3
    keep(run, ITEMS[3], manifest="manifest-1-of-2.jsonl")
    keep(run, ITEMS[4])
    with (tmp_path / "manifest.jsonl").open("ab") as file:
        file.write(render_line(record(ITEMS[5]))[:-9])
    assert list(run.records()) == [item.file for item in (*ITEMS[:3], *ITEMS[3:5])]
    assert len(parsed) == 5
    rewrite_manifest(tmp_path / "manifest.jsonl", [record(ITEMS[7])])
    assert set(run.records()) == {ITEMS[7].file, ITEMS[3].file}


def test_lines_of_strangers_are_not_all_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "MOST_OTHERS", 2)
    run = RunFolder(tmp_path)
    run.begin(RUN)
    others = [{**record(ITEMS[0]), "file": f"{i}.gif"} for i in range(5)]
    rewrite_manifest(tmp_path / "manifest.jsonl", [*others, record(ITEMS[1])])
    assert list(run.records()) == ["0.gif", "1.gif", ITEMS[1].file]


def test_another_setting_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(RUN)
    other = replace(RUN, stages=(replace(STAGE, scale=2.0),), batch_size=3)
    for call in (run.check, run.begin):
        with pytest.raises(
            RunError, match=r"other settings: scale 4 -> 2, batch_size 2 -> 3; .*--out"
        ):
            call(other)
        enlarging = replace(RUN, stages=(replace(STAGE, upsampler=True),))
        with pytest.raises(RunError, match="command sample -> upsample"):
            call(enlarging)
        stack = replace(RUN, stages=(STAGE, Filter(model="bicubic", size=(8, 8))))
        with pytest.raises(RunError, match=r"size .* -> 8,8, upsampler none -> bicubic"):
            call(stack)
    half = replace(STAGE, dtype="bfloat16")
    with pytest.raises(RunError, match=r"dtype float32 -> bfloat16; --dtype float32 goes on with"):
        run.check(replace(RUN, stages=(half,)))
    with pytest.raises(RunError) as both:
        run.check(replace(RUN, stages=(replace(half, scale=2.0),)))
    assert "goes on" not in str(both.value)
    chosen = replace(RUN, batch_size=3, chosen=("batch_size",))
    assert run.begin(chosen)[0].batch_size == 2  # chosen, not asked for


def test_images_may_be_added_but_not_left_out(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(with_images(*ITEMS[:4]))
    keep(run, *ITEMS[:2])
    more, _ = run.begin(RUN)
    assert list(run.read().images) == list(more.images) == ITEMS
    fewer, _ = run.begin(with_images(*ITEMS[:2]))  # the others were not drawn yet
    assert list(fewer.images) == ITEMS[:2]
    with pytest.raises(RunError, match=f"has 1 image beside those asked for now.*{ITEMS[0].file}"):
        run.begin(with_images(*ITEMS[1:]))


def test_overwriting_begins_anew(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(RUN)
    keep(run, *ITEMS[:2])
    keep(run, ITEMS[3], manifest="manifest-2-of-3.jsonl")
    (tmp_path / "notes.txt").write_text("mine")
    other = replace(with_images(*ITEMS[4:]), stages=(replace(STAGE, scale=1.0),))
    run.begin(other, overwrite=True)
    assert run.read() == other
    assert not run.records()
    left = {p.name for p in tmp_path.iterdir() if p.suffix != ".lock"}
    assert left == {"run.json", ".run.json.copy", "notes.txt"}


def test_a_run_that_is_drawn_is_not_overwritten(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(RUN)
    keep(run, ITEMS[0], manifest="manifest-2-of-3.jsonl")
    with run.lock("manifest-2-of-3"), pytest.raises(RunError, match="another process"):
        run.begin(RUN, overwrite=True)
    assert names(run.kept(RUN.images)) == [ITEMS[0].file]


def test_foreign_files_are_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / ITEMS[3].file
    path.write_bytes(b"precious")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=f"{ITEMS[3].file} is there, and nothing in it"):
            RunFolder(tmp_path).begin(RUN, overwrite=overwrite)
    path.write_bytes(b'"adm": "')  # as a recipe has it
    with pytest.raises(OutputError, match=f"{ITEMS[3].file} exists already: .*--overwrite"):
        RunFolder(tmp_path).begin(RUN)
    RunFolder(tmp_path).begin(RUN, overwrite=True)


@pytest.mark.parametrize("name", ["run.json", ".run.json.copy"])
@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_either_copy_is_enough(tmp_path: Path, name: str, damage: str) -> None:
    run = RunFolder(tmp_path)
    run.begin(RUN)
    if damage == "gone":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(b"?" + (tmp_path / name).read_bytes()[1:])
    assert run.exists()
    assert run.read() == RUN
    assert not run.whole()
    run.begin(RUN)
    assert run.whole()


def test_a_file_made_again_counts_whichever_manifest_says_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(RUN)
    old, new = record(ITEMS[0], 3), record(ITEMS[0], 5, again=1)
    for files in (
        ("manifest-1-of-2.jsonl", "manifest.jsonl"),
        ("manifest-2-of-9.jsonl", "manifest-1-of-9.jsonl"),
    ):
        for name, line in zip(files, (new, old), strict=True):
            rewrite_manifest(tmp_path / f"manifest{name.removeprefix('manifest')}", [line])
        assert dict(RunFolder(tmp_path).records()) == {ITEMS[0].file: new}
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
        shares = [ITEMS[Shard(i + 1, count).places] for i in range(count)]
        shared = [item.file for share in shares for item in share]
        assert sorted(shared) == sorted(item.file for item in ITEMS)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert Shard.parse("3/8") == Shard(3, 8)


def test_a_part_of_a_part_stays_inside() -> None:
    """Each part may be divided in its own way: so with machines of one, two and five GPUs."""
    outer = [Shard(i + 1, 3) for i in range(3)]
    every = []
    for whole, count in zip(outer, (1, 2, 5), strict=True):
        inner = [Shard(i + 1, count).within(whole) for i in range(count)]
        drawn = [item.file for part in inner for item in ITEMS[part.places]]
        assert sorted(drawn) == sorted(item.file for item in ITEMS[whole.places])
        every += drawn
    assert sorted(every) == sorted(item.file for item in ITEMS)


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "a/b", "3/8/2", "-1/2", "1/0", "٣/٨", ""])
def test_no_shards(text: str) -> None:
    with pytest.raises(UsageError, match="expected i/n"):
        Shard.parse(text)
