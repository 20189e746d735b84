"""`--link` on the default bridge: another container's name, environment and ports, as Docker has them.

The container that asks is the *parent*, the other one its *child*. A link gives the parent a line in
/etc/hosts, which follows the child's address, and variables that tell of the child's ports and environment;
where the bridge keeps its containers apart (`--icc=false`) it also opens the child's exposed ports to the
parent. The child can be called `PARENT/ALIAS`. In networks of the user's a link is an alias alone
(`endpoints`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sampan.engine import ports
from sampan.engine.core import Core, Live, in_thread
from sampan.engine.model import Container, EndpointSettings
from sampan.errors import Conflict, InvalidParameter, SampanError
from sampan.network import Link, change_hosts

_DEFAULT = "bridge"
_NOT_SHOWN = ("HOME", "PATH")  # of the child's environment


def parse(text: str) -> tuple[str, str]:
    """Target and alias of `--link target:alias`; the alias is the target's name where none is given.

    Raises:
        InvalidParameter: in Docker's words.
    """
    parts = text.split(":")
    if not text:
        raise InvalidParameter("empty string specified for links")
    if len(parts) > 2 or not parts[0]:
        raise InvalidParameter(f"bad format for links: {text}")
    target = parts[0].removeprefix("/")
    return target, (parts[1] if len(parts) == 2 and parts[1] else target).rpartition("/")[2]


# --- which there are ---


def take(core: Core, container: Container, chosen: dict[str, EndpointSettings]) -> None:
    """Note the links of a new container: those of the host config are its main network's.

    Raises:
        InvalidParameter: one is wrong, or its target is not there or on the host's network, in Docker's
            words.
    """
    texts, mode = container.host_config.links or [], container.host_config.network_mode
    for text in texts:
        parse(text)
    if mode in chosen and texts and mode != _DEFAULT:
        chosen[mode].links = chosen[mode].links or list(texts)
    default = chosen.get(_DEFAULT)
    wanted = [*(texts if mode == _DEFAULT else ()), *((default.links if default else None) or ())]
    for target, alias in map(parse, wanted):
        child = _owner(core, core.find(target))
        if child is None:
            raise InvalidParameter(f"could not get container for {target}: No such container: {target}")
        if child.container.host_config.network_mode == "host":
            raise InvalidParameter(
                "conflicting options: host type networking can't be used with links. This would result in "
                "undefined behavior"
            )
        container.links.setdefault(alias, child.id)
    index(core, container)


def index(core: Core, container: Container) -> None:
    """Let the children of a container be known as such."""
    for child_id in container.links.values():
        core.linked.setdefault(child_id, set()).add(container.id)


def forget(core: Core, container: Container) -> None:
    """A container is removed. Links to it stay with their parents, which do not start any more with them."""
    core.linked.pop(container.id, None)
    for child_id in container.links.values():
        core.linked.get(child_id, set()).discard(container.id)


def _owner(core: Core, live: Live | None) -> Live | None:
    """Whose network a container is in: its own, or that of the one it shares."""
    while live is not None and live.container.host_config.network_mode.startswith("container:"):
        live = core.find(live.container.host_config.network_mode.removeprefix("container:"))
    return live


def _targets(container: Container) -> dict[str, str]:
    """The links on the default bridge as they were asked for: alias to target."""
    settings = container.networks.get(_DEFAULT)
    texts = container.host_config.links if container.host_config.network_mode == _DEFAULT else None
    found: dict[str, str] = {}
    for target, alias in map(parse, [*(texts or ()), *((settings.links if settings else None) or ())]):
        found.setdefault(alias, target)
    return found


def _children(core: Core, container: Container) -> Iterator[tuple[str, str, Live | None]]:
    """Alias, name and container of each link; one that was removed is looked for by its name."""
    for alias, target in _targets(container).items():
        live = core.containers.get(container.links.get(alias, "")) or _owner(core, core.find(target))
        yield alias, live.container.name if live is not None else target, live


def _parents(core: Core, container: Container) -> Iterator[tuple[str, Container]]:
    """Those who are linked to a container, each with what it calls it."""
    for parent_id in tuple(core.linked.get(container.id, ())):
        parent = core.containers.get(parent_id)
        if parent is not None:
            for alias, child_id in parent.container.links.items():
                if child_id == container.id:
                    yield alias, parent.container


def shown(core: Core, container: Container) -> list[str]:
    """`HostConfig.Links` as inspect has it, `/CHILD:/PARENT/ALIAS`; links elsewhere are shown there."""
    return [f"/{name}:/{container.name}/{alias}" for alias, name, _ in _children(core, container)]


def names(core: Core, container: Container) -> list[str]:
    """What a container is called by those who are linked to it: `/PARENT/ALIAS`."""
    if container.id not in core.linked:
        return []
    return sorted(f"/{parent.name}/{alias}" for alias, parent in _parents(core, container))


# --- what they come to ---


def connect(core: Core, container: Container) -> list[tuple[str, str]]:
    """Make ready what links give to a container that starts on the default bridge, and to its parents.

    Returns:
        Addresses and names of its children, for its /etc/hosts.

    Raises:
        SampanError: a child is not there, does not run or is not on that bridge; in Docker's words.
    """
    container.linked_environment = []
    found: list[tuple[str, str]] = []
    mine = container.networks.get(_DEFAULT)
    for alias, name, live in _children(core, container):
        if live is None or not live.container.state.running:
            raise SampanError(f"Cannot link to a non running container: /{name} AS /{container.name}/{alias}")
        child = live.container
        theirs = child.networks.get(_DEFAULT)
        if theirs is None or mine is None or not theirs.ip_address:
            raise Conflict(f"Cannot link to /{name}, as it does not belong to the default network")
        container.linked_environment += environment(
            f"/{container.name}/{alias}", theirs.ip_address, child.config.exposed_ports or (),
            child.config.env or (),
        )  # fmt: skip
        found += [(address, _called(alias, child)) for address in _addresses(core, theirs)]
        _open(core, container, child)
    follow(core, container)
    return found


def follow(core: Core, container: Container) -> None:
    """Let those who are linked to a container have its address on the default bridge, which is a new one.

    Raises:
        Unavailable: its ports cannot be opened to them.
    """
    if container.id in core.linked:
        for alias, parent in _parents(core, container):
            _follow(core, parent, alias, container)


def _called(alias: str, child: Container) -> str:
    return " ".join(name for name in dict.fromkeys((alias, child.config.hostname, child.name)) if name)


def _addresses(core: Core, place: EndpointSettings) -> list[str]:
    """A child's addresses; what `_open` opens is IPv4 alone."""
    apart = not core.networks.options.icc
    return [one for one in (place.ip_address, "" if apart else place.global_ipv6_address) if one]


