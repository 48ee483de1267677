"""``python -m adm_cli`` is ``adm``."""

import os
import signal

_SPINS = "3000"  # of a thread that waits for another, before it sleeps


def main() -> None:
    """Entry point of ``adm``."""
    # By default OpenMP's threads spin a hundred times as long, and where others are at work too
    # they take the CPU from those they wait for. To be set before torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is begun yet, so nothing to tell
    from adm_cli.commands.main import main as run_and_exit

    run_and_exit()


if __name__ == "__main__":
    main()
