"""`sampan ps`: list containers."""

from __future__ import annotations

from sampan.cli.app import warn
from sampan.cli.flags import Command, Flag
from sampan.cli.human import ago, ellipsis, epoch, local_time, short_id, size
from sampan.cli.listing import Field, filters, label, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values

_COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")


RAW = """container_id: {{.ID}}
image: {{.Image}}
command: {{.Command}}
created_at: {{.CreatedAt}}
state: {{- pad .State 1 0}}
status: {{- pad .Status 1 0}}
names: {{.Names}}
labels: {{- pad .Labels 1 0}}
ports: {{- pad .Ports 1 0}}
"""


def run(app: App, values: Values, arguments: list[str]) -> int:
    """List the containers that the flags choose."""
    form = values.text("format")
    if form and values.on("quiet"):
        warn("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        form = form if form in ("table", "raw") else ""
    form = form or ("" if values.on("quiet") else str(app.config.get("psFormat") or ""))
    sized = values.on("size") or ".Size" in form or "json .}}" in form
    limit = 1 if values.on("latest") else max(values.number("last"), 0)
    chosen = filters(values.items("filter"))
    containers = app.client.call(
        "GET",
        "/containers/json",
        {
            "all": values.on("all") or limit > 0 or bool(values.on("latest")),
            "limit": limit or None,
            "size": sized,
            "filters": chosen,
        },
    )
    columns = [*_COLUMNS, "Size"] if values.on("size") else _COLUMNS
    show(
        containers,
        fields(not values.on("no-trunc")),
        columns,
        form,
        "ID" if values.on("quiet") else "",
        "*formatter.ContainerContext",
        parsing="",  # docker's ps has words of its own
        raw="container_id: {{.ID}}"
        if values.on("quiet")
        else f"{RAW}size: {{{{.Size}}}}\n"
        if values.on("size")
        else RAW,
    )
    return 0


def fields(short: bool) -> dict[str, Field]:
    """What a template may ask of a container; `short` shortens ids, commands and mounts."""

    def command(row: Any) -> str:
        text = row.get("Command", "")
        return f'"{_escaped(ellipsis(text, 20) if short else text)}"'

    def image(row: Any) -> str:
        name: str = row.get("Image", "")
        if not name:
            return "<no image>"
        if not short:
            return name
        whole = row.get("ImageID", "")
        if name == whole or (len(name) == 64 and whole.endswith(name)):
            return short_id(name)
        return name.split("@")[0] if "@" in name else name

    def names(row: Any) -> str:
        all_names = [name.removeprefix("/") for name in row.get("Names") or ()]
        if short:
            all_names = [name for name in all_names if "/" not in name]
        return ",".join(all_names)

    def mounts(row: Any) -> str:
        found = [mount.get("Name") or mount.get("Source", "") for mount in row.get("Mounts") or ()]
        return ",".join(ellipsis(one, 15) if short else one for one in found)

    def volumes(row: Any) -> str:
        return str(sum(1 for mount in row.get("Mounts") or () if mount.get("Driver") == "local"))

    return {
        "ID": Field("CONTAINER ID", lambda row: short_id(row["Id"]) if short else row["Id"]),
        "Names": Field("NAMES", names),
        "Image": Field("IMAGE", image),
        "Command": Field("COMMAND", command),
        "CreatedAt": Field("CREATED AT", lambda row: local_time(row["Created"])),
        "RunningFor": Field("CREATED", lambda row: ago(row["Created"])),
        "Ports": Field("PORTS", lambda row: ports(row.get("Ports") or [])),
        "State": Field("STATE", lambda row: row.get("State", "")),
        "Status": Field("STATUS", lambda row: row.get("Status", "")),
        "Size": Field("SIZE", _size),
        "Label": Field("", label, argument=True),
        "Labels": Field("LABELS", lambda row: labels(row.get("Labels"))),
        "Mounts": Field("MOUNTS", mounts),
        "LocalVolumes": Field("LOCAL VOLUMES", volumes),
        "Networks": Field(
            "NETWORKS", lambda row: ",".join((row.get("NetworkSettings") or {}).get("Networks") or {})
        ),
        "Platform": Field("PLATFORM", lambda row: row.get("ImageManifestDescriptor", {}).get("platform")),
    }


def labels(given: dict[str, str] | None) -> str:
    """Labels in one cell."""
    return ",".join(f"{name}={value}" for name, value in sorted((given or {}).items()))


def _escaped(text: str) -> str:
    from sampan.cli.jsontext import quote

    return quote(text)[1:-1]


def _size(row: Any) -> str:
    text = size(row.get("SizeRw") or 0)
    whole = row.get("SizeRootFs") or 0
    return f"{text} (virtual {size(whole)})" if whole > 0 else text


def ports(given: list[dict[str, Any]]) -> str:
    """Ports in one cell: runs of those that keep their number outside, then those that do not."""
    done: list[str] = []
    mapped: list[str] = []
    runs: dict[tuple[str, str], list[int]] = {}  # (address, protocol): first and last
    for port in sorted(
        given,
        key=lambda one: (
            one["PrivatePort"],
            one.get("IP", ""),
            one.get("PublicPort", 0),
            one.get("Type", ""),
        ),
    ):
        address, kind, private = port.get("IP", ""), port.get("Type", "tcp"), port["PrivatePort"]
        public = port.get("PublicPort", 0)
        if address and public != private:
            mapped.append(f"{_host(address)}:{public}->{private}/{kind}")
            continue
        run_ = runs.get((address, kind))
        if run_ is not None and private == run_[1] + 1:
            run_[1] = private
            continue
        if run_ is not None:
            done.append(_range(address, kind, *run_))
            run_[:] = private, private
        else:
            runs[address, kind] = [private, private]
    done += [_range(address, kind, *run_) for (address, kind), run_ in runs.items()]
    return ", ".join(done + mapped)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _range(address: str, kind: str, first: int, last: int) -> str:
    text = str(first) if first == last else f"{first}-{last}"
    return f"{_host(address)}:{text}->{text}/{kind}" if address else f"{text}/{kind}"


def created(row: Any) -> float:
    """When an object with an RFC 3339 `Created` was made."""
    return epoch(row["Created"])


COMMAND = Command(
    "ps",
    "[OPTIONS]",
    "List containers",
    (
        Flag("all", "bool", "Show stopped containers too", "a"),
        Flag("filter", "filter", "Show only what meets the conditions", "f"),
        Flag("format", "string", "Output: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("last", "int", "Show the n last created containers, in any state", "n", -1),
        Flag("latest", "bool", "Show the last created container, in any state", "l"),
        Flag("no-trunc", "bool", "Show ids and commands in full"),
        Flag("quiet", "bool", "Show container IDs only", "q"),
        Flag("size", "bool", "Show the size of each container's files", "s"),
    ),
    run,
    most=0,
    aliases=("container ls", "container list", "container ps", "ps"),
)
