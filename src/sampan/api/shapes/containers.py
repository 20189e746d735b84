"""Containers as JSON: `ContainerSummary`, `ContainerInspectResponse` and the exec's inspect response."""

from __future__ import annotations

import dataclasses
import time
from operator import attrgetter
from typing import Any

from sampan.api.shapes.times import rfc3339
from sampan.durations import human_duration
from sampan.engine import Core, Exec, Live, endpoints, links
from sampan.engine.model import Container, EndpointSettings, Health, MountPoint, State
from sampan.engine.spec import confined_by
from sampan.http import dump_json
from sampan.oci.records import encode

_ENDPOINT = attrgetter(*(field.name for field in dataclasses.fields(EndpointSettings)))


def status_text(state: State, removing: bool = False) -> str:
    """The STATUS column of `docker ps`."""
    if state.running:
        up = f"Up {human_duration((time.time_ns() - state.started_at_ns) / 1e9)}"
        if state.status == "paused":
            return f"{up} (Paused)"
        if state.health is not None:
            status = state.health.status
            return f"{up} ({'health: starting' if status == 'starting' else status})"
        return up
    since = human_duration((time.time_ns() - state.finished_at_ns) / 1e9)
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {since} ago"
    if removing:
        return "Removal In Progress"
    if not state.started_at_ns:
        return "Created"
    return f"Exited ({state.exit_code}) {since} ago"


def _mount(point: MountPoint) -> dict[str, Any]:
    shape: dict[str, Any] = {"Type": point.type}
    if point.name:
        shape["Name"] = point.name
    shape["Source"] = point.source
    shape["Destination"] = point.destination
    if point.driver:
        shape["Driver"] = point.driver
    return shape | {"Mode": point.mode, "RW": point.rw, "Propagation": point.propagation}


def _endpoint(endpoint: EndpointSettings) -> dict[str, Any]:
    return {
        "IPAMConfig": _asked(endpoint),
        "Links": endpoint.links,
        "Aliases": endpoint.aliases,
        "MacAddress": endpoint.mac_address or endpoint.desired_mac_address,
        "DriverOpts": endpoint.driver_opts,
        "GwPriority": endpoint.gw_priority,
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.endpoint_id,
        "Gateway": endpoint.gateway,
        "IPAddress": endpoint.ip_address,
        "IPPrefixLen": endpoint.ip_prefix_len,
        "IPv6Gateway": endpoint.ipv6_gateway,
        "GlobalIPv6Address": endpoint.global_ipv6_address,
        "GlobalIPv6PrefixLen": endpoint.global_ipv6_prefix_len,
        "DNSNames": endpoint.dns_names,
    }


def _asked(endpoint: EndpointSettings) -> dict[str, Any] | None:
    if endpoint.ipam_config is None:
        return None
    return {name: value for name, value in encode(endpoint.ipam_config).items() if value}


def _networks(container: Container) -> dict[str, Any]:
    return {name: _endpoint(endpoint) for name, endpoint in endpoints.of(container).items()}


def _ports(container: Container) -> list[dict[str, Any]]:
    ports: list[dict[str, Any]] = []
    for text, places in _port_map(container).items():
        number, _, protocol = text.partition("/")
        port = {"PrivatePort": int(number), "Type": protocol}
        ports += [
            {"IP": place["HostIp"], **port, "PublicPort": int(place["HostPort"])}
            if place["HostPort"]
            else port
            for place in places or ()  # without one in networks of gateway mode routed
        ] or [port]
    return ports


def _port_map(container: Container) -> dict[str, list[dict[str, str]] | None]:
    """The exposed and published ports of a running container, with their places on the host."""
    if not container.state.running or not any(
        one.ip_address or one.global_ipv6_address for one in container.networks.values()
    ):
        return {}
    shown: dict[str, list[dict[str, str]] | None] = {}
    for text in sorted({*(container.config.exposed_ports or {}), *container.ports}):
        name = text if "/" in text else f"{text}/tcp"
        places = container.ports.get(name)
        shown[name] = [encode(place) for place in places] if places else None
    return shown


def summary(
    live: Live, size: tuple[int, int] | None, image_name: str, more_names: list[str]
) -> dict[str, Any]:
    """One entry of `GET /containers/json`.

    Args:
        size: bytes of the writable layer and of the whole root file system, when asked for.
        image_name: what to call the image: as the user named it, or its id once the name means another.
        more_names: what those call it who are linked to it.
    """
    container = live.container
    shape: dict[str, Any] = {
        "Id": container.id,
        "Names": [f"/{container.name}", *more_names],
        "Image": image_name,
        "ImageID": container.image_id,
        "Command": _command(container),
        "Created": container.created_at_ns // 1_000_000_000,
        "Ports": _ports(container),
        "Labels": container.config.labels,
        "State": live.status,
        "Status": status_text(container.state, live.removing),
        "HostConfig": {"NetworkMode": container.host_config.network_mode},
        "NetworkSettings": {"Networks": _networks(container)},
        "Mounts": [_mount(point) for point in container.mounts],
    }
    if size is not None:
        shape["SizeRw"], shape["SizeRootFs"] = size
    return shape


def listed(live: Live, image_name: str, more_names: list[str]) -> bytes:
    """`summary` as JSON, kept with the container until something in it is another: lists are asked for often.

    What is in no key is settled when the container is made.
    """
    container = live.container
    status = status_text(container.state, live.removing)
    places = [(name, *_ENDPOINT(endpoint)) for name, endpoint in container.networks.items()]
    key = (container.name, image_name, live.status, status, places, more_names)
    if live.listed is None or live.listed[0] != key:
        live.listed = key, dump_json(summary(live, None, image_name, more_names)).rstrip()
    return live.listed[1]


