"""Tokenizers: those of pretrained encoders, and one learned from the data's own texts."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor

from search_space.design.encoder import EncoderError, EncoderSpec
from search_space.encoders.libraries import import_transformers

PAD, UNKNOWN, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


class Tokenizer(Protocol):
    """Texts to ids and mask; `fingerprint` changes whenever the ids could."""

    fingerprint: str

    def encode(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """Ids and mask, each (N, L') int64, with L' = min(length, longest of the texts)."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the tokenizer as files that transformers or tokenizers read."""
        ...


class PretrainedTokenizer:
    """The tokenizer that comes with an encoder, from its folder or the hub's cache."""

    def __init__(self, spec: EncoderSpec) -> None:
        transformers = import_transformers()
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                spec.source, local_files_only=True
            )
        except Exception as error:  # tokenizers raises nothing narrower for a torn file
            raise EncoderError(
                f"text encoder {spec.source}: no usable tokenizer there; give a folder that holds "
                "tokenizer.json as save_pretrained wrote it, or fetch the encoder into the hub's "
                "cache"
            ) from error
        if self._tokenizer.pad_token is None:
            raise EncoderError(
                f"text encoder {spec.source}: its tokenizer names no pad_token, so texts cannot be "
                "brought to one length; name any of its tokens in tokenizer_config.json, padding "
                "is masked"
            )
        self._tokenizer.padding_side = "right"  # the first token stands for the whole text
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        # Two tokenizers of one vocabulary may still cut and spell words differently.
        rules = "" if backend is None else backend.to_str()
        vocabulary = json.dumps([self._tokenizer.get_vocab(), rules], sort_keys=True)
        self.fingerprint = hashlib.sha256(vocabulary.encode()).hexdigest()

    def encode(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """Ids and mask, each (N, L') int64, with L' = min(length, longest of the texts)."""
        found = self._tokenizer(
            list(texts), padding="longest", truncation=True, max_length=length, return_tensors="pt"
        )
        return cast(Tensor, found["input_ids"]), cast(Tensor, found["attention_mask"])

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and its settings."""
        self._tokenizer.save_pretrained(str(folder))


class LearnedTokenizer:
    """Words of the training texts, most frequent first: for encoders that start untrained."""

    def __init__(self, texts: Iterable[str], size: int) -> None:
        from tokenizers import Tokenizer as Words
        from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

        words = Words(models.WordLevel(unk_token=UNKNOWN))
        words.normalizer = normalizers.Lowercase()
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        specials = [PAD, UNKNOWN, CLS, SEP]
        trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=specials)
        words.train_from_iterator(texts, trainer)
        words.post_processor = processors.TemplateProcessing(
            single=f"{CLS} $A {SEP}",
            special_tokens=[(name, words.token_to_id(name)) for name in (CLS, SEP)],
        )
        words.enable_padding(pad_id=words.token_to_id(PAD), pad_token=PAD)
        self._words = words
        self.fingerprint = hashlib.sha256(words.to_str().encode()).hexdigest()

    def encode(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """Ids and mask, each (N, L') int64, with L' = min(length, longest of the texts)."""
        self._words.enable_truncation(length)
        found = self._words.encode_batch(list(texts))
        ids = torch.tensor([encoding.ids for encoding in found], dtype=torch.int64)
        mask = torch.tensor([encoding.attention_mask for encoding in found], dtype=torch.int64)
        return ids, mask

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json, and settings without which transformers reads it otherwise."""
        self._words.save(str(folder / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": PAD}
        settings |= {"unk_token": UNKNOWN, "cls_token": CLS, "sep_token": SEP}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
