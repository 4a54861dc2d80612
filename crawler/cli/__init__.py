"""The `crawler` command."""


def main() -> None:
    """Entry point of the console script."""
    raise SystemExit(2)
