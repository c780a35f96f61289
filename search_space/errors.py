"""The base of every error that a user can resolve, with its exit code."""

from typing import ClassVar

from search_space.redaction import redacted

USAGE, DATA, ENCODER, DEVICE, STORAGE, NUMBERS, DISK_FULL, HOST_KEY, SLOWER = range(2, 11)


class FusionNasError(Exception):
    """Report something that a user can resolve: a value, a file, a device, a full disk.

    Passwords of URLs are left out of both texts.

    Attributes:
        exit_code: what the command exits with when nothing handles the error; None for that of
            the error that caused it.
        message: what is wrong, and with which value.
        hint: what to do next; empty where the message already says it.
    """

    exit_code: ClassVar[int | None] = None
    is_block: ClassVar[bool] = False
    """Whether the text is a block of lines, each shown as it is."""

    def __init__(self, message: str = "", hint: str = "") -> None:
        self.message, self.hint = redacted(message), redacted(hint)
        super().__init__(self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message
