"""Help that lists the options of a command in groups."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

DATA = "Data"
FILE = "The file to write"
WIDTHS = "Widths"
LEARNING = "Learning"
SHOWN = "What is shown"

_ARGUMENTS = "Arguments"
_OTHERS = "Options"


class GroupedCommand(TyperCommand):
    """A command whose help has a section for each group: the ``rich_help_panel`` of options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the sections, in the order in which their first options are declared."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            name, text = record
            other = _OTHERS
            if parameter.param_type_name == "argument":  # its record would have Python's type too
                name, other = parameter.metavar or name, _ARGUMENTS
            title = getattr(parameter, "rich_help_panel", None) or other
            groups.setdefault(title, []).append((name, text))
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)
