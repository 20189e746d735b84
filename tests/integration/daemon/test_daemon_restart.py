"""A daemon that ends or is killed loses nothing: containers, exit codes, log lines; and leaks nothing."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable

from support.engine import Daemon
from support.machine import Snapshot, alive, eventually

Names = Callable[[], str]
KILLS = 8


def test_sigterm_leaves_containers_running_and_the_next_adopts_them(own: Daemon) -> None:
    own.docker("run", "-d", "--name", "lives", own.busybox, "sleep", "100")
    own.docker("run", "-d", "--name", "ends", own.busybox, "sh", "-c", "sleep 0.7; echo bye; exit 9")
    pid = own.api.pid("lives")
    assert own.stop() == 0
    assert alive(pid)
    time.sleep(1)
    own.start()
    assert own.api.pid("lives") == pid
    assert own.docker("exec", "lives", "echo", "ahoy").out == "ahoy\n"
    state = own.api.inspect("ends")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 9)
    assert own.docker("logs", "ends").out == "bye\n"
    own.docker("stop", "-t", "0", "lives")
    assert not alive(pid)


def test_an_adopted_container_is_as_good_as_any(own: Daemon) -> None:
    own.docker("run", "-d", "-i", "--name", "cat", own.busybox, "cat")
    own.docker("run", "-d", "--rm", "--name", "gone", own.busybox, "sleep", "0.8")
    own.restart()
    with own.docker.start("attach", "cat") as client:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write(b"echo\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"echo\n"
        client.kill()
        client.communicate()
    own.docker("kill", "cat")
    eventually(lambda: own.api.inspect("cat")["State"]["ExitCode"] == 137)
    eventually(lambda: own.api("GET", "/containers/gone/json").status == 404, what="--rm after a restart")


def test_an_attached_client_outlives_the_daemon(own: Daemon) -> None:
    """Spoken by hand: the docker client itself gives up when the answer to its wait is lost."""
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.1; done"
    own.docker("create", "--name", "speaks", own.busybox, "sh", "-c", script)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(own.socket))
        client.sendall(
            b"POST /v1.51/containers/speaks/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        )
        stream = client.makefile("rb")
        while stream.readline() != b"\r\n":
            pass
        own.docker("start", "speaks")
        assert stream.read(8 + 2).endswith(b"1\n")
        own.kill9()
        rest = stream.read()
    assert rest.endswith(b"10\n")
    own.start()
    assert own.docker("logs", "speaks").out == "".join(f"{n}\n" for n in range(1, 11))


def test_kill_9_in_a_loop_loses_nothing(own: Daemon) -> None:
    """Containers start, log and exit while the daemon is killed again and again at no particular moment."""
    before = Snapshot.take(str(own.base), str(own.base))
    stop = threading.Event()
    known: dict[str, int] = {}  # what the client was told has been created: name -> exit code to come

    def keep_starting() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name, code = f"storm-{number}", number % 7
            script = f"for i in 1 2 3 4 5; do echo line $i; sleep 0.02; done; exit {code}"
            done = own.docker("run", "-d", "--name", name, own.busybox, "sh", "-c", script, code=None)
            if done.code == 0:
                known[name] = code

    thread = threading.Thread(target=keep_starting)
    thread.start()
    dice = random.Random(7)
    kills, slowness, deadline = 0, 1.0, time.monotonic() + 80
    try:
        while kills < KILLS or (len(known) < KILLS and time.monotonic() < deadline):
            had = len(known)
            time.sleep(dice.uniform(0.1, 0.6) * slowness)
            own.kill9()
            own.start()
            kills += 1
            slowness *= 1.5 if len(known) == had else 1  # a busy machine starts nothing in half a second
    finally:
        stop.set()
        thread.join()
    assert len(known) >= KILLS, "hardly anything was started between the kills"
    for name, code in known.items():
        eventually(lambda name=name: own.api.inspect(name)["State"]["Status"] == "exited", what=name)
        assert own.api.inspect(name)["State"]["ExitCode"] == code, name
        assert own.docker("logs", name).out == "".join(f"line {n}\n" for n in range(1, 6)), name
    for container in own.api.containers():
        own.api.remove(container["Id"])
    eventually(lambda: leaked(own, before) == [], what=str(leaked(own, before)))


def leaked(own: Daemon, before: Snapshot) -> list[str]:
    """What is there beyond `before`, the restarted daemon's own processes left out."""
    now = Snapshot.take(str(own.base), str(own.base))
    now.processes = {text for text in now.processes if "monitor" in text}
    return now.leaked_since(before)


def test_kill_9_between_create_and_start_keeps_what_was_created(own: Daemon) -> None:
    created = own.docker("create", "--name", "later", own.busybox, "echo", "still here").out.strip()
    own.kill9()
    own.start()
    assert own.api.inspect("later")["Id"] == created
    assert own.docker("start", "-a", "later").out == "still here\n"


def test_shutdown_containers(make_daemon: Callable[..., Daemon]) -> None:
    own = make_daemon("--shutdown-containers").start()
    own.docker("run", "-d", "--name", "ends", "--stop-timeout", "1", own.busybox, "sleep", "100")
    pid = own.api.pid("ends")
    assert own.stop() == 0
    assert not alive(pid)
    own.start()
    assert own.api.inspect("ends")["State"]["Status"] == "exited"
    own.end()
