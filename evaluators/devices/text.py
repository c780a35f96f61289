"""What a device says, made safe to show: a device may be broken, or not what it seems."""

from typing import Any

CONTROL_PICTURES = 0x2400
DELETE = "\x7f"


def plain(text: str) -> str:
    """One line of the same length in which nothing moves a cursor, colours or hides.

    White space becomes blanks; a control character becomes its picture, such as `␛` for an
    escape; whatever else cannot be printed becomes `\N{REPLACEMENT CHARACTER}`.
    """
    return "".join(map(_plain, text))


def plain_lines(text: str) -> str:
    """The same line by line, for text that may have several."""
    return "\n".join(plain(line) for line in text.splitlines())


def plain_json(value: Any) -> Any:
    """A JSON value with all its texts and names so."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [plain_json(one) for one in value]
    if isinstance(value, dict):
        return {plain(name): plain_json(one) for name, one in value.items()}
    return value


def _plain(character: str) -> str:
    if character.isprintable():
        return character
    if character.isspace():
        return " "
    if character < " ":
        return chr(CONTROL_PICTURES + ord(character))
    return "\N{SYMBOL FOR DELETE}" if character == DELETE else "\N{REPLACEMENT CHARACTER}"
