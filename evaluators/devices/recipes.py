"""How a runtime comes to a device whose agent lacks it: the commands, by system and Python."""

from device_agent.board.description import DeviceInfo, RuntimeInfo
from device_agent.board.state import Board
from evaluators.devices.link import DeviceError

VENV = "fusion-nas-venv"
"""Below the home of the user there. The agent's Python is started with -I: it sees packages of the
system and of its virtual environment, not those of the user's own site."""
LAST_FOR = {"3.10": "onnxruntime<1.24"}
"""The last onnxruntime for a Python, where that is not the newest: 1.24 came without 3.10."""
INDEX_OF = {"6": "jp6/cu126", "7": "sbsa/cu130"}
"""Part of NVIDIA's Jetson AI Lab package index with onnxruntime-gpu for a JetPack. The public
index has none for aarch64."""


TOO_OLD = ("4", "5")
"""JetPacks whose TensorRT and CUDA packages are for Python 3.6 and 3.8; the agent needs 3.10."""


class RuntimeMissing(DeviceError):
    """The runtime that a study asks for cannot be loaded on its device."""


def is_jetson(board: Board) -> bool:
    """Whether a board is a Jetson, by its system or its name."""
    return board.l4t is not None or "jetson" in (board.model or "").lower()


def requirement(python: str) -> str:
    """Return what pip has to install for the CPU on a Python of this version (`3.10.12`)."""
    return LAST_FOR.get(".".join(python.split(".")[:2]), "onnxruntime")


def way_out(runtime: str, provider: str, info: DeviceInfo, name: str) -> str:
    """Return the commands that bring a runtime to a device.

    Args:
        runtime: as in `MeasureRequest.runtime`.
        provider: the provider that is asked for.
        info: what the device says of itself.
        name: of the device, as the user calls it.
    """
    again = f"fusion-nas device install {name} --python {VENV}/bin/python"
    venv = f"python3 -m venv --system-site-packages {VENV}"
    pip = f"{VENV}/bin/pip install"
    if name == "local":
        again, venv, pip = "", "", "pip install"
    on_gpu = runtime == "tensorrt" or provider == "CUDAExecutionProvider"
    if on_gpu and info.board.jetpack in TOO_OLD:
        return (
            f"flash JetPack 6 or newer (that of JetPack {info.board.jetpack} is for a Python older "
            f"than 3.10), or start a container: fusion-nas device install {name} --python SCRIPT"
        )
    if runtime == "tensorrt":
        if is_jetson(info.board):
            return _then("sudo apt install nvidia-jetpack", venv, again)
        return _then(venv, f"{pip} tensorrt", again)
    if runtime == "openvino":
        return _then(venv, f"{pip} openvino", again)
    if provider == "CPUExecutionProvider":
        if name != "local":
            return f"fusion-nas device install {name} --with-runtime"
        return f"pip install '{requirement(info.python)}'"
    if not is_jetson(info.board):
        # The two packages overwrite each other.
        own = f"{pip.removesuffix('install')}uninstall -y onnxruntime"
        return _then(venv, own, f"{pip} onnxruntime-gpu", again)
    index = INDEX_OF.get(info.board.jetpack or "")
    where = f"from NVIDIA's Jetson AI Lab index, {index}" if index else "built for this JetPack"
    return _then("sudo apt install nvidia-jetpack", venv, f"{pip} onnxruntime-gpu ({where})", again)


def check_runtime(info: DeviceInfo, runtime: str, provider: str, name: str) -> None:
    """Refuse a device that lacks what a study needs, before anything else is done for it.

    Raises:
        RuntimeMissing: the runtime cannot be loaded there, or was built without the provider.
    """
    found = next((one for one in info.runtimes if one.name == runtime), None)
    missing = _missing(found, runtime, provider)
    if missing:
        raise RuntimeMissing(f"{name}: {missing}", way_out(runtime, provider, info, name))


def _missing(found: RuntimeInfo | None, runtime: str, provider: str) -> str:
    if found is None:
        return f"its agent knows no runtime {runtime}"
    if found.problem:
        return " ".join(found.problem.split())
    if provider not in found.providers:
        has = ", ".join(found.providers) or "none"
        return f"{runtime} {found.version} has no {provider} there (it has {has})"
    return ""


def _then(*commands: str) -> str:
    return "; ".join(command for command in commands if command)
