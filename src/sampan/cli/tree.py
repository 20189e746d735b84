"""The table of commands: name, module below `commands`, one line of summary. It imports nothing."""

from __future__ import annotations

# Command -> (module, summary). A module holds one Command per key it serves in its COMMANDS.
TOP: dict[str, tuple[str, str]] = {
    "run": ("run", "Create and run a new container from an image"),
    "exec": ("exec", "Execute a command in a running container"),
    "ps": ("ps", "List containers"),
    "images": ("images", "List images"),
    "version": ("version", "Show the Sampan version information"),
    "info": ("info", "Display system-wide information"),
    "build": ("build", "Build an image from a Dockerfile"),
    "attach": ("attach", "Attach local standard input, output, and error streams to a running container"),
    "commit": ("commit", "Create a new image from a container's changes"),
    "cp": ("cp", "Copy files/folders between a container and the local filesystem"),
    "create": ("create", "Create a new container"),
    "check-config": ("doctor:check-config", "Examine whether this machine can run containers"),
    "doctor": ("doctor:doctor", "Examine whether this machine can run containers"),
    "diff": ("diff", "Inspect changes to files or directories on a container's filesystem"),
    "events": ("events", "Get real time events from the server"),
    "export": ("export", "Export a container's filesystem as a tar archive"),
    "history": ("history", "Show the history of an image"),
    "import": ("import_", "Import the contents from a tarball to create a filesystem image"),
    "inspect": ("inspect", "Return low-level information on objects of any kind"),
    "install-docker-alias": ("install_docker_alias", "Make a link named docker to this program"),
    "install-help": ("install_help", "Put manual pages and shell completion where they are looked for"),
    "kill": ("kill", "Kill one or more running containers"),
    "load": ("load", "Load an image from a tar archive or STDIN"),
    "login": ("login:login", "Authenticate to a registry"),
    "logout": ("login:logout", "Log out from a registry"),
    "logs": ("logs", "Fetch the logs of a container"),
    "pause": ("pause", "Pause all processes within one or more containers"),
    "port": ("port", "List port mappings or a specific mapping for the container"),
    "pull": ("pull", "Download an image from a registry"),
    "push": ("push", "Upload an image to a registry"),
    "rename": ("rename", "Rename a container"),
    "restart": ("restart", "Restart one or more containers"),
    "rm": ("rm", "Remove one or more containers"),
    "rmi": ("rmi", "Remove one or more images"),
    "save": ("save", "Save one or more images to a tar archive (streamed to STDOUT by default)"),
    "search": ("search", "Search Docker Hub for images"),
    "start": ("start", "Start one or more stopped containers"),
    "stats": ("stats", "Display a live stream of container(s) resource usage statistics"),
    "stop": ("stop", "Stop one or more running containers"),
    "tag": ("tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "top": ("top", "Display the running processes of a container"),
    "ui": ("ui", "Show the engine on the whole terminal"),
    "unpause": ("unpause", "Unpause all processes within one or more containers"),
    "update": ("update", "Update configuration of one or more containers"),
    "__complete": ("completion:complete", ""),
    "__completeNoDesc": ("completion:complete without descriptions", ""),
    "wait": ("wait", "Block until one or more containers stop, then print their exit codes"),
}

COMMON = ("run", "exec", "ps", "pull", "images", "version", "info")

GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    # group -> (summary, {subcommand: module, or "module:key" where the module serves several})
    "builder": ("Manage the build cache", {"build": "build", "prune": "prune:builder prune"}),
    "checkpoint": (
        "Manage checkpoints",
        {
            "create": "unoffered:checkpoint create",
            "ls": "unoffered:checkpoint ls",
            "rm": "unoffered:checkpoint rm",
        },
    ),
    "container": (
        "Manage containers",
        {
            "attach": "attach",
            "commit": "commit",
            "cp": "cp",
            "create": "create",
            "diff": "diff",
            "exec": "exec",
            "export": "export",
            "inspect": "inspect:container inspect",
            "kill": "kill",
            "logs": "logs",
            "ls": "ps",
            "pause": "pause",
            "port": "port",
            "prune": "prune:container prune",
            "rename": "rename",
            "restart": "restart",
            "rm": "rm",
            "run": "run",
            "start": "start",
            "stats": "stats",
            "stop": "stop",
            "top": "top",
            "unpause": "unpause",
            "update": "update",
            "wait": "wait",
        },
    ),
    "completion": (
        "Generate the autocompletion script for a shell",
        {"bash": "completion:bash", "fish": "completion:fish", "zsh": "completion:zsh"},
    ),
    "context": (
        "Manage contexts",
        {
            "create": "context_store:create",
            "export": "context_store:export",
            "import": "context_store:import",
            "inspect": "context_show:inspect",
            "ls": "context_show:ls",
            "rm": "context_store:rm",
            "show": "context_show:show",
            "update": "context_store:update",
            "use": "context_store:use",
        },
    ),
    "image": (
        "Manage images",
        {
            "build": "build",
            "history": "history",
            "import": "import_",
            "inspect": "inspect:image inspect",
            "load": "load",
            "ls": "images",
            "prune": "prune:image prune",
            "pull": "pull",
            "push": "push",
            "rm": "rmi",
            "save": "save",
            "tag": "tag",
        },
    ),
    "manifest": (
        "Manage image manifests and manifest lists",
        {
            "annotate": "manifest:annotate",
            "create": "manifest:create",
            "inspect": "manifest:inspect",
            "push": "manifest:push",
            "rm": "manifest:rm",
        },
    ),
    "network": (
        "Manage networks",
        {
            "connect": "network_connect:connect",
            "create": "network_create",
            "disconnect": "network_connect:disconnect",
            "inspect": "inspect:network inspect",
            "ls": "network_ls",
            "prune": "prune:network prune",
            "rm": "network_rm",
        },
    ),
    "registry": (
        "Run a registry",
        {"gc": "registry:gc", "serve": "registry:serve"},
    ),
    "system": (
        "Manage the engine",
        {
            "check": "system_check",
            "df": "system_df",
            "dial-stdio": "system_dial_stdio",
            "events": "events",
            "info": "info",
            "prune": "prune:system prune",
        },
    ),
    "trust": (
        "Manage trust on images",
        {
            "inspect": "unoffered:trust inspect",
            "revoke": "unoffered:trust revoke",
            "sign": "unoffered:trust sign",
        },
    ),
    "volume": (
        "Manage volumes",
        {
            "create": "volume_create",
            "inspect": "inspect:volume inspect",
            "ls": "volume_ls",
            "prune": "prune:volume prune",
            "rm": "volume_rm",
            "update": "volume_update",
        },
    ),
}

