"""Passwords of URLs, left out wherever text is printed or stored."""

import re

HIDDEN = "***"
_SECRET_KEYS = r"[\w.-]*(?:pass(?!file)|pwd|secret|token|odbc_connect)[\w.-]*"
_IN_QUERY = re.compile(rf"([?&;\s](?:{_SECRET_KEYS})=)(?!\*\*\*)[^&\s'\"]+", re.IGNORECASE)
_IN_TEXT = re.compile(r"(://[^\s/:@'\"]*:)[^\s'\"]*@")
"""The user and the start of a password, which may hold `@` or `/` where it is not encoded."""

_URL = re.compile(r"(?P<user>(?>(?:[^:/]*://)?)[^:@]*:).*@", re.DOTALL)
_URL_QUERY = re.compile(rf"([?&](?:{_SECRET_KEYS})=)[^&]+", re.IGNORECASE)
_FILE = re.compile(r"sqlite[^:]*:///")
"""URLs of files have no user; a path may hold `:` and `@`."""


def redacted_url(url: str) -> str:
    """Return a URL without its password, whatever characters the password holds."""
    if not _FILE.match(url):
        url = _URL.sub(rf"\g<user>{HIDDEN}@", url, count=1)
    return _URL_QUERY.sub(rf"\g<1>{HIDDEN}", url)


def redacted(text: str) -> str:
    """Return text without the passwords of the URLs in it, also those in a URL's query."""
    return _IN_QUERY.sub(rf"\g<1>{HIDDEN}", _IN_TEXT.sub(rf"\g<1>{HIDDEN}@", text))
