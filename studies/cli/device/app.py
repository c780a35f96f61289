"""The command line of devices. Nothing heavy is imported before a command needs it."""

from typing import Annotated

import typer

from studies.cli.exits import errors

device_app = typer.Typer(
    help="Name the boards that designs are timed on, and look after them.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="The device's name.")]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", help="A name shared by equal boards; --device TAG uses them all."),
]
Key = Annotated[
    str | None,
    typer.Option("--key", help="The private key file to log in with; ssh-agent if left out."),
]


@device_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What to call it: letters, digits, - and _.")],
    url: Annotated[str, typer.Argument(help="ssh://USER@HOST or ssh://USER@HOST:PORT")],
    key: Key = None,
    tags: Tags = None,
) -> None:
    """Remember a board that is reached over SSH."""
    with errors():
        from studies.cli.device.commands import add_device

        add_device(name, url, key, tags or ())


@device_app.command("tag")
def tag(
    name: Name,
    tags: Annotated[
        list[str] | None, typer.Argument(help="All of its tags from now on; none if left out.")
    ] = None,
) -> None:
    """Set the tags of a board."""
    with errors():
        from studies.cli.device.commands import tag_device

        tag_device(name, tags or ())


@device_app.command("queue")
def queue(
    names: Annotated[
        list[str] | None, typer.Argument(help="Devices or tags; every board if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show who holds each board, since when, and which clients wait for it.

    Exits with the code of devices where a board cannot be asked.
    """
    with errors():
        from studies.cli.device.commands import show_queues

        show_queues(names or (), as_json)


@device_app.command("list")
def show_all() -> None:
    """List the devices that are remembered."""
    with errors():
        from studies.cli.device.commands import list_devices

        list_devices()


@device_app.command("remove")
def remove(name: Name) -> None:
    """Forget a device; nothing is done on it."""
    with errors():
        from studies.cli.device.commands import remove_device

        remove_device(name)


@device_app.command("trust")
def trust(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where another key was trusted before.")
    ] = False,
) -> None:
    """Show a device's host key, and record it as the one that it must have from now on."""
    with errors():
        from studies.cli.device.commands import trust_device

        trust_device(name, yes, replace)


@device_app.command("install")
def install(
    name: Name,
    python: Annotated[
        str | None,
        typer.Option(
            "--python", help="The Python there that runs the agent, or a wrapper that starts one."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="Log in with this key once; the device's own stays as it is."),
    ] = None,
    with_runtime: Annotated[
        bool,
        typer.Option(
            "--with-runtime",
            help="Also make a virtual environment there and install onnxruntime for its CPU.",
        ),
    ] = False,
) -> None:
    """Put the agent of this version on a device, and print how to restrict the key to it."""
    with errors():
        from studies.cli.device.commands import install_agent

        install_agent(name, python, key, with_runtime)


@device_app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="A device's name, or local.")],
    compile_tensorrt: Annotated[
        bool,
        typer.Option(
            "--compile-tensorrt",
            help="With local: also have NVIDIA's parser and builder compile designs of the space "
            "demo that have its operators, poolings and encoders between them; needs no GPU. Other "
            "spaces: fusion-nas space NAME --check tensorrt --build.",
        ),
    ] = False,
) -> None:
    """Check a device: what is wrong, and how to fix it."""
    with errors():
        from evaluators.devices.registry import LOCAL
        from studies.cli.device.commands import check_device

        if compile_tensorrt and name != LOCAL:
            from studies.config.usage import UsageError

            raise UsageError(
                "--compile-tensorrt: compiles on this machine: give it with local; a board "
                "compiles designs as it times them"
            )
        check_device(name)
        if compile_tensorrt:
            from studies.cli.device.tensorrt import check_compiler

            check_compiler("tensorrt", "demo", ((), (), ()), None, build=True)
