"""An exported graph is opened as often as it is needed, and never another one in its place."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lora_distill.deployment import engine
from lora_distill.deployment.classifier import Classifier
from tests.deployment.exported import expected_logits, watch_graphs, write_exported

TEXTS = ["tulip", "the oven of butter", "a comet", "hedge hedge hedge hedge"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    monkeypatch.setattr(engine, "BATCH_TOKENS", 1)  # each text is a batch
    return watch_graphs(monkeypatch)


def test_batches_have_a_thread_each_and_all_of_them_where_there_are_fewer(
    asked: list[tuple[int, int]], tmp_path: Path
) -> None:
    loaded = Classifier.load(write_exported(tmp_path / "model"), threads=3)
    np.testing.assert_array_equal(loaded.logits(TEXTS[:3]), expected_logits(TEXTS[:3]))
    assert asked == [(1, 0), *[(1, 1)] * 3]
    asked.clear()
    with ThreadPoolExecutor(4) as pool:
        for logits in pool.map(lambda _: loaded.logits(TEXTS[:2]), range(4)):
            np.testing.assert_array_equal(logits, expected_logits(TEXTS[:2]))
    assert asked == [(3, 0), *[(3, 1)] * 8]


def test_one_thread_needs_one_graph(asked: list[tuple[int, int]], tmp_path: Path) -> None:
    loaded = Classifier.load(write_exported(tmp_path / "model"), threads=1)
    for texts in (TEXTS, TEXTS[:1]):
        np.testing.assert_array_equal(loaded.logits(texts), expected_logits(texts))
    assert asked == [(1, 0), *[(1, 1)] * 5]


@pytest.mark.parametrize("other", ["replaced", "damaged", "gone"])
def test_a_graph_that_is_no_longer_there_is_not_opened(
    other: str, asked: list[tuple[int, int]], tmp_path: Path
) -> None:
    folder = write_exported(tmp_path / "model")
    graph = folder / "onnx" / "model.onnx"
    loaded = Classifier.load(folder, threads=2)
    if other == "replaced":
        shutil.copy(graph, tmp_path / "other")
        (tmp_path / "other").replace(graph)
    elif other == "damaged":
        before = graph.stat()
        graph.write_bytes(b"x" * before.st_size)
        os.utime(graph, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        graph.unlink()
    for _ in range(2):
        np.testing.assert_array_equal(loaded.logits(TEXTS[:1]), expected_logits(TEXTS[:1]))
    assert asked == [(1, 0), *[(1, 1)] * 2]
