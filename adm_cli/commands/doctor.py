"""``adm doctor``: what is on this machine, whether it works, and how to mend what does not."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from adm_cli.commands import console, options
from adm_cli.commands.progress import Progress

if TYPE_CHECKING:
    from adm_cli.doctor.examine import Report


def doctor(json: options.Json = False) -> None:
    """Check versions, devices, disks, weights and arithmetic; what to paste in a bug report.

    Exit code 0 if everything works, 1 if something is broken; each finding comes with what mends
    it. Nothing is changed.
    """
    from adm_cli.doctor.examine import examine

    with Progress(quiet=False) as progress:
        report = examine(on_event=progress)
    if json:
        console.print_json(
            {
                "ok": not report.problems,
                **report.facts,
                "problems": [asdict(problem) for problem in report.problems],
                "advice": [asdict(problem) for problem in report.advice],
            }
        )
    else:
        _show(report)
    if report.problems:
        raise typer.Exit(1)


def _show(report: Report) -> None:
    for name, text in _lines(report.facts):
        _print(name, text)
    for what, problems in (("BROKEN", report.problems), ("advice", report.advice)):
        for problem in problems:
            _print(what, problem.text)
            _print("", f"mend it: {problem.mend}")
    if not report.problems:
        print("everything works")
    console.note("in a bug report, paste the lines above, or those of adm doctor --json")


def _print(name: str, text: str) -> None:
    print(f"{name:12} {console.one_line(text)}")


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What a person reads: one line a fact."""
    lines = [(name, facts[name]) for name in ("adm", "python", "system", "package")]
    lines.append(("packages", _pairs(facts["packages"])))
    lines.append(("environment", _pairs(facts["environment"], "=") or "-"))
    lines += [
        (
            "disk",
            f"{d['free_gb']} GB free {'at ' if d['what'] == 'ADM_HOME' else ''}{d['what']} "
            f"({d['path']}{'' if d['writable'] else ', read-only'})",
        )
        for d in facts["disks"]
    ]
    if "devices" not in facts:
        return lines
    threads = facts["threads"]
    lines.append(("threads", f"{threads['used']} of {threads['cpus']} CPUs"))
    lines += [
        (
            d["device"],
            f"{d['name']}, {d['memory_gb']} GB, {d['free_gb']} free; {', '.join(d['dtypes'])}",
        )
        for d in facts["devices"]
    ]
    for row in facts["weights"]:
        size = f" ({row['parameters']:,} parameters)" if "parameters" in row else ""
        lines.append(("weights", f"{'verified' if row['ok'] else 'BROKEN'}: {row['path']}{size}"))
    lines.append(("not here", ", ".join(facts["weights_absent"]) or "-"))
    lines += [("self-test", _self_test(result)) for result in facts["self_tests"]]
    return lines


def _self_test(result: dict[str, Any]) -> str:
    if not result["passed"]:
        return f"{result['device']}: FAILED"
    most = result["largest_difference"]
    how = (
        f"within {most} of 255 of the stored picture" if most else "identical to the stored picture"
    )
    return f"{result['device']}: {how}, {result['seconds']:.1f} s"


def _pairs(values: dict[str, str], between: str = " ") -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in values.items())
