"""The file of devices: what is kept, who may read it, and what is said of one that is damaged."""

import json
import stat
import threading
from pathlib import Path

import pytest

from evaluators.devices.registry import Device, Devices, DevicesError, parse_device

URL = "ssh://jetson@orin.local"


@pytest.fixture
def devices(tmp_path: Path) -> Devices:
    return Devices(tmp_path / "home" / "devices.json")


def file_of(tmp_path: Path) -> Path:
    return tmp_path / "home" / "devices.json"


@pytest.mark.parametrize(
    ("url", "host", "port", "user"),
    [
        (URL, "orin.local", 22, "jetson"),
        ("ssh://jetson@orin.local:2222", "orin.local", 2222, "jetson"),
        ("ssh://root@192.168.1.5/", "192.168.1.5", 22, "root"),
        ("ssh://a.b-c@[fe80::1]:22", "fe80::1", 22, "a.b-c"),
        ("ssh://jetson@[fe80::1%eth0]", "fe80::1%eth0", 22, "jetson"),
        ("ssh://jetson@[fe80::1%25eth0]:2222", "fe80::1%eth0", 2222, "jetson"),
        ("ssh://LAB\\jetson@orin", "orin", 22, "LAB\\jetson"),
        ("ssh://LAB%5Cjetson@orin", "orin", 22, "LAB\\jetson"),
    ],
)
def test_a_url_names_user_host_and_port(url: str, host: str, port: int, user: str) -> None:
    device = parse_device("orin", url)
    assert (device.host, device.port, device.user) == (host, port, user)
    assert parse_device("orin", device.url) == device


@pytest.mark.parametrize(
    "url",
    [
        "orin.local",
        "jetson@orin.local",
        "http://jetson@orin.local",
        "ssh://orin.local",
        "ssh://jetson@",
        "ssh://jetson@orin.local:0",
        "ssh://jetson@orin.local:99999",
        "ssh://jetson@orin.local:x",
        "ssh://jetson@orin.local/home",
        "ssh://jetson@orin.local?x=1",
        "ssh://jet son@orin.local",
        "ssh://jetson@-oProxyCommand=x",
        "ssh://jetson@[fe80::1",
        "",
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_in_words(url: str) -> None:
    with pytest.raises(DevicesError, match=r"device orin: "):
        parse_device("orin", url)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(DevicesError, match="only keys are used") as raised:
        parse_device("orin", "ssh://jetson:geheim@orin.local")
    assert "geheim" not in str(raised.value)
    for url in ("jetson:geheim@orin.local:x", "jetson:geheim/x@orin.local", "a:b:geheim@x:y"):
        with pytest.raises(DevicesError) as raised:
            parse_device("orin", f"ssh://{url}")
        assert "geheim" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "local", "../x", "a b", "-x", "a/b", "é", "x" * 65, "a\n"])
def test_a_name_that_is_not_simple_is_refused(name: str) -> None:
    with pytest.raises(DevicesError, match="device name"):
        parse_device(name, URL)


def test_what_is_added_is_there_again_and_only_the_user_may_read_it(
    devices: Devices, tmp_path: Path
) -> None:
    orin = parse_device("orin", URL, "/keys/orin")
    devices.add(orin)
    devices.add(parse_device("nano", "ssh://jetson@nano.local:2222"))
    changed = devices.change("orin", host_key="ssh-ed25519 AAAA", agent="/a/b.pyz")
    again = Devices(file_of(tmp_path))
    assert [device.name for device in again.all()] == ["nano", "orin"]
    assert again.get("orin") == changed
    assert changed == Device(
        "orin", "orin.local", 22, "jetson", "/keys/orin", "ssh-ed25519 AAAA", "/a/b.pyz"
    )
    assert stat.S_IMODE(file_of(tmp_path).stat().st_mode) == 0o600
    devices.remove("nano")
    assert [device.name for device in again.all()] == ["orin"]


def test_an_unknown_name_is_told_with_those_that_there_are(devices: Devices) -> None:
    with pytest.raises(DevicesError, match=r"no device 'orin': known are local.*none yet"):
        devices.get("orin")
    devices.add(parse_device("nano", URL))
    devices.add(parse_device("xavier", URL))
    for call in (devices.get, devices.remove, devices.change):
        with pytest.raises(DevicesError, match=r"no device 'orin'.*nano, xavier"):
            call("orin")


def test_a_name_is_given_once(devices: Devices) -> None:
    devices.add(parse_device("orin", URL))
    with pytest.raises(DevicesError, match=r"'orin' is there already.*remove orin"):
        devices.add(parse_device("orin", "ssh://jetson@other.local"))
    assert devices.get("orin").host == "orin.local"


GOOD = {
    "host": "orin.local",
    "port": 22,
    "user": "jetson",
    "key_file": None,
    "host_key": None,
    "agent": None,
    "python": None,
}


def entry(**changed: object) -> str:
    return json.dumps({"version": 1, "devices": {"orin": {**GOOD, **changed}}})


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "not JSON"),
        ('{"version": 1, "dev', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "version 1"),
        ('{"version": 2, "devices": {}}', "version 1"),
        ('{"version": 1, "devices": []}', "no object of devices"),
        ('{"version": 1, "devices": {"orin": {}}}', "'orin' does not hold exactly"),
        (entry(more=1), "'orin' does not hold exactly"),
        (entry(port="22"), "port '22'"),
        (entry(user=None), "None is no user name"),
        (entry(agent="relative"), "no absolute path"),
        (entry(host_key="ssh-ed25519"), "host_key"),
        (entry().replace('"orin"', '"../orin"'), "device name"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_damaged_file_is_told_and_left_alone(
    devices: Devices, tmp_path: Path, text: str, word: str
) -> None:
    file = file_of(tmp_path)
    file.parent.mkdir()
    content = text.encode("utf-8", "surrogateescape")
    file.write_bytes(content)
    for call in (devices.all, lambda: devices.add(parse_device("nano", URL))):
        with pytest.raises(DevicesError, match=r"devices.json") as raised:
            call()
        assert word in str(raised.value) and "correct it" in str(raised.value)
    assert file.read_bytes() == content


def test_changes_at_once_are_all_kept(devices: Devices) -> None:
    adding = [
        threading.Thread(target=devices.add, args=(parse_device(f"board-{k}", URL),))
        for k in range(16)
    ]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    assert len(devices.all()) == 16
