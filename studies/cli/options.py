"""Flags that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

Study = Annotated[
    str, typer.Option("--study", help="Preset, or a TOML file of one.", rich_help_panel="Study")
]
Trials = Annotated[
    int | None,
    typer.Option(
        "--trials",
        help="Finished trials in total; the same command resumes.",
        rich_help_panel="Study",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Folder of data (CMU-MOSI, MELD, or label.csv with images/), built-in:faces, "
        "built-in:shapes or a plugin's. Default: built-in:faces.",
        rich_help_panel="Data",
    ),
]
Space = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="demo, paper, fusions, fusion-1152, trimodal, or a TOML file. Default: demo "
        "on built-in data, else paper.",
        rich_help_panel="Search space",
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Option(
        "--text-encoder",
        help="Local folder, cached hub id or a plugin's NAME or NAME:FOLDER. Repeatable.",
        rich_help_panel="Search space",
    ),
]
Visions = Annotated[
    list[str] | None,
    typer.Option(
        "--vision-encoder",
        help="Local folder, timm/NAME, cached hub id or a plugin's NAME or NAME:FOLDER. "
        "Repeatable.",
        rich_help_panel="Search space",
    ),
]
Sounds = Annotated[
    list[str] | None,
    typer.Option(
        "--audio-encoder",
        help="Local folder, timm/NAME, cached hub id or a plugin's NAME or NAME:FOLDER. "
        "Repeatable.",
        rich_help_panel="Search space",
    ),
]
WeightsFlag = Annotated[
    str | None,
    typer.Option(
        "--weights", help="pretrained or random, for all encoders.", rich_help_panel="Search space"
    ),
]
TextOnly = Annotated[
    bool,
    typer.Option("--text-only", help="Texts alone.", rich_help_panel="Data"),
]
Modalities = Annotated[
    list[str] | None,
    typer.Option(
        "--modality",
        help="text, vision or audio: read these alone. Repeatable. Default: all that the space "
        "has encoders for.",
        rich_help_panel="Data",
    ),
]
ScoreClasses = Annotated[
    int | None,
    typer.Option(
        "--score-classes",
        help="Classes that scores from -3 to 3 become, as CMU-MOSI has them: 2, negative and "
        "non-negative, or 7, the score rounded. Default: 2.",
        rich_help_panel="Data",
    ),
]
ImageSizes = Annotated[
    list[int] | None,
    typer.Option(
        "--image-size",
        help="Pixels a side of pictures, as a decision of the search. Repeatable. Default: those "
        "of the space, else what each vision encoder was made for.",
        rich_help_panel="Search space",
    ),
]
ImageTokens = Annotated[
    list[int] | None,
    typer.Option(
        "--image-tokens",
        help="Tokens that pictures are pooled to before they are fused as tokens, as a decision of "
        "the search: 1, 4, 9, 16, 25, 36, 49, or 0 for all. Repeatable. Default: those of the "
        "space, else all.",
        rich_help_panel="Search space",
    ),
]
ImageMerging = Annotated[
    list[int] | None,
    typer.Option(
        "--image-merging",
        help="Pairs of similar tokens that each layer of a ViT merges (ToMe), as a decision of the "
        "search; 0 for none. Repeatable. Default: those of the space, else none.",
        rich_help_panel="Search space",
    ),
]
LoraRanks = Annotated[
    list[int] | None,
    typer.Option(
        "--lora-rank",
        help="Rank of the adapters (LoRA) that the last layers of text and vision encoders are "
        "trained with, as a decision of the search; 0 for none. Repeatable. Default: those of the "
        "space, else none.",
        rich_help_panel="Search space",
    ),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="KIND[=WHERE]",
        help="Log finished trials: tensorboard=DIR, mlflow=URI or wandb=PROJECT. Repeatable.",
        rich_help_panel="Output",
    ),
]
Seconds = Annotated[
    int | None,
    typer.Option(
        "--seconds",
        help="Seconds of sound to read, at most what the encoder states. Default: those of the "
        "longest sound of the data.",
        rich_help_panel="Data",
    ),
]
AcceptFaults = Annotated[
    bool,
    typer.Option(
        "--accept-faults",
        help="Use data that fail the check. Every result says so.",
        rich_help_panel="Data",
    ),
]
Trunks = Annotated[
    str | None,
    typer.Option(
        "--trunks",
        help="auto, frozen, text-tuned, tuned, by-stage or whole. Default: auto.",
        rich_help_panel="Training",
    ),
]
Protocol = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="fair: all designs alike. paper: as published, for a GPU. Default: fair.",
        rich_help_panel="Training",
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        help="local, or the name of a board. Repeatable for identical boards; orin,nano times "
        "designs on both, which need not be alike: NAME, NAME:RUNTIME or NAME:RUNTIME:THREADS. "
        "Default: local.",
        rich_help_panel="Device",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        help="Threads of the runtime; 0 lets it choose. Default: 1 on local, else 0.",
        rich_help_panel="Device",
    ),
]
Timing = Annotated[
    str | None,
    typer.Option(
        "--timing",
        help="alone: repeat disturbed readings. shared: reject gross instability only. "
        "Default: shared on local, else alone.",
        rich_help_panel="Device",
    ),
]
Runtime = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        help="cpu or cuda (ONNX Runtime), tensorrt, openvino (its CPU), or a plugin's on local. "
        "Default: cpu.",
        rich_help_panel="Device",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage", help="Optuna storage URL. Default: SQLite in ./runs.", rich_help_panel="Study"
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="Name of the study in the storage.", rich_help_panel="Study"),
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Folder, s3://BUCKET/PATH or another URL that fsspec opens, where hosts share "
        "evaluations, features and weights. Default: FUSION_NAS_STORE, if set.",
        rich_help_panel="Sampling",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel="Output")
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        help="Append everything that the run reports to this file, with the time.",
        rich_help_panel="Output",
    ),
]
Embeddings = Annotated[
    str | None,
    typer.Option(
        "--embeddings",
        help="npz file with text, vision, labels and optionally split.",
        rich_help_panel="Study superfuse",
    ),
]
Width = Annotated[
    int | None,
    typer.Option(
        "--width",
        help="Project both modalities to this width, or draw them this wide.",
        rich_help_panel="Study superfuse",
    ),
]
Sizes = Annotated[
    str | None,
    typer.Option(
        "--sizes",
        metavar="FROM:TO",
        help="Smallest and largest training set, in pairs; sizes between them double.",
        rich_help_panel="Study superfuse",
    ),
]
Center = Annotated[
    bool,
    typer.Option(
        "--center",
        help="Subtract the training mean of each modality.",
        rich_help_panel="Study superfuse",
    ),
]
