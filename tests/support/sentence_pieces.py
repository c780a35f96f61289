"""Folders of tiny text encoders that hold a SentencePiece model and no tokenizer.json."""

import io
from pathlib import Path
from typing import Any

import sentencepiece
from text_families import CAUSAL, MORE, READ

from search_space.encoders.libraries import import_transformers

TEXTS = ("a dim night picture", "a black night picture", "a bright day picture",
         "a white day picture", "a good film", "it was a bad film")  # fmt: skip
FILE_OF = {
    "camembert": "sentencepiece.bpe.model", "xlm-roberta": "sentencepiece.bpe.model",
    "mbart": "sentencepiece.bpe.model", "xmod": "sentencepiece.bpe.model",
    "big_bird": "spiece.model", "deberta-v2": "spm.model", "rembert": "sentencepiece.model",
    "fnet": "spiece.model", "bert-generation": "spiece.model",
    "plbart": "sentencepiece.bpe.model", "bert": "spiece.model",
    "roberta": "sentencepiece.bpe.model", "m2m_100": "sentencepiece.bpe.model",
    "marian": "source.spm",
}  # fmt: skip
"""The file that each family keeps its model in, or one that it cannot read."""


def write_model(file: Path, **options: Any) -> None:
    """Train a SentencePiece model of at most 60 pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    file.write_bytes(model.getvalue())


def write_encoder(folder: Path, family: str) -> Path:
    """A tiny encoder with random weights as `save_pretrained` writes it, and such a model."""
    transformers = import_transformers()
    config = {**READ, **CAUSAL, **MORE}[family] | {"vocab_size": 128}
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(family, **config))
    model.save_pretrained(folder)
    write_model(folder / FILE_OF[family])
    return folder
