"""Passwords of URLs are left out of all that is printed, whatever characters they hold."""

import pytest

from search_space.errors import FusionNasError
from search_space.redaction import redacted, redacted_url

SERVER = "postgresql+psycopg://tester"


@pytest.mark.parametrize(
    "password", ["S3cr3t", "S3c@r3t", "S3c/r3t", "S3c:r3t", "S3 c r3t", "%20S3"]
)
def test_a_url_is_shown_without_its_password(password: str) -> None:
    assert redacted_url(f"{SERVER}:{password}@host:1/name") == f"{SERVER}:***@host:1/name"
    assert redacted_url(f"tester:{password}@host/name") == "tester:***@host/name"
    assert redacted_url(f"{SERVER}@host/name?sslpassword={password}&user=x") == (
        f"{SERVER}@host/name?sslpassword=***&user=x"
    )


@pytest.mark.parametrize("password", ["S3cr3t", "S3c@r3t", "S3c/r3t", "S3c:r3t"])
def test_text_and_errors_are_shown_without_the_passwords_in_it(password: str) -> None:
    text = f"parameters: ('\"{SERVER}:{password}@host/name\"', 7) and ?password={password}&x=1 x@y"
    shown = f"parameters: ('\"{SERVER}:***@host/name\"', 7) and ?password=***&x=1 x@y"
    assert redacted(text) == redacted(shown) == shown
    error = FusionNasError(text, text)
    assert (error.message, error.hint) == (shown, shown) and password not in repr(error)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////home/a:b@c/studies.db",
        "postgresql://host/name",
        "postgresql://tester@host:5432/name?passfile=/home/me/.pgpass",
        "ssh://jetson@[fe80::1%eth0]:22",
    ],
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert redacted_url(url) == redacted(url) == url