# Groups within groups, by their whole name.
NESTED: dict[str, tuple[str, dict[str, str]]] = {
    "network policy": (
        "Manage where containers may connect to",
        {
            "log": "network_policy:log",
            "set": "network_policy:set",
            "show": "network_policy:show",
        },
    ),
    "trust key": (
        "Manage keys for signing images",
        {"generate": "unoffered:trust key generate", "load": "unoffered:trust key load"},
    ),
    "trust signer": (
        "Manage who can sign images",
        {"add": "unoffered:trust signer add", "remove": "unoffered:trust signer remove"},
    ),
}


def group(path: str) -> tuple[str, dict[str, str]]:
    """A group's summary and commands; KeyError for what is none."""
    return NESTED[path] if path in NESTED else GROUPS[path]


def below(path: str) -> dict[str, str]:
    """The groups within a group: their names there, and summaries."""
    start = f"{path} "
    return {
        name.removeprefix(start): summary for name, (summary, _) in NESTED.items() if name.startswith(start)
    }


# What programs call and help does not show.
HIDDEN = {"": ("__complete", "__completeNoDesc"), "system": ("dial-stdio",)}

# Other names of subcommands.
ALIASES: dict[str, dict[str, str]] = {
    "checkpoint": {"list": "ls", "remove": "rm"},
    "container": {"list": "ls", "ps": "ls", "remove": "rm"},
    "context": {"list": "ls", "remove": "rm"},
    "image": {"list": "ls", "remove": "rm"},
    "network": {"list": "ls", "remove": "rm"},
    "volume": {"list": "ls", "remove": "rm"},
}
