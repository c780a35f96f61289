"""Flags that several commands take."""

from typing import Annotated

import typer

Study = Annotated[str, typer.Option("--study", help="A preset, or a TOML file like one.")]
Trials = Annotated[
    int | None, typer.Option("--trials", help="Finished trials in all; the same command resumes.")
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="CMU-MOSI in MMSA's layout, MELD as published, or a folder of label.csv and images/; "
        "or built-in:faces (the default) or built-in:shapes.",
    ),
]
Space = Annotated[
    str | None, typer.Option("--space", help="A search space by name, or a TOML file.")
]
Texts = Annotated[
    list[str] | None,
    typer.Option("--text-encoder", help="A local folder or a hub id in the cache; repeatable."),
]
Visions = Annotated[
    list[str] | None,
    typer.Option("--vision-encoder", help="A folder, timm/NAME or hub id; repeatable."),
]
Sounds = Annotated[
    list[str] | None,
    typer.Option(
        "--audio-encoder",
        help="A folder, timm/NAME (which reads log-mel bands) or hub id; repeatable.",
    ),
]
WeightsFlag = Annotated[
    str | None, typer.Option("--weights", help="pretrained or random, for all encoders.")
]
TextOnly = Annotated[
    bool,
    typer.Option("--text-only", help="Texts alone, no encoder of pictures or sounds."),
]
AcceptFaults = Annotated[
    bool,
    typer.Option(
        "--accept-faults",
        help="Use data that fail the check as they are; every result then says so.",
    ),
]
Trunks = Annotated[
    str | None,
    typer.Option("--trunks", help="auto, frozen, text-tuned, tuned, by-stage or whole."),
]
Protocol = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="How designs are trained: fair (all alike), or paper (as published; for a GPU).",
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        help="Where designs are timed: local, or a board by name; repeatable for alike boards.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", help="Threads of the runtime; 0: its choice. 1 on local if left out, else 0."
    ),
]
Timing = Annotated[
    str | None,
    typer.Option(
        "--timing",
        help="alone: the device does nothing else, and disturbed readings are taken again; "
        "shared: it does other work, and only gross instability counts; auto: shared on local.",
    ),
]
Runtime = Annotated[
    str | None,
    typer.Option("--runtime", help="What runs designs: cpu or cuda (ONNX Runtime), tensorrt."),
]
Storage = Annotated[
    str | None, typer.Option("--storage", help="Optuna storage URL; SQLite in ./runs if left out.")
]
Name = Annotated[str | None, typer.Option("--name", help="The study's name in the storage.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Embeddings = Annotated[
    str | None,
    typer.Option(
        "--embeddings",
        help="For --study superfuse: a .npz file of text, vision, labels (and split).",
    ),
]
Width = Annotated[
    int | None,
    typer.Option(
        "--width",
        help="For --study superfuse: project both modalities to this width, or draw them so wide.",
    ),
]
Center = Annotated[
    bool,
    typer.Option("--center", help="For --study superfuse: take each modality's training mean off."),
]
