"""What happens while images are drawn, shown: results on stdout, the rest on stderr."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from adm_cli.commands import console
from adm_cli.commands.numbers import show_costs, with_error
from adm_cli.commands.progress import Progress
from adm_cli.errors import are, how_many, size_words
from adm_cli.sampling import events

_COSTS = ("evaluations", "seconds", "output_bytes", "memory_bytes")  # of a dry run
_MOST_PATHS = 10  # of images, on a terminal


class Show(Progress):
    """Shows what is made, too."""

    def __init__(
        self, *, json: bool, quiet: bool, images: bool = True, goes_on: str | None = None
    ) -> None:
        """``images``: each on stdout, if it is what was asked for, and files beside them.

        ``goes_on``: how a run that was stopped goes on, if not by its folder as ``--out``.
        """
        super().__init__(quiet=quiet)
        self.json, self.images, self.goes_on = json, images, goes_on
        self._brief = console.on_terminal() and not json
        self._paths = 0
        self._results: Mapping[type, Callable[[Any], None]] = {
            events.ImageDone: self._image,
            events.FileMade: lambda event: self.result(event.facts()),
            events.Ended: self._end,
            events.Finding: self._finding,
            events.Costs: lambda event: show_costs(event.facts, json=self.json),
        }

    def __call__(self, event: object) -> None:
        super().__call__(event)
        if type(event) in self._results:
            self._results[type(event)](event)

    def result(self, record: Mapping[str, Any]) -> None:
        """A file that was made, or was there: its path, or with ``json`` all about it."""
        if self.json:
            console.print_json(record)
        else:
            print(record["path"], flush=True)

    def _image(self, event: Any) -> None:
        if self.images and self.json:
            console.print_json(event.facts())
        elif self.images:
            self._paths += 1
            if not self._brief or self._paths <= _MOST_PATHS:
                # those that were there come all at once
                print(os.path.join(event.folder, event.record["file"]), flush=event.new)

    def _end(self, event: events.Ended) -> None:
        if event.folder is None:
            return
        if self._brief and event.within is None and self._paths > _MOST_PATHS:
            print(f"... and {self._paths - _MOST_PATHS:,} more in {event.folder}", flush=True)
            self._paths = 0
        done, total = event.there + event.drawn, event.images
        if event.there == total:
            self.note(f"nothing to do: {how_many(total, 'image')} in {event.folder}, all there")
        elif 0 < done < total:
            again = f"--out {shlex.quote(str(event.within or event.folder))} goes on"
            again = again if self.goes_on is None else self.goes_on
            self.note(f"{done} of {total} images {are(done)} in {event.folder}; {again}")
        elif done:
            were = "was" if event.there == 1 else "were"
            there = f" ({event.there} {were} there)" if event.there else ""
            seconds = f"{event.seconds:.1f} s in {event.folder}"
            self.note(f"{how_many(total, 'image')} in {seconds}{there}")

    def _finding(self, event: Any) -> None:
        if self.json:
            console.print_json({"kind": event.kind, "file": event.file, "text": event.text})
        else:
            print(console.one_line(event.text), flush=True)


class ShowSweep(Show):
    """Also the table of a sweep."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        own = {events.CellDone: self._cell, events.SweepEnded: self._table}
        self._results = {**self._results, **own}

    def _cell(self, event: Any) -> None:
        if self.json:
            console.print_json(event.row)

    def _table(self, event: Any) -> None:
        if self.json:
            return
        lines = []
        for row in event.rows:
            axes = [_axis(row.get(a)) for a in event.axes]
            speed = row.get("images_per_second")
            scores = [with_error(row.get(n), row.get(f"{n}_error")) for n in event.metrics]
            lines.append([
                *axes,
                f"{row['images']:,}",
                "-" if speed is None else f"{speed:.3g}",
                *scores,
            ])  # fmt: skip
        console.print_table([*event.axes, "images", "images/s", *event.metrics], lines)


def _axis(value: object) -> str:
    """A value of a sweep's axis: ``4``, ``0.2-0.8``, a name."""
    if isinstance(value, list):
        return "-".join(map(_axis, value))
    number = isinstance(value, (int, float))
    return repr(float(value)).removesuffix(".0") if number else str(value or "")  # type: ignore[arg-type]


def show_settings(facts: Mapping[str, Any], *, json: bool) -> None:
    """What a dry run says."""
    names = facts.get("class_names", {})
    shown = {name: value for name, value in facts.items() if name != "class_names"}
    if json:
        console.print_json(shown)
        return
    classes = [
        "none" if i is None else f"{i} {names[i]}" if i in names else str(i)
        for i in shown["classes"]
    ]
    shown["classes"] = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    if "mixtures" in shown:
        shown["mixtures"] = ", ".join(shown["mixtures"])
    shown["size"] = size_words(shown["size"])
    if "seeds" in shown:
        shown["seeds"] = "{} to {}".format(*shown["seeds"])
    costs = {name: shown.pop(name) for name in _COSTS if name in shown}
    width = max(14, *map(len, shown))
    for name, value in shown.items():
        print(f"{name:{width}} {'-' if value in (None, '') else console.one_line(str(value))}")
    show_costs(costs, json=False)
