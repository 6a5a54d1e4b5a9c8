"""A name becomes a folder, a folder becomes weights, and nothing outside it is touched."""

import json
import os
from pathlib import Path

import flax.serialization
import numpy as np
import pytest
from huggingface_hub import errors

from speech_ed_flax.conversion import hub
from speech_ed_flax.conversion.hub import read_json, read_weights, resolve
from speech_ed_flax.conversion.safetensors import write_safetensors
from speech_ed_flax.conversion.shards import write_sharded
from speech_ed_flax.errors import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the Hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def populate(cache: Path, *names: str) -> Path:
    """Lays out a cached repository as the Hub's client does: links from a snapshot into blobs."""
    repository = cache / "models--someone--model"
    snapshot, blobs = repository / "snapshots" / COMMIT, repository / "blobs"
    for folder in (snapshot, blobs, repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for number, name in enumerate(names):
        write_safetensors(blobs / f"{number:040d}", {name: np.full(3, number, np.float32)})
        (snapshot / name).symlink_to(Path("..") / ".." / "blobs" / f"{number:040d}")
    return snapshot


# Names.


def test_a_folder_is_returned_as_it_is(tmp_path, monkeypatch):
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path), revision="main", local_files_only=True) == tmp_path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "facebook" / "model").mkdir(parents=True)
    assert resolve("facebook/model") == Path("facebook/model")


@pytest.mark.parametrize(
    "name",
    ["./nowhere", "/nowhere/at/all", "~/nowhere", "~nobody/x", "a/b/c", "a\\b", "..", "file"],
)
def test_a_path_that_is_no_folder_is_never_looked_for_on_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "snapshot_download", None)
    (tmp_path / "file").touch()
    if name == "..":
        name = "../nowhere"
    with pytest.raises(CheckpointError, match="it is not a folder"):
        resolve(name)


@pytest.mark.parametrize("local_files_only", [True, False])
def test_a_cached_repository_is_found_without_a_network(cache, local_files_only):
    snapshot = populate(cache, "model.safetensors")
    for revision in (None, "main", COMMIT):
        assert resolve("someone/model", revision, local_files_only) == snapshot
    state, path = read_weights(snapshot)
    assert path == snapshot / "model.safetensors"
    assert state["model.safetensors"].tolist() == [0, 0, 0]


def test_a_repository_that_is_not_cached_is_an_error_without_a_network(cache):
    with pytest.raises(CheckpointError, match=r"^someone/model: it is not complete in the local"):
        resolve("someone/model")


class Response:
    """As much of an HTTP response as the Hub's errors look at."""

    headers: dict[str, str] = {}  # noqa: RUF012 (never changed)
    status_code = 404
    request = None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.GatedRepoError("gated", response=Response()), "accept their terms"),
        (errors.RepositoryNotFoundError("404", response=Response()), "no such repository"),
        (errors.RevisionNotFoundError("404", response=Response()), "no such revision"),
        (errors.LocalEntryNotFoundError("offline"), "out of reach"),
        (ConnectionError("refused\nTraceback"), r"could not be used \(refused\)"),
        (RuntimeError(), r"could not be used \(RuntimeError\)"),
    ],
)
def test_an_error_of_the_hub_becomes_one_sentence(monkeypatch, error, reason):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError, match=f"^someone/model: .*{reason}") as caught:
        resolve("someone/model")
    assert "\n" not in str(caught.value)


