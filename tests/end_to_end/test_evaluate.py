"""The commands ``evaluate`` and ``train-tokenizer`` on files of sound and their manifests."""

import json

import numpy as np
import pytest
import soundfile
from contracts.models import make_model
from families import SHALLOW
from transformers import AutoTokenizer, BartConfig

from speech_ed_flax.audio.features import WaveformFeatures
from speech_ed_flax.cli import main
from speech_ed_flax.commands.prepare import prepare
from speech_ed_flax.conversion.processor import Processor
from speech_ed_flax.data.tokenizer import train_tokenizer
from speech_ed_flax.metrics import align, score

TEXTS = ("one two", "Three, one!", "two three two")
LANGUAGES = ("en", "fr", "en")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random model that says two words of whatever it hears."""
    tokenizer = train_tokenizer(["one two three"], "word")
    decoder = BartConfig(
        vocab_size=len(tokenizer), d_model=24, decoder_layers=1, decoder_attention_heads=2,
        decoder_ffn_dim=16, max_position_embeddings=16, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    built = make_model(SHALLOW, decoder)
    built.processor = Processor(WaveformFeatures(), tokenizer)
    built.generation_config.update(min_new_tokens=2, max_new_tokens=2, suppress_tokens=[0, 1, 2, 3])
    folder = tmp_path_factory.mktemp("model")
    built.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Three recordings of noise, and what is said to be said in them."""
    folder, rows = tmp_path_factory.mktemp("data"), []
    for number, (text, language) in enumerate(zip(TEXTS, LANGUAGES, strict=True)):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 8_000 * (number + 1))
        soundfile.write(folder / f"{number}.wav", noise.astype(np.float32), 16_000)
        rows.append({"audio": f"{number}.wav", "text": text, "language": language})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluate(*arguments):
    return main(["evaluate", *map(str, arguments)])


def predictions_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_are_those_of_the_predictions_overall_and_by_language(
    model, manifest, tmp_path, capsys
):
    output = tmp_path / "predictions.jsonl"
    options = ["--metrics", "wer", "chrf", "--bootstrap", "100", "--normalizer", "basic"]
    assert evaluate(manifest, "-m", model, *options, "--json", "-o", output) == 0
    streams = capsys.readouterr()
    report, rows = json.loads(streams.out), predictions_of(output)
    assert [row["reference"] for row in rows] == list(TEXTS)
    for row in rows:
        assert set(row["hypothesis"].split()) <= {"one", "two", "three"}
        assert row["alignment"][1].startswith("HYP: ")
    assert rows[1]["alignment"] == align("three one", rows[1]["hypothesis"])
    said, heard = [row["reference"] for row in rows], [row["hypothesis"] for row in rows]
    settings = {"normalizer": "basic", "bootstrap": 100}
    assert report["all"] == score(said, heard, ("wer", "chrf"), **settings).to_json()
    english = score(said[::2], heard[::2], ("wer", "chrf"), **settings).to_json()
    assert report["languages"]["en"] == english
    assert (report["seconds"], report["failed"]) == (3.0, 0)
    assert streams.err.startswith("3 transcribed: 3.0 s of audio in ")


