"""What is wrong with shards is said in one sentence, and the rest of the data is trained on."""

from __future__ import annotations

import functools
import http.server
import json
import logging
import re
import resource
import shutil
import threading
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from fwi_lightning.data import ShardsDataModule
from fwi_lightning.data.shards.store import ShardStore
from fwi_lightning.errors import UserError
from fwi_lightning.models import InputTransform
from tests.data.test_shards import indices, module, write


@pytest.fixture(scope="module")
def made(kaggle, survey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write(kaggle, survey, folder)
    return folder


@pytest.fixture
def shards(made, tmp_path):
    """Shards of five folds; the tests train on all but fold 1."""
    return shutil.copytree(made, tmp_path / "shards")


@pytest.fixture(autouse=True)
def heard(caplog):
    caplog.set_level(logging.WARNING, "fwi_lightning")
    return caplog


def numbers(folder, name):
    index = json.loads((folder / "index.json").read_text())
    return next(set(shard["numbers"]) for shard in index["shards"] if shard["name"] == name)


def assert_left_out(data, folder, name, heard, why, epoch=0):
    """The epoch has its length, all samples of the whole shards, and one warning for the broken one."""
    seen = indices(data, epoch)
    lost = numbers(folder, name)
    assert len(seen) == 160
    assert set(seen) >= set(data.train_dataset.rows.tolist()) - lost
    (said,) = [record.getMessage() for record in heard.records if record.getMessage().startswith("warning")]
    assert re.search(rf"{name} cannot be read \({why}.*others come in the place of its {len(lost)} samples", said)


def test_a_truncated_shard(shards, survey, heard):
    with (shards / "fold2/00001.tar").open("r+b") as file:
        file.truncate(20_000)
    data = module(shards, survey)
    assert len([sample["gathers"] for sample in data.look]) == 160
    assert_left_out(data, shards, "fold2/00001.tar", heard, "it is cut short: 20,000 bytes instead of")


def test_a_shard_in_another_order(shards, survey, heard):
    path, stride = shards / "fold0/00000.tar", json.loads((shards / "index.json").read_text())["sample_bytes"]
    content = path.read_bytes()
    path.write_bytes(content[stride : 2 * stride] + content[:stride] + content[2 * stride :])
    assert_left_out(module(shards, survey), shards, "fold0/00000.tar", heard, "it has '.*npy' in place of '.*npy'")


def test_a_shard_of_other_arrays(shards, survey, heard):
    path = shards / "fold0/00000.tar"
    path.write_bytes(path.read_bytes().replace(b"'shape': (2, 8, 6)", b"'shape': (2, 6, 8)"))
    assert_left_out(module(shards, survey), shards, "fold0/00000.tar", heard, "it has another type or shape")


def test_values_that_are_not_finite(shards, survey, heard):
    path = shards / "fold0/00000.tar"
    content = bytearray(path.read_bytes())
    content[640:644] = b"\x00\x00\xc0\x7f"
    path.write_bytes(content)
    assert_left_out(module(shards, survey), shards, "fold0/00000.tar", heard, "it holds values that are not finite")


def test_a_shard_that_disappears_during_an_epoch(shards, survey, heard):
    data = module(shards, survey, attempts=3)
    assert len(indices(data)) == 160
    data.train_dataset.store._start()  # as a worker that has not opened it yet
    (shards / "fold4/00003.tar").unlink()
    assert_left_out(data, shards, "fold4/00003.tar", heard, "No such file or directory, in 3 attempts", epoch=1)
    retried = [record.getMessage() for record in heard.records if "attempt" in record.getMessage()]
    assert [re.search(r"attempt (\d) of 3", line)[1] for line in retried[:2]] == ["1", "2"]
    assert data.train_dataset.store.retries == 2


def test_what_comes_instead_is_the_same_again(shards, survey):
    (shards / "fold4/00003.tar").unlink()
    first = indices(module(shards, survey, shuffle_mb=0.4), 5)
    assert first == indices(module(shards, survey, shuffle_mb=0.4), 5)


def test_a_failure_that_passes_is_tried_again_after_a_pause(shards, survey, monkeypatch, heard):
    data = module(shards, survey, wait=0.5)
    pauses, read, store = [], ShardStore._read, data.train_dataset.store
    monkeypatch.setattr("fwi_lightning.data.shards.store.time.sleep", pauses.append)
    left = [3]

    def failing(self, *arguments):
        if left[0]:
            left[0] -= 1
            raise OSError(5, "Input/output error")
        return read(self, *arguments)

    monkeypatch.setattr(ShardStore, "_read", failing)
    assert sorted(indices(data)) == sorted(data.train_dataset.rows)
    assert pauses == [0.5, 1.0, 2.0]
    assert store.retries == 3
    assert "Input/output error; attempt 3 of 4, the next in 2 s (retry number 3 of" in heard.records[2].getMessage()


def test_all_shards_broken(shards, survey):
    data = module(shards, survey)
    for path in shards.rglob("*.tar"):
        path.unlink()
    with pytest.raises(UserError, match=r"no shard of .* can be read; the last: .*No such file"):
        indices(data)


def test_a_validation_shard_is_missed_before_training(shards, survey):
    (shards / "fold1/00002.tar").unlink()
    with pytest.raises(UserError, match=r"fold1/00002\.tar cannot be read \(No such file.*Fold 1 validates on it"):
        module(shards, survey)


class TestIndex:
    def test_none(self, survey, tmp_path):
        with pytest.raises(
            UserError, match=r"index\.json cannot be read \(No such file or directory\): set data\.root"
        ):
            module(tmp_path, survey)

    @pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"format": "other"}'])
    def test_something_else(self, survey, tmp_path, text):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(UserError, match=r"is no index of shards: set data\.root to a folder that"):
            module(tmp_path, survey)

    def test_another_version(self, shards, survey):
        change(shards, version=7)
        with pytest.raises(UserError, match="is an index of version 7, this program reads version 1"):
            module(shards, survey)

    @pytest.mark.parametrize("name", ["../fold0/00000.tar", "/etc/passwd"])
    def test_names_that_lead_elsewhere(self, shards, survey, name):
        index = json.loads((shards / "index.json").read_text())
        change(shards, shards=[index["shards"][0] | {"name": name}, *index["shards"][1:]])
        with pytest.raises(UserError, match="is a damaged index of shards"):
            module(shards, survey)

    def test_another_survey(self, shards, survey):
        with pytest.raises(UserError, match=r"holds shards of a survey with frequency=15\.0, not 20\.0: set physics"):
            module(shards, replace(survey, frequency=20.0))

    def test_other_folds(self, shards, survey):
        with pytest.raises(UserError, match="holds shards of folds=5, this run has folds=4: set folds=5"):
            module(shards, survey, folds=4)

    def test_no_illumination(self, shards, survey):
        data = ShardsDataModule(str(shards), survey=survey)
        data.needs_illumination = True
        with pytest.raises(UserError, match="holds shards without illumination, which this loss needs"):
            data.setup()


