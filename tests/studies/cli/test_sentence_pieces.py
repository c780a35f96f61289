"""Encoder folders with a SentencePiece model alone: read, or refused in a line with the cause."""

import json
from pathlib import Path

import pytest
from sentence_pieces import FILE_OF, TEXTS, write_encoder, write_model
from tiny import Place, finished_place, new_place

from evaluators.features.tokenizers import PretrainedTokenizer
from search_space import errors as codes
from search_space.design.encoder import spec_for

READ = ("camembert", "xlm-roberta", "mbart", "xmod", "big_bird", "deberta-v2", "rembert", "fnet")
RUN_IN_PYTHON = ("bert-generation", "plbart")
UNREAD = ("bert", "roberta", "m2m_100", "marian")


@pytest.fixture
def place(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    data = finished_place(tmp_path_factory.getbasetemp()).data
    return new_place(tmp_path / "place", data)


@pytest.mark.parametrize("family", [*READ, *RUN_IN_PYTHON])
def test_a_model_that_transformers_reads_is_enough(tmp_path: Path, family: str) -> None:
    folder = write_encoder(tmp_path / family, family)
    tokenizer = PretrainedTokenizer(spec_for("text", str(folder), "pretrained"))
    tokenizer.check(TEXTS)
    ids, mask = tokenizer.encode(TEXTS, 16)
    assert ids.shape == mask.shape and len({tuple(row) for row in ids.tolist()}) == len(TEXTS)
    tokenizer.save(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file() == (family in READ)


@pytest.mark.parametrize("family", ["camembert", "deberta-v2", "plbart"])
def test_a_study_reads_it_and_its_export_says_who_prepares_texts(place: Place, family: str) -> None:
    write_encoder(place.folder / family, family)
    run = place.run("--text-encoder", f"./{family}", "--sampler", "random", "--trials", "1")
    done = place.finish(run)
    assert done.returncode == 0, done.stderr
    made = place.finish(place.command("export", "0", "--out", "out"))
    assert made.returncode == 0, made.stderr
    folder = place.folder / "out"
    card = json.loads((folder / "card.json").read_text("utf-8"))
    uses_text = any(entry["name"] == "input_ids" for entry in card["inputs"])
    assert uses_text
    assert (folder / "tokenizer.json").is_file() == (family in READ)
    if family not in READ:
        assert (folder / FILE_OF[family]).is_file()
        assert "has no tokenizer.json" in made.stdout + made.stderr + str(card)


@pytest.mark.parametrize("family", UNREAD)
def test_one_that_it_cannot_read_is_refused_in_a_line_with_the_cause(
    place: Place, family: str
) -> None:
    write_encoder(place.folder / family, family)
    done = place.finish(place.run("--text-encoder", f"./{family}", "--trials", "1"))
    assert done.returncode == codes.ENCODER
    (said,) = done.stderr.strip().splitlines()[-1:]
    assert "Traceback" not in done.stderr
    assert f"{family}" in said and "there is no tokenizer.json" in said
    assert f"cannot read {FILE_OF[family]} alone" in said and "give a folder that holds" in said


def test_models_that_cut_words_otherwise_are_other_tokenizers(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "plbart", "plbart")
    spec = spec_for("text", str(folder), "pretrained")
    first = PretrainedTokenizer(spec).fingerprint
    assert PretrainedTokenizer(spec).fingerprint == first
    write_model(folder / FILE_OF["plbart"], normalization_rule_name="nmt_nfkc_cf")
    assert PretrainedTokenizer(spec).fingerprint != first