def _follow(core: Core, parent: Container, alias: str, child: Container) -> None:
    """Let a running parent have its child's new address."""
    theirs = child.networks.get(_DEFAULT)
    if not parent.state.running or theirs is None or not theirs.ip_address or _DEFAULT not in parent.networks:
        return
    with contextlib.suppress(OSError):  # names in its own file, which it may have broken
        _name(_hosts(core, parent), alias, _addresses(core, theirs), _called(alias, child))
    _open(core, parent, child)


def _name(hosts: Path, alias: str, addresses: Sequence[str], called: str) -> None:
    change_hosts(hosts, add=[(address, called) for address in addresses], forget=(alias,))


def _hosts(core: Core, container: Container) -> Path:
    return core.directory(container.id) / "hosts"


def _open(core: Core, parent: Container, child: Container) -> None:
    """Open a child's exposed ports to its parent, where the bridge keeps them apart.

    Raises:
        Unavailable: that cannot be done.
    """
    if core.networks.options.icc:
        return
    core.networks.link(
        Link(
            parent_id=parent.id,
            child_id=child.id,
            parent_address=parent.networks[_DEFAULT].ip_address,
            child_address=child.networks[_DEFAULT].ip_address,
            ports=tuple(sorted(ports.exposed(child.config, child.host_config))),
        )
    )


async def unlink(core: Core, reference: str) -> None:
    """`docker rm --link PARENT/ALIAS`: the link goes, both containers stay.

    Raises:
        NotFound: there is no such link.
        SampanError: this is a container's own name; in Docker's words.
    """
    child = core.get(reference)
    parent_name, slash, alias = reference.removeprefix("/").rpartition("/")
    if not slash:
        raise SampanError("Conflict, cannot remove the default link name of the container")
    live = core.get(parent_name)
    async with live.lock:
        parent = live.container
        parent.links.pop(alias, None)
        for place in (parent.host_config, parent.networks.get(_DEFAULT)):
            if place is not None and place.links:
                place.links = [text for text in place.links if parse(text)[1] != alias] or None
        again = child.id in parent.links.values()
        if not again:
            core.linked.get(child.id, set()).discard(parent.id)
        core.write_down(parent)

        def close() -> None:
            with contextlib.suppress(OSError):
                change_hosts(_hosts(core, parent), forget=(alias,))
            if not again:
                core.networks.unlink(parent.id, child.id)

        if parent.state.running:
            await in_thread(close)


# --- variables ---

_Port = tuple[int, str]


def environment(name: str, address: str, exposed: Iterable[str], given: Iterable[str]) -> list[str]:
    """The variables that a link sets: `ALIAS_PORT…`, `ALIAS_NAME` and `ALIAS_ENV_…`.

    Args:
        name: the link's, as `/web/db`.
        address: the child's.
        exposed: its ports, as `80/tcp`.
        given: its own variables.
    """
    alias = name.rpartition("/")[2].upper().replace("-", "_")
    found = sorted(map(ports.split, exposed), key=lambda one: (one[1] != "tcp", one[1], one[0]))
    lines = []
    if found:
        lines.append(f"{alias}_PORT={_url(address, found[0])}")
    for port in found:
        prefix = _prefix(alias, port)
        number, protocol = port
        lines += [
            f"{prefix}={_url(address, port)}",
            f"{prefix}_ADDR={address}",
            f"{prefix}_PORT={number}",
            f"{prefix}_PROTO={protocol}",
        ]
    for first, last in _rows(found):
        prefix = _prefix(alias, first)
        lines += [
            f"{prefix}_START={_url(address, first)}",
            f"{prefix}_PORT_START={first[0]}",
            f"{prefix}_END={_url(address, last)}",
            f"{prefix}_PORT_END={last[0]}",
        ]
    lines.append(f"{alias}_NAME={name}")
    for text in given:
        own, equals, value = text.partition("=")
        if equals and own not in _NOT_SHOWN:
            lines.append(f"{alias}_ENV_{own}={value}")
    return lines


def _rows(found: Sequence[_Port]) -> Iterator[tuple[_Port, _Port]]:
    """The first and last port of each row of two or more that follow one another."""
    first = 0
    for at, (number, protocol) in enumerate(found):
        follows = at + 1 < len(found) and found[at + 1] == (number + 1, protocol)
        if not follows:
            if at > first:
                yield found[first], found[at]
            first = at + 1


def _prefix(alias: str, port: _Port) -> str:
    return f"{alias}_PORT_{port[0]}_{port[1].upper()}"


def _url(address: str, port: _Port) -> str:
    return f"{port[1]}://{address}:{port[0]}"
