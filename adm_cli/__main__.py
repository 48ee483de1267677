"""``python -m adm_cli`` is ``adm``."""

import signal


def main() -> None:
    """Entry point of ``adm``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is begun yet, so nothing to tell
    from adm_cli.commands.main import main as run_and_exit

    run_and_exit()


if __name__ == "__main__":
    main()
