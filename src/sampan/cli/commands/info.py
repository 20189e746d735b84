"""`sampan info`: what the engine is, what it has, and what its machine cannot do."""

from __future__ import annotations

from sampan import __version__
from sampan.cli.app import out, warn
from sampan.cli.commands.version import CLIENT
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag
from sampan.cli.hosts import chosen_context
from sampan.cli.human import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Show the client and, when it answers, the engine."""
    debug = app.options.on("debug")
    context = chosen_context(app.options, app.config)
    client: dict[str, Any] = {**CLIENT, "Debug": debug, "Context": context, "Plugins": [], "Warnings": None}
    failure = None
    info: dict[str, Any] = {}
    try:
        info = app.client.call("GET", "/info")
    except CommandError as error:
        failure = error
    form = values.text("format")
    if form:
        from sampan.cli.template import object_template

        merged = {**info, "ClientInfo": client}
        if failure is not None:
            merged["ServerErrors"] = [failure.message]
        object_template(form, merged, "info")
        return 0
    lines = ["Client:", f" Version:    {__version__}", f" Context:    {context}"]
    lines += [f" Debug Mode: {str(debug).lower()}", "", "Server:"]
    if failure is None:
        lines += server_lines(info)
    out("\n".join(lines) + "\n" + ("" if failure else "\n"))
    for warning in info.get("Warnings") or ():
        warn(warning)
    if failure is not None:
        raise CommandError(f"{failure.message}\nerrors pretty printing info")
    return 0


def server_lines(info: dict[str, Any]) -> list[str]:
    """The engine's part, one fact a line."""
    lines = [
        f" Containers: {info.get('Containers', 0)}",
        f"  Running: {info.get('ContainersRunning', 0)}",
        f"  Paused: {info.get('ContainersPaused', 0)}",
        f"  Stopped: {info.get('ContainersStopped', 0)}",
        f" Images: {info.get('Images', 0)}",
    ]
    _fact(lines, " Server Version", info.get("ServerVersion"))
    _fact(lines, " Storage Driver", info.get("Driver"))
    lines += [f"  {name}: {value}" for name, value in info.get("DriverStatus") or ()]
    _fact(lines, " Logging Driver", info.get("LoggingDriver"))
    _fact(lines, " Cgroup Driver", info.get("CgroupDriver"))
    _fact(lines, " Cgroup Version", info.get("CgroupVersion"))
    plugins = info.get("Plugins") or {}
    lines.append(" Plugins:")
    for title in ("Volume", "Network", "Authorization", "Log"):
        names = plugins.get(title)
        if names or title in ("Volume", "Network"):
            lines.append(f"  {title}: {' '.join(sorted(names or ()))}")
    if info.get("CDISpecDirs"):
        lines += [" CDI spec directories:", *(f"  {folder}" for folder in info["CDISpecDirs"])]
    lines.append(f" Swarm: {(info.get('Swarm') or {}).get('LocalNodeState') or 'inactive'}")
    runtimes = info.get("Runtimes") or {}
    if runtimes:
        lines.append(f" Runtimes: {' '.join(sorted(runtimes))}")
        lines.append(f" Default Runtime: {info.get('DefaultRuntime', '')}")
    _fact(lines, " Init Binary", info.get("InitBinary"))
    for name, title in (("ContainerdCommit", "containerd"), ("RuncCommit", "runc"), ("InitCommit", "init")):
        if info.get(name) is not None:
            lines.append(f" {title} version: {(info[name] or {}).get('ID', '')}")
    options = info.get("SecurityOptions") or []
    if options:
        lines.append(" Security Options:")
        lines += [line for option in options for line in _security(option)]
    _fact(lines, " Kernel Version", info.get("KernelVersion"))
    _fact(lines, " Operating System", info.get("OperatingSystem"))
    _fact(lines, " OSType", info.get("OSType"))
    _fact(lines, " Architecture", info.get("Architecture"))
    lines.append(f" CPUs: {info.get('NCPU', 0)}")
    lines.append(f" Total Memory: {binary_size(info.get('MemTotal', 0))}")
    _fact(lines, " Name", info.get("Name"))
    _fact(lines, " ID", info.get("ID"))
    _fact(lines, " Docker Root Dir", info.get("DockerRootDir"))
    lines.append(f" Debug Mode: {str(bool(info.get('Debug'))).lower()}")
    if info.get("Debug"):
        for name, title in (
            ("NFd", "File Descriptors"),
            ("NGoroutines", "Goroutines"),
            ("SystemTime", "System Time"),
            ("NEventsListener", "EventsListeners"),
        ):
            lines.append(f"  {title}: {info.get(name, '')}")
    for name, title in (("HttpProxy", "HTTP Proxy"), ("HttpsProxy", "HTTPS Proxy"), ("NoProxy", "No Proxy")):
        _fact(lines, f" {title}", info.get(name))
    if info.get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in info["Labels"])]
    lines.append(f" Experimental: {str(bool(info.get('ExperimentalBuild'))).lower()}")
    _registries(lines, info.get("RegistryConfig") or {})
    lines.append(f" Live Restore Enabled: {str(bool(info.get('LiveRestoreEnabled'))).lower()}")
    _fact(lines, " Product License", info.get("ProductLicense"))
    _pools(lines, info.get("DefaultAddressPools") or [])
    return lines


def _fact(lines: list[str], title: str, value: Any) -> None:
    if value not in (None, ""):
        lines.append(f"{title}: {value}")


def _security(option: str) -> list[str]:
    pairs = [pair.partition("=") for pair in option.split(",")]
    name = next((value for key, _, value in pairs if key == "name"), option)
    found = [f"  {name}"]
    for key, _, value in pairs:
        if key != "name" and value:
            found.append(f"   {key.capitalize()}: {value}")
    return found


def _registries(lines: list[str], config: dict[str, Any]) -> None:
    insecure = [
        name for name, one in (config.get("IndexConfigs") or {}).items() if not one.get("Secure", True)
    ] + list(config.get("InsecureRegistryCIDRs") or ())
    if insecure:
        lines += [" Insecure Registries:", *(f"  {one}" for one in insecure)]
    if config.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {one}" for one in config["Mirrors"])]


def _pools(lines: list[str], pools: list[dict[str, Any]]) -> None:
    if pools:
        lines.append(" Default Address Pools:")
        lines += [f"   Base: {pool.get('Base')}, Size: {pool.get('Size')}" for pool in pools]


COMMAND = Command(
    "info",
    "[OPTIONS]",
    "Display system-wide information",
    (Flag("format", "string", "Output: 'json' or a Go template", "f"),),
    run,
    most=0,
    aliases=("system info", "info"),
)
