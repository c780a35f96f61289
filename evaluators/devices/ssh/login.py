"""SSH keys: those to log in with, never a password, and how a key is shown to a person."""

import base64
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from evaluators.devices.link import DeviceError

USUAL_FILES = ("id_ed25519", "id_ecdsa", "id_rsa")


class LogInFailed(DeviceError):
    """The device lets nobody in with the available keys; the text says what to do."""


@dataclass(frozen=True)
class Candidate:
    """A key to try, and where it is from, in words. `key` signs."""

    key: Any
    source: str


def public_text(key: Any) -> str:
    """Type and base64 of a key's public part, as `authorized_keys` and `known_hosts` have it."""
    return f"{key.get_name()} {key.get_base64()}"


def shown(key: Any) -> str:
    """Bits, SHA256 fingerprint and type of a key as `ssh-keygen -lf` prints them."""
    kind = key.get_name().removeprefix("ssh-").partition("-")[0].upper()
    return f"{key.get_bits()} {key.fingerprint} ({kind})"


def parse_public(text: str) -> Any:
    """The key that `public_text` wrote; raises ValueError where it is none."""
    kind, _, data = text.partition(" ")
    try:
        return paramiko.PKey.from_type_string(kind, base64.b64decode(data, validate=True))
    except (ValueError, paramiko.SSHException, paramiko.UnknownKeyType) as error:
        raise ValueError(f"{text[:40]!r} is no public key: {error}") from error


@contextmanager
def candidates(key_file: str | None, more: Sequence[Path] = ()) -> Iterator[list[Candidate]]:
    """The keys to try, in order; ssh-agent stays open for their use while the block runs.

    With a key file it is that key alone: from the file, or from ssh-agent where the file needs a
    passphrase. Without one, all of ssh-agent, then of `more` and the usual files those that need
    none.

    Raises LogInFailed where there is none.
    """
    if key_file is not None and (given := _given(Path(key_file))):
        yield [given]
        return
    with _ssh_agent() as held:
        found = _usual(held, more) if key_file is None else [_held(Path(key_file), held)]
        if not found:
            raise LogInFailed(
                "there is no key to log in with, neither in ssh-agent nor as ~/.ssh/id_ed25519: "
                "make one with `ssh-keygen -t ed25519`, or name one with "
                "`fusion-nas device add NAME URL --key FILE`"
            )
        yield found


@contextmanager
def _ssh_agent() -> Iterator[list[Any]]:
    """The keys that ssh-agent holds; none where there is no ssh-agent."""
    agent = None
    try:
        try:
            agent = paramiko.Agent()
            held = list(agent.get_keys())
        except (paramiko.SSHException, OSError, EOFError, ValueError, struct.error) as error:
            raise LogInFailed(
                f"ssh-agent at SSH_AUTH_SOCK does not answer as one ({error}): restart it, unset "
                "SSH_AUTH_SOCK, or name a key file without a passphrase with "
                "`fusion-nas device add NAME URL --key FILE`"
            ) from error
        yield held
    finally:
        if agent is not None:
            agent.close()


def _usual(held: list[Any], more: Sequence[Path]) -> list[Candidate]:
    found = [Candidate(key, f"ssh-agent ({key.comment or key.get_name()})") for key in held]
    usual = [Path("~/.ssh").expanduser() / name for name in USUAL_FILES]
    for file in dict.fromkeys((*more, *usual)):
        with suppress(LogInFailed, _Encrypted):
            if file.is_file():
                shown = f"~/.ssh/{file.name}" if file in usual else str(file)
                found.append(Candidate(_load(file), shown))
    return found


def _given(file: Path) -> Candidate | None:
    """The key of a file; None where it needs a passphrase."""
    try:
        return Candidate(_load(file.expanduser()), str(file))
    except _Encrypted:
        return None


def _held(file: Path, held: list[Any]) -> Candidate:
    """The key of a file that needs a passphrase, as ssh-agent has it."""
    public = file.expanduser().with_name(f"{file.name}.pub")
    with suppress(OSError, UnicodeDecodeError):
        wanted = public.read_text(encoding="utf-8").split()[:2]
        for key in held:
            if public_text(key).split() == wanted:
                return Candidate(key, f"ssh-agent ({file})")
    raise LogInFailed(
        f"the key {file} needs a passphrase, which is never asked for here: load it with "
        f"`ssh-add {file}` ({public.name} has to lie beside it), and repeat"
    )


class _Encrypted(Exception):
    """The private key needs a passphrase."""


def _load(path: Path) -> Any:
    try:
        return paramiko.PKey.from_path(path)
    except TypeError:  # what the parser raises for a key that is encrypted
        raise _Encrypted from None
    except OSError as error:
        raise LogInFailed(
            f"the key {path} cannot be read ({error.strerror}): name another with "
            "`fusion-nas device add NAME URL --key FILE`"
        ) from None
    except (ValueError, paramiko.SSHException, paramiko.UnknownKeyType) as error:
        hint = "give the private key, without .pub" if path.suffix == ".pub" else "give another"
        raise LogInFailed(f"{path} holds no private key that can be used: {hint}") from error
