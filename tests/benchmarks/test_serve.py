"""The benchmark of serve, on almost nothing."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from benchmarks import serve
from benchmarks.clients import LOST, Clients, Connection, is_of
from lora_distill.serving.app import create_app
from lora_distill.serving.settings import ServeSettings
from tests.deployment.exported import write_exported
from tests.serving.fake import LABELS, POISON, FakeClassifier, logits_of, served


def expected_of(texts: list[str]) -> list[dict[str, float]]:
    rows = FakeClassifier().probabilities(logits_of(texts))
    return [dict(zip(LABELS, map(float, row), strict=True)) for row in rows]


def test_clients_count_what_they_are_answered() -> None:
    texts = ["a", "b", POISON, "c"]
    expected = expected_of(texts)
    expected[3] = expected[0]
    settings = ServeSettings()
    with served(create_app(FakeClassifier(), settings), settings) as url:
        host, port = url.removeprefix("http://").split(":")
        waiting, pressing = (Clients(host, int(port), texts, expected) for _ in range(2))
        asyncio.run(waiting.in_turn(3, 12))
        asyncio.run(pressing.at_rate(100, 0.2))
    for clients, count in ((waiting, 12), (pressing, 20)):
        assert clients.statuses == {"200": count * 3 // 4, "500": count // 4}
        assert clients.strange == count // 4
        assert len(clients.seconds) == count * 3 // 4
        assert min(clients.seconds) > 0
    asyncio.run(waiting.in_turn(2, 3))  # nobody listens any more
    assert waiting.statuses[LOST] == 3


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_distill.serving.connection.IDLE_SECONDS", 1)
    settings = ServeSettings()

    async def ask(connection: Connection) -> list[int]:
        first, _ = await connection.ask("a")
        await asyncio.sleep(2)
        return [first, (await connection.ask("b"))[0]]

    with served(create_app(FakeClassifier(), settings), settings) as url:
        host, port = url.removeprefix("http://").split(":")
        assert asyncio.run(ask(Connection(host, int(port)))) == [200, 200]


def test_sure_answers_are_told_apart_by_their_small_probabilities() -> None:
    expected = {"up": 1 - 1e-6, "down": 1e-6}

    def answer(**probabilities: float) -> dict[str, object]:
        each = [{"label": label, "probability": value} for label, value in probabilities.items()]
        return {"results": [{"probabilities": each}]}

    assert is_of(answer(up=1 - 1e-6, down=1.001e-6), expected)
    assert not is_of(answer(up=1 - 2e-6, down=2e-6), expected)
    assert not is_of(answer(up=1.0), expected)


def test_it_is_told_how_many_exchanged_answers_would_be_found(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,text\n0,tulip\n1,the tulip\n2,oven oven\n")
    share = serve.write_expected(write_exported(tmp_path / "model"), tmp_path / "rows.csv", tmp_path / "texts.json")
    assert share == pytest.approx(2 / 3)
    written = json.loads((tmp_path / "texts.json").read_text())
    assert written["texts"] == ["tulip", "the tulip", "oven oven"]
    assert max(written["expected"][2], key=written["expected"][2].__getitem__) == "kitchen"


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such folder"), serve.server(tmp_path / "none", tmp_path / "log"):
        pass


@pytest.mark.benchmark
def test_the_command(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_exported(tmp_path / "model")
    out = tmp_path / "serve.json"
    arguments = ["--model", model, "--data", rows, "--texts", 40, "--rounds", 1, "--minutes", 0.05, "--out", out]
    monkeypatch.setattr(sys, "argv", ["serve", *map(str, arguments), "--work", str(tmp_path / "work")])
    serve.main()
    found = json.loads(out.read_text())
    assert found["rounds"][0]["served"]["statuses"] == {"200": 40}
    assert [each["strange"] for each in found["loads"].values()] == [0, 0]
    assert all(size > 0 for each in found["loads"].values() for _, size in each["memory"])
