"""The option ``fetch`` of whatever needs weights: what is published and not here is brought."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from adm_cli.errors import MissingWeightsError
from adm_cli.events import ignore

P = ParamSpec("P")
T = TypeVar("T")


def supplied(function: Callable[P, T]) -> Callable[P, T]:
    """``function`` with its option ``fetch``: it begins again once the weights it lacks are here.

    It must look for them before it writes anything. With ``dry_run`` nothing is brought. Raises as
    `fetching.fetch`, too.
    """
    parameters = inspect.signature(function)

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> T:
        brought: tuple[str, ...] = ()
        while True:
            try:
                return function(*args, **options)
            except MissingWeightsError as error:
                asked = parameters.bind(*args, **options).arguments
                wanted = asked.get("fetch") and not asked.get("dry_run")
                if not wanted or error.published in ((), brought):
                    raise
                brought = error.published
                from adm_cli.checkpoints.fetching import fetch as bring  # with requests: rare

                bring(brought, on_event=asked.get("on_event") or ignore)

    return run
