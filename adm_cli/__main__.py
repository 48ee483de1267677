"""``python -m adm_cli`` is ``adm``."""

from adm_cli.commands.main import main

main()
