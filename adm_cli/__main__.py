"""``python -m adm_cli`` is ``adm``."""

import os
import signal
import sys

_SPINS = "3000"  # of a thread that waits for another, before it sleeps
_SIGN = "adm ..."
_SILENT = {"-q", "--quiet", "--json", "-h", "--help", "--version"}


def main() -> None:
    """Entry point of ``adm``."""
    # By default OpenMP's threads spin a hundred times as long, and where others are at work too
    # they take the CPU from those they wait for. To be set before torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is begun yet, so nothing to tell
    sign = _sign()
    from adm_cli.commands.main import main as run_and_exit

    run_and_exit(sign)


def _sign() -> str:
    """Something to see at once on a terminal, before the commands are imported; returns it."""
    silent = not sys.argv[1:] or _SILENT & set(sys.argv) or "_ADM_COMPLETE" in os.environ
    if silent or sys.stderr is None or not sys.stderr.isatty():
        return ""
    sys.stderr.write(_SIGN)
    sys.stderr.flush()
    return _SIGN


if __name__ == "__main__":
    main()