def test_what_is_no_repository_name_is_an_error(cache):
    with pytest.raises(CheckpointError, match="neither a folder nor the name of a repository"):
        resolve("some one")


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin", "flax_model.msgpack"], "model.safetensors"),
        (["model-00001-of-00002.safetensors", "pytorch_model.bin"], "model-00001-of-00002.safete"),
        (["pytorch_model.bin", "flax_model.msgpack"], "pytorch_model.bin"),
        (["pytorch_model-00001-of-00002.bin"], "pytorch_model-00001-of-00002.bin"),
        (["flax_model.msgpack", "tf_model.h5"], "flax_model.msgpack"),
    ],
)
def test_weights_are_downloaded_in_one_format_and_from_one_commit(
    tmp_path, monkeypatch, offered, expected
):
    folder, revisions = tmp_path / COMMIT, []
    files = ["config.json", "vocab.txt", "spiece.model", "evil.py", "onnx/config.json", *offered]

    def download(name, *, revision, allow_patterns, ignore_patterns, local_files_only):
        from huggingface_hub.utils import filter_repo_objects

        revisions.append(revision)
        folder.mkdir(exist_ok=True)
        for file in filter_repo_objects(
            files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            (folder / file).touch()
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert resolve("someone/model", revision="v1") == folder
    downloaded = set(os.listdir(folder))
    assert downloaded >= {"config.json", "vocab.txt", "spiece.model"}
    (weights,) = downloaded - {"config.json", "vocab.txt", "spiece.model"}
    assert weights.startswith(expected)
    assert set(revisions[1:]) == {COMMIT}


# Weights.


def test_formats_are_preferred_in_order(tmp_path):
    torch = pytest.importorskip("torch")
    tree = {"a": np.full(2, 3.0)}
    (tmp_path / "flax_model.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    assert read_weights(tmp_path)[1].name == "flax_model.msgpack"
    torch.save({"a": torch.full((2,), 2.0)}, tmp_path / "shard.bin")
    index = {"weight_map": {"a": "shard.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    state, path = read_weights(tmp_path)
    assert (state["a"].tolist(), path.name) == ([2, 2], "pytorch_model.bin.index.json")
    torch.save({"a": torch.full((2,), 1.0)}, tmp_path / "pytorch_model.bin")
    assert read_weights(tmp_path)[1].name == "pytorch_model.bin"
    write_sharded(tmp_path, {"a": np.zeros(2), "b": np.zeros(2)}, 1)
    assert read_weights(tmp_path)[1].name == INDEX
    write_safetensors(tmp_path / "model.safetensors", {"a": np.zeros(2)})
    assert read_weights(tmp_path)[1].name == "model.safetensors"


def test_a_folder_without_weights_is_an_error_that_says_what_was_looked_for(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"no weights; .*model\.safetensors.*msgpack"
    ) as error:
        read_weights(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_dangling_link_is_an_error_and_not_absence(tmp_path):
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: there is no such file"):
        read_weights(tmp_path)


def test_shards_in_the_cache_of_the_hub_are_links_that_work(cache):
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    snapshot = populate(cache, *names)
    (snapshot / INDEX).write_text(json.dumps({"weight_map": {name: name for name in names}}))
    state, path = read_weights(resolve("someone/model"))
    assert path == snapshot / INDEX
    assert state[names[1]].tolist() == [1, 1, 1]


def one_shard(folder: Path, weight_map) -> None:
    write_safetensors(folder / "one.safetensors", {"a": np.zeros(2)})
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def linked_outside(folder: Path) -> None:
    one_shard(folder, {"a": "link.safetensors"})
    outside = folder.parent / "outside.safetensors"
    write_safetensors(outside, {"a": np.zeros(2)})
    (folder / "link.safetensors").symlink_to(outside)


def repeated(folder: Path) -> None:
    one_shard(folder, {"a": "one.safetensors", "b": "two.safetensors"})
    write_safetensors(folder / "two.safetensors", {"a": np.zeros(2), "b": np.zeros(2)})


def shadowed(folder: Path) -> None:
    one_shard(folder, {"a": "one.safetensors", "b": "two.safetensors"})
    (folder / "two.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


BAD_INDICES = {
    "relative path": (
        lambda at: one_shard(at, {"a": "../../etc/passwd"}),
        f"{INDEX}: .*'a'.*plain",
    ),
    "absolute path": (lambda at: one_shard(at, {"a": "/etc/passwd"}), f"{INDEX}: .*'a'.*plain"),
    "folder": (lambda at: one_shard(at, {"a": "sub/one.safetensors"}), f"{INDEX}: .*'a'.*plain"),
    "backslash": (lambda at: one_shard(at, {"a": "..\\one"}), f"{INDEX}: .*'a'.*plain"),
    "drive": (lambda at: one_shard(at, {"a": "C:one"}), f"{INDEX}: .*'a'.*plain"),
    "null byte": (lambda at: one_shard(at, {"a": "one\0"}), f"{INDEX}: .*'a'.*plain"),
    "parent": (lambda at: one_shard(at, {"a": ".."}), f"{INDEX}: .*'a'.*not the name of a file"),
    "nothing": (lambda at: one_shard(at, {"a": ""}), f"{INDEX}: .*'a'.*not the name of a file"),
    "null": (lambda at: one_shard(at, {"a": None}), f"{INDEX}: .*'a'.*not the name of a file"),
    "link outside": (linked_outside, f"{INDEX}: .*'link.safetensors' is a link"),
    "missing shard": (
        lambda at: one_shard(at, {"a": "gone.safetensors"}),
        "gone.safetensors: .*no",
    ),
    "missing tensor": (
        lambda at: one_shard(at, {"a": "one.safetensors", "b": "one.safetensors"}),
        "one.safetensors: tensor 'b': it is missing",
    ),
    "repeated tensor": (repeated, "two.safetensors: tensor 'a': an earlier shard has it"),
    "pointer for a shard": (shadowed, "two.safetensors: .*git lfs pull"),
    "no map": (lambda at: (at / INDEX).write_text("{}"), f"{INDEX}: its weight_map"),
    "empty map": (lambda at: one_shard(at, {}), f"{INDEX}: its weight_map"),
    "list for a map": (lambda at: one_shard(at, ["a"]), f"{INDEX}: its weight_map"),
    "not json": (lambda at: (at / INDEX).write_text('{"weight_map": {'), f"{INDEX}: it is damaged"),
    "pointer": (
        lambda at: (at / INDEX).write_text("version https://git-lfs.github.com/spec/v1\n"),
        f"{INDEX}: .*git lfs pull",
    ),
}


@pytest.mark.parametrize("case", BAD_INDICES)
def test_a_bad_index_is_refused_by_name_with_a_reason(tmp_path, case):
    write, reason = BAD_INDICES[case]
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder)
    with pytest.raises(CheckpointError, match=reason):
        read_weights(folder)


# JSON.


def test_a_json_object_is_read(tmp_path):
    (tmp_path / "config.json").write_text('{"a": [1, "ä"]}', encoding="utf-8")
    assert read_json(tmp_path / "config.json") == {"a": [1, "ä"]}


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", "it is empty"),
        (b"[1]", "it holds a list"),
        (b"{", "it is damaged"),
        (b'{"a": "\xff"}', "it is damaged"),
        (b'{"a":' * 100_000, "it is damaged"),
        (b'{"a": ' + b"9" * 5000 + b"}", "it is damaged"),
        (b"<!DOCTYPE html>", "HTML page"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "more than the 1048576 allowed"),
    ],
)
def test_bad_json_is_refused_by_name_with_a_reason(tmp_path, contents, reason):
    (tmp_path / "config.json").write_bytes(contents)
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{reason}"):
        read_json(tmp_path / "config.json")


def test_a_missing_json_file_and_a_pipe_are_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json: there is no such file"):
        read_json(tmp_path / "config.json")
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json: it is not a regular file"):
        read_json(tmp_path / "config.json")
