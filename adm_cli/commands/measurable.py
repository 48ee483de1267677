"""Which metrics a reference allows that holds statistics and no images."""

from __future__ import annotations

from pathlib import Path

from adm_cli.errors import UsageError


def metrics_by(
    ref: Path, able: tuple[str, ...], asked: str | None, features: str
) -> tuple[tuple[str, ...], list[str]]:
    """The metrics that a reference allows, and what to say of those it does not.

    Raises UsageError where one of these was asked for, before any work.
    """
    from adm_cli.storage.pixels import statistics_only

    held = statistics_only(ref)
    if not held:
        return able, []
    if features != "inception":
        raise UsageError(f"{ref.name} holds Inception's statistics only: leave out --features")
    possible = ("fid", "sfid", "is") if "mu_s" in held else ("fid", "is")
    missing = [metric for metric in able if metric not in possible]
    text = f"{ref.name} holds statistics only, no images: {', '.join(missing)}"
    if asked is not None and missing:
        raise UsageError(f"{text} cannot be measured; --metrics {','.join(possible)} can")
    chosen = tuple(metric for metric in able if metric in possible)
    return chosen, [f"{text} left out"] if missing else []
