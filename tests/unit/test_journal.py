import json

import pytest

from speech_ed_flax.training.journal import Journal, JsonLines, TensorBoard


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_writer_gets_what_is_written(tmp_path):
    first, second = JsonLines(tmp_path / "a.jsonl"), JsonLines(tmp_path / "b.jsonl")
    journal = Journal(first, second)
    journal.numbers(3, {"loss": 0.5})
    journal.text(3, "dev", "not a number")
    journal.close()
    assert lines(tmp_path / "a.jsonl") == lines(tmp_path / "b.jsonl") == [{"step": 3, "loss": 0.5}]


def test_a_resumed_journal_forgets_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 2, "dev": 1}\n{"step": 1, "cu')
    resumed = JsonLines(path, step=2)
    resumed.numbers(3, {"name": "é"})
    resumed.close()
    assert lines(path) == [
        {"step": 1},
        {"step": 2},
        {"step": 2, "dev": 1},
        {"step": 3, "name": "é"},
    ]


def test_tensorboard_has_numbers_and_texts(tmp_path):
    pytest.importorskip("tensorboardX")
    board = TensorBoard(tmp_path)
    board.numbers(1, {"train/loss": 2.0})
    board.text(1, "dev", "    REF: a")
    board.close()
    (written,) = tmp_path.glob("events.out.tfevents.*")
    content = written.read_bytes()
    assert b"train/loss" in content
    assert b"REF: a" in content
