"""How many steps an edit takes, and which.

A place in a trajectory is the number of steps that are left of it: 0 is the picture.
"""

from __future__ import annotations


def steps_left(steps: int, strength: float) -> int:
    """How many of ``steps`` an edit of ``strength`` in [0, 1] takes; none at 0 alone."""
    return max(int(strength > 0), int(strength * steps + 0.5))


def stretches(steps: int, resample: int, jump: int) -> list[tuple[int, int]]:
    """The pieces of a trajectory of ``steps``, each (steps left at its begin, at its end).

    At every multiple of ``jump`` RePaint goes back up by ``jump`` steps, ``resample`` - 1 times
    (arXiv 2201.09865, section 4.2 and appendix B); not up to where it began. So each piece but the
    first begins ``jump`` steps above the end of the one before it.
    """
    found, high = [], steps
    for low in range((steps - 1) // jump * jump - jump, -1, -jump):
        for _ in range(resample - 1):
            found.append((high, low))
            high = low + jump
    return [*found, (high, 0)]


def ends(steps: int, *, resample: int, jump: int) -> int:
    """How often the last step to a picture without noise is taken."""
    return sum(low == 0 for _, low in stretches(steps, resample, jump))


def count_steps(steps: int, *, invert: bool, resample: int, jump: int) -> int:
    """Of an edit that takes ``steps`` of its sampler, at least one."""
    down = sum(high - low for high, low in stretches(steps, resample, jump))
    return max(1, down + (max(0, steps - 1) if invert else 0))
