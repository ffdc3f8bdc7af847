"""The inbox: batches by name, durable, and nothing that is on its way."""

from __future__ import annotations

from pathlib import Path

import pytest
from batches import FakeAgent, dropped
from support import START, TinyHome, usage

from aggregator.stores import atomic
from aggregator.stores.inbox import Inbox


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox")


def test_a_batch_is_added_once(inbox: Inbox) -> None:
    assert inbox.add("a", b"first")
    assert not inbox.add("a", b"second")
    assert inbox.add("b", b"third")
    assert [path.read_bytes() for path in inbox.paths()] == [b"first", b"third"]


def test_a_write_that_fails_leaves_nothing(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_words: object) -> None:
        raise OSError(28, "No space left on device")

    inbox.add("a", b"first")
    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        inbox.add("b", b"second")
    assert [path.name for path in inbox.folder.iterdir()] == ["a.batch"]


def test_batches_may_lie_in_folders_and_what_is_on_its_way_is_none(inbox: Inbox) -> None:
    on_its_way = ("c.batch.part", ".d.batch.x8Fk2", ".door.lock", ".heard/us-nyc-01")
    for name in ("b.batch", "server-1/a.batch", *on_its_way):
        path = inbox.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    names = [path.relative_to(inbox.folder).as_posix() for path in inbox.paths()]
    assert names == ["b.batch", "server-1/a.batch"]
    assert inbox.others() == 0
    (inbox.folder / "records.ndjson").write_bytes(b"x")
    assert inbox.others() == 1


def test_headers_are_those_of_batches(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home")
    agent = FakeAgent.make()
    with home.open(START) as house:
        content = agent.batch([usage()], house.month_keys_for_writing("2026-10"))
        dropped(home.root, content, "good")
        dropped(home.root, b"nonsense", "bad")
        dropped(home.root, content[:30], "short")
        ((header, path),) = house.inbox.headers()
        assert (header.agent, header.month, path.name) == (agent.id, "2026-10", "good.batch")


def test_what_is_removed_is_gone_and_may_be_gone_already(inbox: Inbox) -> None:
    inbox.add("a", b"first")
    inbox.remove([*inbox.paths(), inbox.folder / "gone.batch", inbox.folder / "no" / "b.batch"])
    assert inbox.paths() == []
