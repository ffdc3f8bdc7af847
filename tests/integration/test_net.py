"""The harness itself: traffic is exact, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .net import Namespace, Process, Star, reach, remove_leftovers, star, tcp, udp, wait_for

pytestmark = pytest.mark.integration
NEEDS = ()


def _received(namespace: Namespace, device: str) -> int:
    path = f"/sys/class/net/{device}/statistics/rx_bytes"
    return int(namespace.run(["cat", path]))


def _names() -> str:
    return subprocess.run(
        ["ip", "netns", "list"], capture_output=True, text=True, check=True
    ).stdout


def test_datagrams_arrive_to_the_byte(tmp_path: Path) -> None:
    """Exactly the datagrams asked for pass the link: Ethernet 14 and IP and UDP headers beside."""
    with star(2, tmp_path) as net:
        first, second = net.clients
        for client, address, header in (
            (first, first.gateway4, 28),
            (second, second.gateway6, 48),
        ):
            reach(client, net.server, address)
            _quiet(net, client)
            before = _received(net.server, client.far_device)
            udp(client, net.server, address, count=100, size=333)
            grown = _received(net.server, client.far_device) - before
            # Neighbour discovery may slip in, in frames of at most 86 bytes.
            assert 0 <= grown - 100 * (333 + header + 14) <= 5 * 86


def _quiet(net: Star, client: Namespace) -> None:
    """Keep the kernel from asking for routers meanwhile."""
    client.run(["sysctl", "-qw", "net.ipv6.conf.u0.router_solicitations=0"])


def test_streams_carry_both_directions(tmp_path: Path) -> None:
    with star(1, tmp_path) as net:
        (client,) = net.clients
        before = _received(net.server, client.far_device)
        tcp(client, net.server, client.gateway4, up=1_000_000, down=200_000)
        assert _received(net.server, client.far_device) - before > 1_000_000


def test_a_cut_link_carries_nothing_until_it_is_mended(tmp_path: Path) -> None:
    with star(1, tmp_path) as net:
        (client,) = net.clients
        client.cut()
        with (
            client.open_socket(client.gateway4, socket.SOCK_DGRAM) as sender,
            pytest.raises(OSError, match="unreachable"),
        ):
            sender.connect((client.gateway4, 9))
        client.mend()
        reach(client, net.server, client.gateway4)
        reach(client, net.server, client.gateway6)


def test_clients_do_not_see_each_other(tmp_path: Path) -> None:
    with star(2, tmp_path) as net:
        first, second = net.clients
        with (
            first.open_socket(second.address4, socket.SOCK_DGRAM) as sender,
            pytest.raises(OSError, match="unreachable"),
        ):
            sender.connect((second.address4, 9))


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    names: list[str] = []

    def fail() -> None:
        with star(1, tmp_path) as net:
            names.extend([net.server.name, net.clients[0].name])
            processes.append(net.server.popen(["sleep", 1000]))
            raise ZeroDivisionError

    processes: list[Process] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert not any(name in _names() for name in names)
    assert not processes[0].alive
    assert not Path("/proc", str(processes[0].pid)).exists()


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from integration.net import star\n"
        f"with star(1, pathlib.Path({str(tmp_path)!r})) as net:\n"
        "    print(net.server.name, net.server.popen(['sleep', 1000]).pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": tests},
    ) as run:
        assert run.stdout is not None
        name, pid = run.stdout.readline().split()
        remove_leftovers()
        assert name in _names()  # it lives
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert name in _names()
        remove_leftovers()
    assert name not in _names()

    def gone() -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        return True

    wait_for(gone, "the end of a process that a killed run had left")


def test_a_call_stays_in_its_namespace(tmp_path: Path) -> None:
    here = os.readlink("/proc/self/ns/net")
    with star(1, tmp_path) as net:
        inside = net.server.call(os.readlink, "/proc/thread-self/ns/net")
        assert inside != here
        assert net.server.python("import os; print(os.readlink('/proc/self/ns/net'))") == (
            f"{inside}\n"
        )
        with pytest.raises(ZeroDivisionError):
            net.server.call(lambda: 1 // 0)
    assert os.readlink("/proc/thread-self/ns/net") == here


def test_failures_say_what_was_awaited(tmp_path: Path) -> None:
    with star(0, tmp_path) as net:
        process = net.server.popen(["sh", "-c", "echo sorry; exit 3"])
        with pytest.raises(AssertionError, match=r"ended before it said 'ready'(.|\n)*sorry"):
            process.wait_for_text("ready")
        assert process.exit_code == 3
        with pytest.raises(AssertionError, match="ended with 2:\nno"):
            net.server.run(["sh", "-c", "echo no; exit 2"])
    with pytest.raises(AssertionError, match=r"not after 0.1 s: rain"):
        wait_for(lambda: False, "rain", seconds=0.1)
