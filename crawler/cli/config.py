"""`crawler config show`: the effective configuration and where each value came from."""

from pathlib import Path

import click
import orjson

from crawler.cli.options import config_option, load_settings, override_option
from crawler.cli.output import write_data


@click.group(name="config")
def command() -> None:
    """Look at the configuration."""


@command.command(name="show")
@config_option()
@override_option
@click.option("--default", is_flag=True, help="The annotated file with every key at its default.")
@click.option("--origin", is_flag=True, help="Say where each value came from.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a key.")
def show(config: Path | None, overrides: tuple[str, ...], default: bool, origin: bool, as_json: bool) -> int:
    """Print the values in force; secrets are masked."""
    if default:
        from crawler.settings.generated_files import annotated

        click.echo(annotated(), nl=False)
        return 0
    section = ""
    for shown in load_settings(config, overrides, "crawl").masked():
        if as_json:
            fields = {"key": shown.key, "value": shown.value, "origin": shown.origin, "restart": shown.restart}
            write_data(orjson.dumps(fields) + b"\n")
            continue
        head, _, name = shown.key.partition(".")
        if head != section:
            click.echo(f"{chr(10) if section else ''}[{head}]")
            section = head
        comment = "  # " + ", ".join(part for part in (shown.origin if origin else "", shown.note) if part)
        # what is not set has no value that TOML could hold: as a comment, the output stays a configuration
        line = f"{name} = {shown.text}" if shown.text else f"#{name} ="
        click.echo(f"{line}{comment if len(comment) > 4 else ''}")
    return 0


@command.command(name="schema")
def schema() -> int:
    """Print the JSON schema of the configuration, for editors."""
    from crawler.settings.generated_files import schema_text

    click.echo(schema_text(), nl=False)
    return 0
