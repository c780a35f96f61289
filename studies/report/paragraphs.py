"""Wrapped paragraphs and lists on a terminal, without colour or markup."""

import textwrap
from collections.abc import Iterable

from rich.console import Console

from studies.results.text import clean


def say(console: Console, text: str, hang: int = 0) -> None:
    """Prints a paragraph, its further lines `hang` deeper, without colour or markup."""
    indent = " " * hang
    for line in textwrap.wrap(
        clean(text), max(20, console.width), subsequent_indent=indent, break_on_hyphens=False
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def say_all(console: Console, title: str, lines: Iterable[str]) -> None:
    """Prints a heading and a list; nothing where the list is empty."""
    listed = list(lines)
    if listed:
        console.print()
        say(console, title)
        for line in listed:
            say(console, f"- {line}", hang=2)
