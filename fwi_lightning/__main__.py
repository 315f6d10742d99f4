"""The other commands: `python -m fwi_lightning COMMAND key=value ...`."""

import sys

from fwi_lightning.commands import COMMANDS, run


def main() -> None:
    """Run the command named by the first argument, or list them."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: python -m fwi_lightning COMMAND key=value ...\n")
        for command, (_, purpose) in COMMANDS.items():
            print(f"  {command:12}{purpose}")
        print("\nThe settings of each are in conf/COMMAND.yaml; `COMMAND --help` shows them.")
        return
    if name not in COMMANDS:
        sys.exit(f"error: there is no command {name!r}: choose one of {', '.join(COMMANDS)}.")
    run(name, sys.argv[2:])


if __name__ == "__main__":
    main()