def change(folder, **values):
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; fails as often as told for paths with a word, by an error or by half a file."""

    failures: ClassVar[dict[str, list[str]]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        for word, left in self.failures.items():
            if word in self.path and left:
                if left.pop(0) == "error":
                    self.send_error(503)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", "50000")
                    self.end_headers()
                    self.wfile.write(bytes(1000))
                return
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(shards):
    Handler.failures, Handler.asked = {}, []
    handler = functools.partial(Handler, directory=str(shards))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class TestUrl:
    def data(self, server, survey, tmp_path, **changes):
        settings = {"cache": str(tmp_path / "cache"), "shuffle_mb": 0.4} | changes
        return module(server, survey, **settings)

    def test_the_batches_are_those_of_the_folder(self, server, shards, survey, tmp_path):
        local = module(shards, survey, shuffle_mb=0.4)
        for root in (server, f"{server}/", f"{server}/index.json"):
            data = self.data(root, survey, tmp_path)
            assert indices(data, 1) == indices(local, 1)
        one, other = next(iter(data.val_dataloader())), next(iter(local.val_dataloader()))
        assert all(torch.equal(one[name], other[name]) for name in one)
        fetched = [path for path in Handler.asked if path.endswith(".tar")]
        assert len(fetched) == len(set(fetched))  # each once, and kept

    def test_only_a_window_is_fetched_before_training(self, server, survey, tmp_path):
        data = self.data(server, survey, tmp_path, shuffle_mb=0.07)
        data.training_examples(6)
        data.mean_squares(InputTransform(survey))
        next(iter(data.train_dataloader()))
        assert data.windows.width == 2
        assert len([path for path in Handler.asked if path.endswith(".tar")]) <= 2 * 2  # and the next one

    def test_failures_are_retried(self, server, shards, survey, tmp_path, heard):
        Handler.failures = {"fold2/00001": ["error", "half", "half"], "index.json": ["error"]}
        data = self.data(server, survey, tmp_path)
        assert sorted(indices(data)) == sorted(data.train_dataset.rows)
        assert not Handler.failures["fold2/00001"]

    def test_a_damaged_shard_is_left_out(self, server, shards, survey, tmp_path, heard):
        path = shards / "fold2/00001.tar"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        data = self.data(server, survey, tmp_path)
        assert_left_out(data, shards, "fold2/00001.tar", heard, "its checksum is not that of the index, in 4 attempts")

    def test_a_shard_that_is_not_there(self, server, shards, survey, tmp_path, heard):
        (shards / "fold2/00001.tar").unlink()
        data = self.data(server, survey, tmp_path)
        assert_left_out(data, shards, "fold2/00001.tar", heard, "the server answers 404 File not found, in 4")

    def test_the_cache_keeps_to_its_size(self, server, shards, survey, tmp_path):
        size = max(path.stat().st_size for path in shards.rglob("*.tar"))
        data = self.data(server, survey, tmp_path, cache_gb=8.5 * size / 1e9, shuffle_mb=3.5 * size / 1e6)
        assert sorted(indices(data)) == sorted(data.train_dataset.rows)
        assert 4 <= len(list((tmp_path / "cache").glob("*.tar"))) <= 8

    def test_a_cache_that_is_too_small(self, server, survey, tmp_path):
        with pytest.raises(UserError, match=r"cache_gb=1e-05 does not hold two windows of 0\.\d+ MB"):
            self.data(server, survey, tmp_path, cache_gb=1e-5)

    def test_a_cache_that_cannot_be_written(self, server, survey, tmp_path):
        (tmp_path / "cache").write_text("")
        with pytest.raises(UserError, match=r"cache cannot be written \(.*\): set data\.cache to a folder"):
            indices(self.data(server, survey, tmp_path))

    def test_a_full_disk_is_one_sentence_and_leaves_no_half_shard(self, server, survey, tmp_path):
        data = self.data(server, survey, tmp_path)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, before[1]))  # as a full disk: a write fails half-way
        try:
            with pytest.raises(UserError, match=r"cache cannot be written \(File too large\): .* data\.cache_gb to"):
                indices(data)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sizes = {shard.sha256: shard.size for shard in data.index.shards}
        assert all(path.stat().st_size == sizes[path.stem] for path in (tmp_path / "cache").glob("*.tar"))
        assert sorted(indices(data)) == sorted(data.train_dataset.rows)  # there is room again

    def test_no_server(self, survey):
        with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/index\.json cannot be read \(no answer: .*refused"):
            module("http://127.0.0.1:9", survey, attempts=2)
