"""Help and errors of use, which typer writes, in the reader's language.

typer's words are English, and it counts characters where a screen has columns: a Chinese character
takes two, and no blank stands where a line may end.
"""

import re
from collections.abc import Sequence
from typing import Any

import typer

from dispatcher.core.format import columns, padded, wrapped
from dispatcher.core.language import N_, _
from dispatcher.core.stored_texts import stored_text

ERRORS_OF_USE = (
    N_("No such command {name}. Did you mean {other}?"),
    N_("No such command {name}"),
    N_("No such option: {option} (Possible options: {options})"),
    N_("No such option: {option}"),
    N_("Missing argument {name}"),
    N_("Missing option {name}"),
    N_("Got unexpected extra argument(s) ({arguments})"),
    N_("Option {option} requires an argument"),
    N_("Option {option} does not take a value"),
    N_("Invalid value for {name}: {reason}"),
    N_("it must be a whole number"),
    N_("it must be a number"),
    N_("it must be text in UTF-8"),
    N_("it must be {least} or more"),
    N_("it must be {most} or less"),
    N_("{value} is not one of {values}"),
    N_("file {path} does not exist"),
    N_("file {path} is a directory"),
    N_("file {path} is not readable"),
)
# What pydantic, which checks the values for typer, says; and plainly.
_PLAIN = (
    (r"Value error, ", ""),
    (r"(?:Input should be a valid|Unable to parse input string as an) integer.*",
     "it must be a whole number"),
    (r"Input should be a valid number.*", "it must be a number"),
    (r"Input should be a valid string.*", "it must be text in UTF-8"),
    (r"Input should be greater than or equal to (\S+)", r"it must be \1 or more"),
    (r"Input should be less than or equal to (\S+)", r"it must be \1 or less"),
)  # fmt: skip
_PLACES = (N_("[OPTIONS]"), N_("COMMAND [ARGS]..."))  # in the line of usage
_WORDS = (  # looked up as typer passes them to the page
    *(N_("Arguments"), N_("Options"), N_("Commands"), N_("required")),
    N_("Show this message and exit."),
)
_TYPE_OF_ARGUMENT = re.compile(r"^(?!-)(.*) <.*>$")  # ID <list[int]>: for programmers
_NOTE = re.compile(r"  \[([^\[\]]+)\]$")  # [default: 50; x>=1; required]


def error_of_use(error: Any) -> str:  # noqa: ANN401 - typer exports no type of it
    """Return what *error* of typer says as one line: what is wrong, and where the help is."""
    what = error.format_message().partition("\n")[0]
    for pattern, plain in _PLAIN:
        what = re.sub(pattern, plain, what)
    what = stored_text(what.rstrip("."), ERRORS_OF_USE)
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "dispatcher"
    then = _(" See `{command} --help`.") if what[-1] in "?？" else _(": see `{command} --help`.")
    return what + then.format(command=command)


def help_instead(error: Any) -> str | None:  # noqa: ANN401 - as above
    """Return the help of a group of commands that was called without one of them."""
    context = getattr(error, "ctx", None)
    if context is None or error.format_message() != context.get_help():
        return None
    return str(context.get_help())


MAX_ID = 2**63 - 1  # of a bigint
MAX_NUMBER = 2**31 - 1  # of an integer


def bound_numbers(command: Any) -> None:  # noqa: ANN401 - as above
    """Give each whole number of a command and its subcommands the bound that PostgreSQL has."""
    for parameter in command.params:
        kind = parameter.type_descriptor
        if kind.annotation in (int, list[int]) and kind.parameter_info.max is None:
            kind.parameter_info.max = MAX_ID if parameter.metavar == "ID" else MAX_NUMBER
    for each in getattr(command, "commands", {}).values():
        bound_numbers(each)


def use_pages(command: Any) -> None:  # noqa: ANN401 - as above
    """Let a command and its subcommands write their help as a `_Page`."""
    own = {"formatter_class": _Page}
    command.context_class = type("Context", (command.context_class,), own)
    for each in getattr(command, "commands", {}).values():
        use_pages(each)


class _Page(typer.Context.formatter_class):  # type: ignore[misc, valid-type] # see use_pages
    """The help of one command."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        for each in _PLACES:
            args = args.replace(each, _(each))
        super().write_usage(prog, args, prefix or _("Usage: "))

    def write_heading(self, heading: str) -> None:
        self.write(_(heading) + _(": ").rstrip() + "\n")

    def write_text(self, text: str) -> None:
        indent = " " * self.current_indent
        paragraphs = [
            "\n".join(
                indent + line for line in wrapped(" ".join(each.split()), self.width - len(indent))
            )
            for each in text.split("\n\n")
        ]
        self.write("\n\n".join(paragraphs) + "\n")

    def write_dl(
        self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        named = [(_TYPE_OF_ARGUMENT.sub(r"\1", first), second) for first, second in rows]
        indent = " " * self.current_indent
        widest = max(columns(first) for first, _second in named if columns(first) <= col_max)
        gap = widest + col_spacing
        for first, second in named:
            lines = list(wrapped(_described(second), max(self.width - gap - len(indent), 10)))
            if columns(first) > col_max or not lines:
                self.write(f"{indent}{first}\n")
            else:
                self.write(f"{indent}{padded(first, gap)}{lines.pop(0)}\n")
            for line in lines:
                self.write(f"{indent}{' ' * gap}{line}\n")


def _described(text: str) -> str:
    """Return the description of an option, with the notes that typer adds to it."""
    if (found := _NOTE.search("  " + text)) is None:
        return _(text)
    notes = []
    for note in found[1].split("; "):
        name, _colon, value = note.partition(": ")
        notes.append(
            _("default: {value}").format(value=value.strip("()")) if name == "default" else _(note)
        )
    said = ("  " + text)[: found.start()].strip()
    together = _("; ").join(notes)
    return f"{said}  [{together}]".strip()