def test_rows_that_cannot_be_read_are_named_counted_and_left_out(model, manifest, tmp_path, capsys):
    second = manifest.with_name("more.tsv")
    second.write_text("audio\ttext\n0.wav\tone two\nmissing.wav\tone\n1.wav\t\n")
    output = tmp_path / "predictions.jsonl"
    assert evaluate(second, manifest, "-m", model, "-o", output, "--bootstrap", "0") == 3
    streams = capsys.readouterr()
    errors = [line for line in streams.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert any("missing.wav: no such file" in line for line in errors)
    assert any("more.tsv, line 4: no text" in line for line in errors)
    rows = predictions_of(output)
    assert [row["reference"] for row in rows] == ["one two", *TEXTS]
    assert rows[0]["hypothesis"] == rows[1]["hypothesis"]
    table = [line.split("\t") for line in streams.out.splitlines()]
    assert [line[:3] for line in table] == [
        [name, count, metric]
        for name, count in (("all", "4"), ("en", "2"), ("fr", "1"))
        for metric in ("wer", "cer")
    ]
    assert all(line[3].endswith(" %") for line in table)


def test_a_row_may_be_a_stretch_of_a_recording(model, manifest, tmp_path):
    rows = [{"audio": "2.wav", "text": "one", "offset": 0.5, "duration": 0.75}]
    part = manifest.with_name("part.jsonl")
    part.write_text(json.dumps(rows[0]))
    sound, rate = soundfile.read(manifest.with_name("2.wav"), dtype="int16")
    soundfile.write(manifest.with_name("cut.wav"), sound[8_000:20_000], rate)
    whole = manifest.with_name("whole.jsonl")
    whole.write_text(json.dumps({"audio": "cut.wav", "text": "one"}))
    output = tmp_path / "predictions.jsonl"
    assert evaluate(part, whole, "-m", model, "-o", output, "-q") == 0
    first, second = predictions_of(output)
    assert first["hypothesis"] == second["hypothesis"]


def test_a_prepared_folder_is_evaluated_as_its_manifest_is(model, manifest, tmp_path):
    pytest.importorskip("array_record")
    prepare([str(manifest)], output=tmp_path / "packed", workers=0, quiet=True)
    found = []
    for source in (manifest, tmp_path / "packed"):
        assert evaluate(source, "-m", model, "-o", tmp_path / "predictions.jsonl", "-q") == 0
        rows = predictions_of(tmp_path / "predictions.jsonl")
        found.append([(row["reference"], row["language"], row["hypothesis"]) for row in rows])
    assert found[0] == found[1]


def test_a_limit_of_memory_is_kept(model, manifest, capsys):
    assert evaluate(manifest, "-m", model, "--memory", "1e-9", "--max-shapes", "1") == 0
    assert "not enough memory for batches of 2: going on with 1" in capsys.readouterr().err


def test_nothing_that_can_be_read_ends_with_4_and_has_no_scores(model, tmp_path, capsys):
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"audio": "missing.wav", "text": "one"}\n')
    assert evaluate(empty, "-m", model) == 4
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "missing.wav: no such file" in streams.err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--allow-truncated"], 2, "--allow-truncated"),
        (["--metrics", "mer"], 2, "mer"),
        (["--bootstrap", "-1"], 2, "-1"),
    ],
)
def test_options_that_make_no_sense_are_refused(model, manifest, capsys, options, code, message):
    assert evaluate(manifest, "-m", model, *options) == code
    assert message in capsys.readouterr().err


# ------------------------------------------------------------------ train-tokenizer


def test_a_tokenizer_is_made_of_manifests_and_lines(manifest, tmp_path, capsys):
    lines, target = tmp_path / "more.txt", tmp_path / "words"
    lines.write_text("seven one\n\n")
    command = ["train-tokenizer", manifest, lines, target, "--kind", "word", "--lower"]
    assert main(list(map(str, command))) == 0
    assert (
        capsys.readouterr().out == f"{target}: word, 10 tokens; 5 texts of 2.8 tokens on average\n"
    )
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert {"one", "two", "three,", "one!", "three", "seven"} < set(tokenizer.get_vocab())
    assert tokenizer.decode(tokenizer("Seven two").input_ids) == "seven two </s>"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{out}"], 2, "name manifests first, and last the folder to write"),
        (["{manifest}", "{full}", "--kind", "char"], 2, "it is not empty"),
        (["{manifest}", "{out}", "--kind", "bpe"], 4, "needs one, such as 1000"),
        (["{manifest}", "{out}", "--kind", "syllable"], 2, "syllable"),
        (["{full}/none.tsv", "{out}", "--kind", "char"], 4, "none.tsv"),
    ],
)
def test_train_tokenizer_refuses_in_a_sentence(manifest, tmp_path, capsys, words, code, message):
    places = {"manifest": manifest, "out": tmp_path / "out", "full": manifest.parent}
    assert main(["train-tokenizer", *(word.format(**places) for word in words)]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()