def _command(container: Container) -> str:
    """The command line as `docker ps` shows it: words with blanks in single quotes."""
    words = [f"'{word}'" if " " in word else word for word in container.args]
    return " ".join([container.path, *words])


def inspect(core: Core, live: Live, size: tuple[int, int] | None) -> dict[str, Any]:
    """`GET /containers/{id}/json`."""
    container = live.container
    state = container.state
    config = encode(container.config)
    for name in (
        "Healthcheck",
        "MacAddress",
        "StopSignal",
        "StopTimeout",
        "Shell",
        "ArgsEscaped",
        "HealthcheckOnFailureAction",
    ):
        if config[name] is None:
            del config[name]
    if "Healthcheck" in config:
        config["Healthcheck"] = {name: value for name, value in config["Healthcheck"].items() if value}
    shape: dict[str, Any] = {
        "Id": container.id,
        "Created": rfc3339(container.created_at_ns),
        "Path": container.path,
        "Args": container.args,
        "State": {
            "Status": live.status,
            "Running": state.active,
            "Paused": state.status == "paused",
            "Restarting": state.status == "restarting",
            "OOMKilled": state.oom_killed,
            "Dead": False,
            "Pid": state.pid,
            "ExitCode": state.exit_code,
            "Error": state.error,
            "StartedAt": rfc3339(state.started_at_ns),
            "FinishedAt": rfc3339(state.finished_at_ns),
        },
        "Image": container.image_id,
        **_paths(core, live),
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": container.driver,
        "Platform": container.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": confined_by(container.host_config),
        "ExecIDs": [exec_.id for exec_ in live.execs.values() if exec_.process is not None] or None,
        "HostConfig": _host_config(core, container),
        "GraphDriver": {"Name": container.driver, "Data": _graph_data(core, live)},
        "Mounts": [_mount(point) for point in container.mounts],
        "Config": config,
        "NetworkSettings": _network_settings(container),
    }
    if state.health is not None:
        shape["State"]["Health"] = _health(state.health)
    if size is not None:
        shape["SizeRw"], shape["SizeRootFs"] = size
    return shape


def _paths(core: Core, live: Live) -> dict[str, str]:
    """Where the container's own files are; put together once."""
    if live.paths is None:
        container = live.container
        directory = core.directory(container.id)
        # Docker keeps the files of its other log drivers to itself.
        shown = container.host_config.log_config.type == "json-file"
        live.paths = {
            "ResolvConfPath": f"{directory}/resolv.conf",
            "HostnamePath": f"{directory}/hostname",
            "HostsPath": f"{directory}/hosts",
            "LogPath": str(core.log_path(container)) if shown else "",
        }
    return live.paths


def _graph_data(core: Core, live: Live) -> dict[str, str]:
    """Where its layers are; read once they are there."""
    if not live.graph_data:
        live.graph_data = core.driver.graph_data(live.id)
    return live.graph_data


def _host_config(core: Core, container: Container) -> dict[str, Any]:
    """As the client gave it; of mounts, what was not given is left out, as by Docker."""
    shape: dict[str, Any] = encode(container.host_config)
    if shape["Mounts"]:
        shape["Mounts"] = [_given(mount) for mount in shape["Mounts"]]
    if shape["Links"] or container.links:
        shape["Links"] = links.shown(core, container) or None
    if shape["Egress"] is None:  # ours, not Docker's
        del shape["Egress"]
    return shape


def _given(value: dict[str, Any]) -> dict[str, Any]:
    """The members that say something; an object that was given stays, though it be empty."""
    return {
        name: _given(item) if isinstance(item, dict) else item
        for name, item in value.items()
        if item or isinstance(item, dict)
    }


def _health(health: Health) -> dict[str, Any]:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": rfc3339(probe.start_ns),
                "End": rfc3339(probe.end_ns),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            }
            for probe in health.log
        ],
    }


def _network_settings(container: Container) -> dict[str, Any]:
    first = container.networks.get("bridge", EndpointSettings())
    return {
        "Bridge": "",
        "SandboxID": container.id if container.sandbox_key else "",
        "SandboxKey": container.sandbox_key,
        "Ports": _port_map(container),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": first.endpoint_id,
        "Gateway": first.gateway,
        "GlobalIPv6Address": first.global_ipv6_address,
        "GlobalIPv6PrefixLen": first.global_ipv6_prefix_len,
        "IPAddress": first.ip_address,
        "IPPrefixLen": first.ip_prefix_len,
        "IPv6Gateway": first.ipv6_gateway,
        "MacAddress": first.mac_address,
        "Networks": _networks(container),
    }


def exec_inspect(session: Exec) -> dict[str, Any]:
    """`GET /exec/{id}/json`; Docker has no `Error`, which tells of an end that was not its own."""
    config = session.config
    shape = {
        "ID": session.id,
        "Running": session.process is not None,
        "ExitCode": session.ended.exit_code if session.ended is not None else None,
        "ProcessConfig": {
            "tty": config.tty,
            "entrypoint": config.cmd[0],
            "arguments": config.cmd[1:],
            "privileged": config.privileged,
            "user": config.user,
        },
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": session.ended is not None,
        "ContainerID": session.container_id,
        "DetachKeys": "",
        "Pid": session.process.pid if session.process is not None else 0,
    }
    if session.ended is not None and session.ended.error:
        shape["Error"] = session.ended.error
    return shape
