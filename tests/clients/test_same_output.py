# ruff: noqa: E501 (command lines are whole)
"""What docker's client and ours print of the same engine: byte for byte, with the same exit code.

Tables, `--format` with templates, filters, and what is said of mistakes. Only the programs' own names differ.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from support.cli import Cli, docker_release
from support.engine import Engine

pytestmark = pytest.mark.skipif(
    docker_release() < (28,), reason="compared with docker's client from release 28 on"
)

TABLES = r"""
ps
ps -a --no-trunc
ps -aq
ps -aq --no-trunc
ps -as
ps -l
ps -n 2
ps -a --filter status=exited
ps -a --filter label=a=b
ps -a --filter name=same-web --format "{{.Ports}}"
ps --filter foo=bar
ps --filter foo
ps -a --format json
ps -a --format table
ps -a --format raw
ps -a --filter ""
ps -q --format "{{.Names}}"
ps -q --format json
ps -q --format raw
ps -a --format pretty
ps -a --format "table {{.Label \"com.x-y\"}}\t{{.Names}} {{.Platform}}\t{{.LocalVolumes}}\t{{.Mounts}}\t{{.Size}}"
ps --foo
ps extra
container ls
images
images -a --no-trunc
images -q
images --digests
images --format raw
images --filter dangling=true
images --filter foo=bar
images busybox
images nope
images --tree
images --tree -a
images --tree nope
images --tree -q
images --tree --digests
volume ls
volume ls -q
volume ls --format json
volume ls --format raw
volume ls --format "table {{.Name}}\t{{.Driver}}\t{{.Links}}\t{{.Size}}\t{{.Label \"v\"}}"
network ls
network ls --no-trunc
network ls --format json
network ls --format raw
system df
system df -v
system df --format json
system df --format raw
system df -v --format json
system df -v --format raw
system df -v --format "{{range .Containers}}{{.Names}} {{.Label \"a\"}} {{end}}{{len .BuildCache}}"
system df -v --format "{{.Foo}}"
history busybox
history --no-trunc same:1
history -q same:1
history -H=false same:1
history --format json same:1
history nope
port same-web
port same-web 8080
port same-web 53/udp
port same-web foo
port same-idle
top same-web
top same-web -o pid,cmd
top same-idle
diff same-other
diff same-idle
diff nope
logs nope
inspect same-web
inspect same-web nope
inspect nope
inspect -s busybox
inspect same-volume bridge
inspect --type foo same-web
inspect --type node x
inspect --type plugin x
inspect -f "{{.Foo}}" same-web nope same-idle
inspect -f "{{.Name}}" same-web nope same-idle
inspect --type image same-web
image inspect busybox nope
volume inspect same-volume
volume update same-volume
volume ls --cluster
volume ls --cluster -q
volume inspect -f "{{.Foo}}" same-other
network create bridge
network create --subnet 300.0.0.0/8 x
image save -o /nonexistent/x busybox
image foo
image --foo
volume foo
network foo
trust key foo
--log-level foo ps
-H tcp://localhost:1 ps
network create --subnet foo --gateway 1.2.3.4 x
network create --subnet foo --subnet 10.0.0.0/8 x
run -v /x::/y busybox
ps --format "table {{.Names}} {{.Foo}}"
rename same-web same-other
rename nope x
attach same-idle
attach same-paused
run --expose foo busybox
run --expose 1-70000 busybox
run -v :/x busybox
volume update --availability pause nope
volume update
network inspect bridge
stats --no-stream --format "{{.Name}} {{.ID}}" same-web
stats --no-stream same-idle
stats --no-stream nope
wait same-failed
context ls
version -f "{{json .Server}}"
version -f "{{.Server.APIVersion}} {{.Server.Os}} {{.Server.BuildTime}}"
version -f "{{.Foo}}"
info -f "{{.CPUCfsPeriod}} {{.HTTPProxy}} {{.Swarm}} {{.Plugins}} {{.RuncCommit}} {{json .RegistryConfig}}"
info -f "{{.Foo}}"
"""

TEMPLATES = r"""
ps -a --format "{{.Names | upper}} {{len .Names}} {{printf \"%-20s|%5s|%q\" .Names .State .Image}}"
ps -a --format "{{if eq .State \"running\"}}R{{else if eq .State \"paused\"}}P{{else}}-{{end}} {{.Names}}"
ps -a --format "{{range split .Names \",\"}}<{{.}}>{{end}}{{$n := .Names}}{{$n}}"
ps -a --format "{{with .Labels}} [{{.}}]{{else}} none{{end}}{{- /* c */ -}}  {{json .Names}}{{println .ID}}"
ps -a --format "{{join (split .Command \" \") \"_\"}} {{title .Names}}{{pad .Names 1 2}}|{{truncate .ID 3}}"
ps -a --format "{{define \"T\"}}[{{.}}]{{end}}{{template \"T\" .Names}}{{index (split .Names \"-\") 0}}"
ps -a --format "{{.Label}}"
ps -a --format "{{.Foo}}"
ps -a --format "{{template \"x\"}}"
ps -a --format "{{if}}"
ps -a --format "{{end}}"
ps -a --format "{{.Names"
ps -a --format "{{ .Names | nosuch }}"
ps -a --format "{{$y}}"
ps -a --format "{{\"abc"
ps -a --format "{{if true}}x"
ps -a --format "{{.Names.Foo}}"
ps -a --format "{{index .Names 99}}"
ps -a --format "{{lt \"a\" 1}}"
ps -a --format "{{.ID .Names}}"
ps -a --format "{{split .Names}}"
ps -a --format "{{1 | 2}}"
ps -a --format "{{break}}"
ps -a --format "{{(.Names}}"
ps -a --format "{{@}}"
ps -a --format "{{if .ID}}a{{else}}b{{else}}c{{end}}"
ps -a --format "table {{upper .Names}}\t{{json .Image}}\t{{len .ID}}"
ps -a --format "table {{range split .Names \",\"}}{{.}}{{end}}"
ps -a --format "TABLE {{.Names}}"
ps -a --format "{{join .Labels \",\"}}"
inspect -f "{{index .Config.Env 0}}" same-web
inspect -f "{{.HostConfig.CpuShares}} {{.HostConfig.CPUShares}}" same-web
images --format "{{.Foo}}"
volume ls --format "{{.Foo}}"
network ls --format "{{.Label \"x\"}}"
history --format "{{.Foo}}" busybox
system df --format "{{foo}}"
context ls --format "{{.Foo}}"
version -f "{{foo}}"
version -f "{{.Server.Foo}}"
info -f "{{foo}}"
events --since 1h --until 1s --filter container=same-failed --format "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"
events --since 1h --until 1s --filter container=same-failed --format json
events --since 1h --until 1s --filter container=same-failed --format "{{.}}"
events --since 1h --until 1s --filter container=same-failed --format "{{.Foo}}"
events --since 1h --until 1s --filter container=same-failed
inspect -f "{{json .}}" same-web
inspect -f "{{json .}}" busybox
inspect -f "{{json .}}" bridge
inspect -f "{{json .}}" same-volume
inspect -f "{{.IPAM}} {{.Created}} {{.Containers}} {{.Options}}" bridge
inspect -f "{{.Config.ExposedPorts}} {{.HostConfig.PortBindings}} {{.NetworkSettings.Ports}} {{.Mounts}}" same-web
inspect -f "{{.HostConfig.RestartPolicy}} {{.HostConfig.LogConfig}} {{.HostConfig.Init}} {{.HostConfig.OomKillDisable}}" same-web
inspect -f "{{.HostConfig.NanoCPUs}} {{.HostConfig.DNS}} {{.ID}}" same-web
inspect -f "{{.HostConfig.NanoCpus}} {{.HostConfig.Dns}} {{.Id}} {{.State}}" same-failed
inspect -f "{{.RootFS}} {{.GraphDriver}} {{.Config}}" busybox
inspect -f "{{.Config.Healthcheck}} {{.Config.Healthcheck.Interval}} {{.Config.StopTimeout}}" same-idle
inspect -f "{{.State}} {{.State.Health}} {{with .State.Health}}x{{else}}n{{end}}" same-failed
inspect -f "{{.State.Health.Status}}" same-web
inspect -f "{{range .State}}x{{end}}" same-idle
inspect -f "{{.Name.Foo}}" same-idle
inspect -f "{{index .Config.Labels \"none\"}}|{{.Config.Labels.none}}" same-web
inspect -f "{{.Id}} {{index .Config.Labels \"none\"}}" same-web
inspect -f "{{.Id}} {{.Config.Labels.none}}" same-web
inspect -f "{{slice .Name 1}} {{join .Args \",\"}} {{title .Path}} {{len .Mounts}}" same-web
inspect -f "{{block \"b\" .Name}}({{.}}){{end}}{{js \"a'b<\"}}{{html \"<a>\"}}{{urlquery \"a b\"}}" same-web
inspect -f "{{printf \"%v %+v\" .State .HostConfig.RestartPolicy}}" same-web
inspect -f "{{1.5}} {{0x1F}} {{1e3}} {{'a'}} {{\"a\tb\"}} {{eq 1 2 1}} {{print 1 2 \"a\"}}{{range 3}}{{.}}{{end}}" same-web
inspect -f "{{eq 1 1.0}}" same-web
inspect -f "{{and}}" same-web
inspect -f "{{range $i, $m := .Mounts}}{{if $i}}, {{end}}{{$m.Source}}:{{$m.Destination}}{{end}}" same-web
inspect -f "{{range .Mounts}}{{if eq .Type \"bind\"}}{{continue}}{{end}}{{.Name}}{{break}}{{end}}" same-web
inspect -f "{{(index (index .NetworkSettings.Ports \"8080/tcp\") 0).HostPort}}" same-web
inspect -f "{{json .Config}}" same:1
"""


@dataclass(frozen=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def ask(client: Cli, words: list[str]) -> Said:
    done = client(*words, code=None)

    def neutral(text: str) -> str:
        return text.replace("sampan", "docker").replace("Sampan", "Docker")

    out = neutral(done.out)
    if words[0] == "images":  # the names of one image come in the order of a Go map
        out = "\n".join(sorted(out.split("\n")))
    return Said(done.code, out, neutral(done.err))


def ageless(said: Said) -> Said:
    """Without ages, and without the widths of columns that come from them."""
    text = re.sub(r"(\d+|About an?|Less than a) (second|minute|hour)s?", "AGE", said.out)
    return replace(said, out=re.sub(" {2,}", "  ", text))


def differences(engine: Engine, line: str) -> list[str]:
    """What the two say of a command line, when they differ in each try: ages in a table may change meanwhile."""
    words = shlex.split(line)
    for _ in range(4):
        theirs, ours = ask(engine.docker, words), ask(engine.sampan, words)
        if theirs == ours:
            return []
    if ageless(theirs) == ageless(ours):
        return []  # a slow machine: no two of them within a second
    return [f"\n$ {line}\n{theirs}\n{ours}"]


@pytest.fixture(scope="module")
def state(engine: Engine) -> Iterator[None]:
    """Containers in each state, images, volumes."""
    docker = engine.docker
    image = engine.busybox
    docker(
        *("run", "-d", "--name", "same-web", "-p", "127.0.0.1:8080-8082:8080-8082", "-p", "9999:53/udp"),
        *(
            "--expose",
            "443",
            "-l",
            "a=b",
            "-l",
            "com.x-y=z",
            "-v",
            "same-volume:/data",
            "-v",
            "/tmp:/host:ro",
        ),
        *(image, "sleep", "10000"),
    )
    script = "echo a > /x; rm /etc/plain; echo 'a \"quoted\" <b>&</b>' and a line that is quite long"
    docker("run", "--name", "same-other", "--network", "none", image, "sh", "-c", script)
    docker("create", "--name", "same-idle", "--health-cmd", "true", image)
    docker("run", "--name", "same-failed", image, "sh", "-c", "exit 3", code=3)
    docker("run", "-d", "--name", "same-paused", image, "sleep", "10000")
    docker("pause", "same-paused")
    docker("commit", "-m", "a <comment>", "same-other", "same:1")
    docker("tag", "same:1", "registry.example.com:5000/same/other:2")
    docker("commit", "same-idle")
    docker("volume", "create", "--label", "v=1", "same-other")
    yield
    for name in ("web", "other", "idle", "failed", "paused"):
        docker("rm", "-f", "-v", f"same-{name}")
    docker("volume", "rm", "same-volume", "same-other")
    docker("rmi", "same:1", "registry.example.com:5000/same/other:2")
    docker("image", "prune", "-f")


@pytest.mark.parametrize("lines", [TABLES, TEMPLATES], ids=["tables", "templates"])
def test_the_same(engine: Engine, state: None, lines: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda line: differences(engine, line), lines.strip().splitlines())
        wrong = [text for texts in found for text in texts]
    assert not wrong, "".join(wrong)


def test_info_and_version_say_the_same_of_the_engine(engine: Engine, state: None) -> None:
    def server(client: Cli, command: str) -> list[str]:
        lines = client(command).out.partition("\nServer:")[2].replace("sampan", "docker").splitlines()
        # The runtimes come in the order of a Go map. Ours calls the language by its name.
        return [
            " ".join(sorted(line.replace("Python version:", "Go version:    ").split()))
            for line in lines
            if "Runtimes" not in line and "System Time" not in line
        ]

    assert server(engine.sampan, "info") == server(engine.docker, "info")
    theirs = [line.replace("python", "") for line in server(engine.docker, "version")]
    assert [line.replace("python", "") for line in server(engine.sampan, "version")] == theirs


def test_no_colour(engine: Engine, state: None) -> None:
    with tempfile.TemporaryDirectory() as home:
        for words in (["system", "df"], ["version"], ["--help"]):
            shown = [
                engine.sampan(*words, env={"HOME": home, **more}).raw for more in ({}, {"NO_COLOR": "1"})
            ]
            assert shown[0] == shown[1] and b"\x1b" not in shown[0]
