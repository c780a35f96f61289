"""Tokenizers: those of pretrained encoders, and one learned from the data's own texts."""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, cast

import torch
from torch import Tensor

from search_space.design.encoder import EncoderError, EncoderSpec
from search_space.encoders.configs import first_line
from search_space.encoders.libraries import from_pretrained

CHECKED_TEXTS = 1000
MOST_UNKNOWN, MANY_UNKNOWN = 0.5, 0.05
"""Shares of the data's tokens unknown to a pretrained tokenizer: more is refused, warned of."""
SENTENCEPIECE = (".model", ".spm")
"""How files of SentencePiece models end."""
PAD, UNKNOWN, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


_log = logging.getLogger("fusion_nas.encoders")


class Tokenizer(Protocol):
    """Texts to ids and mask; `fingerprint` changes whenever the ids could."""

    fingerprint: str
    pad_id: int
    """Of the token that texts are padded with."""

    def encode(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """Ids and mask, each (N, L') int64, with L' = min(length, longest of the texts)."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the tokenizer as files that transformers or tokenizers read."""
        ...


class PretrainedTokenizer:
    """The tokenizer that comes with an encoder, from its folder or the hub's cache."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._source = spec.source
        try:
            self._tokenizer = from_pretrained("AutoTokenizer", spec.source)
        except EncoderError:
            raise
        except Exception as error:  # tokenizers raises nothing narrower for a torn file
            raise EncoderError(
                f"text encoder {spec.source}: no usable tokenizer there "
                f"({self._cause()}{first_line(error)}); give a folder that holds "
                "tokenizer.json as save_pretrained wrote it, or fetch the encoder into the hub's "
                "cache"
            ) from error
        if self._tokenizer.pad_token is None:
            raise EncoderError(
                f"text encoder {spec.source}: its tokenizer names no pad_token, so texts cannot be "
                "brought to one length; name any of its tokens in tokenizer_config.json, padding "
                "is masked"
            )
        self.pad_id = int(self._tokenizer.pad_token_id)
        self._tokenizer.padding_side = "right"  # the first token stands for the whole text
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        # Two tokenizers of one vocabulary may still cut and spell words differently.
        rules = self._files() if backend is None else backend.to_str()
        vocabulary = json.dumps([self._tokenizer.get_vocab(), rules], sort_keys=True)
        self.fingerprint = hashlib.sha256(vocabulary.encode()).hexdigest()

    def _files(self) -> dict[str, str]:
        """SHA-256 by name of the files of a tokenizer that transformers runs in Python."""
        with TemporaryDirectory(prefix="tokenizer-") as folder:
            self.save(Path(folder))
            return {
                file.name: hashlib.sha256(file.read_bytes()).hexdigest()
                for file in sorted(Path(folder).iterdir())
            }

    def _cause(self) -> str:
        """What its folder holds instead of tokenizer.json, if that is a SentencePiece model."""
        folder = Path(self._source)
        if not folder.is_dir() or (folder / "tokenizer.json").is_file():
            return ""
        found = [file.name for file in sorted(folder.iterdir()) if file.suffix in SENTENCEPIECE]
        if not found:
            return ""
        return (
            f"there is no tokenizer.json, and transformers cannot read {found[0]} alone for this "
            "architecture: "
        )

    def check(self, texts: Iterable[str]) -> None:
        """Hold the tokenizer against the texts that it is to read, or `CHECKED_TEXTS` of them.

        An encoder that was saved without its tokenizer gets an empty one, which reads every text
        alike. Raises EncoderError where all texts have the same ids, or over `MOST_UNKNOWN` of the
        tokens are unknown; warns over `MANY_UNKNOWN`.
        """
        given = list(islice(dict.fromkeys(text for text in texts if text.strip()), CHECKED_TEXTS))
        try:
            ids = [self._tokenizer(text)["input_ids"] for text in given]
        except Exception as error:  # an empty vocabulary is found out when it is first used
            why = f"it cannot read the data's texts ({first_line(error)})"
            raise self._unusable(why) from error
        if len(given) > 1 and all(row == ids[0] for row in ids):
            raise self._unusable("it gives all of the data's texts the same token ids")
        unknown = self._tokenizer.unk_token_id
        marks = {*self._tokenizer.all_special_ids} - {unknown}
        words = [token for row in ids for token in row if token not in marks]
        share = words.count(unknown) / len(words) if words and unknown is not None else 0.0
        if share > MOST_UNKNOWN:
            raise self._unusable(f"{100 * share:.0f} % of the data's tokens are unknown to it")
        if share > MANY_UNKNOWN:
            _warn_once(
                f"text encoder {self._source}: {100 * share:.0f} % of the data's tokens are "
                "unknown to its tokenizer: is it made for texts in this language?"
            )

    def _unusable(self, why: str) -> EncoderError:
        return EncoderError(
            f"text encoder {self._source}: its tokenizer is of no use here: {self._cause()}{why}; "
            "give a folder "
            "that holds the encoder's own tokenizer.json, as save_pretrained of the tokenizer "
            "writes it, and an encoder made for these texts"
        )

    def encode(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """Ids and mask, each (N, L') int64, with L' = min(length, longest of the texts)."""
        found = self._tokenizer(
            list(texts),
            padding="longest",
            truncation=True,
            max_length=length,
            return_attention_mask=True,  # not all give one unasked
            return_tensors="pt",
        )
        return cast(Tensor, found["input_ids"]), cast(Tensor, found["attention_mask"])

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and its settings."""
        self._tokenizer.save_pretrained(str(folder))


@cache
def _warn_once(text: str) -> None:
    _log.warning(text)


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
        self.pad_id = specials.index(PAD)  # they come first, in this order
        words.enable_padding(pad_id=self.pad_id, pad_token=PAD)
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
