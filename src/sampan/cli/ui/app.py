"""The screen with the tables: containers, images, volumes, networks, and what can be done with each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import DataTable, Footer, Header, Static, TabbedContent, TabPane

from sampan.cli.autostart import search_path
from sampan.cli.failures import CommandError, ConnectionFailed
from sampan.cli.hosts import Host
from sampan.cli.ui.details import Details
from sampan.cli.ui.dialogs import Confirm
from sampan.cli.ui.figures import Figures
from sampan.cli.ui.logs import Logs
from sampan.cli.ui.source import KINDS, Source, Stream
from sampan.cli.ui.tables import TABLES, Row

_REFRESH_S = 3.0  # for what changes without an event, as "Up 3 minutes"
_SETTLE_S = 0.15  # events come in swarms


class Listed(Message):
    """The daemon has listed the objects of a kind."""

    def __init__(self, kind: str, rows: list[Row]) -> None:
        super().__init__()
        self.kind = kind
        self.rows = rows


class Said(Message):
    """Something went wrong, or is done; `text` "" takes the line away.

    Args:
        lost: it is about the connection, and goes away by itself when that is back.
    """

    def __init__(self, text: str, failed: bool = True, lost: bool = False) -> None:
        super().__init__()
        self.text = text
        self.failed = failed
        self.lost = lost


class Happened(Message):
    """An event of the daemon's, or the end of its events."""

    def __init__(self, over: bool = False) -> None:
        super().__init__()
        self.over = over


_CONTAINER_ACTIONS = ("turn", "restart", "kill", "pause", "logs", "figures", "shell", "all")


class Ui(App[None]):
    """All of it.

    Args:
        host: the daemon.
        options: the words that name it, for the programs that are started.
    """

    TITLE = "Sampan"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    TabbedContent { height: 1fr; }
    TabPane { padding: 0; }
    DataTable { height: 1fr; }
    #said { height: auto; max-height: 3; padding: 0 1; display: none; }
    #said.shown { display: block; }
    #said.failed { background: $error; color: $text; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        *(
            Binding(str(n), f"tab('{kind}')", kind.capitalize(), show=False)
            for n, kind in enumerate(KINDS, 1)
        ),
        Binding("s", "turn", "Start/stop"),
        Binding("r", "restart", "Restart"),
        Binding("k", "kill", "Kill"),
        Binding("p", "pause", "Pause"),
        Binding("l", "logs", "Logs"),
        Binding("t", "figures", "Stats"),
        Binding("e", "shell", "Exec"),
        Binding("a", "all", "All/running"),
        Binding("i", "inspect", "Inspect"),
        Binding("d", "remove", "Remove"),
    ]

    def __init__(self, host: Host, options: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.source = Source(host)
        self._options = options
        self._everything = True
        self._rows: dict[str, dict[str, Row]] = {kind: {} for kind in KINDS}
        self._events: Stream | None = None
        self._due = False
        self._up = False  # messages of threads may come after the screen has gone

    # --- what is seen ---

    def compose(self) -> ComposeResult:
        """Four tables, one at a time."""
        yield Header()
        with TabbedContent(id="kinds"):
            for number, (kind, table) in enumerate(TABLES.items(), 1):
                with TabPane(f"{number} {table.title}", id=kind):
                    yield DataTable[str](id=f"{kind}-table", cursor_type="row", zebra_stripes=True)
        yield Static("", id="said", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Put up the columns, ask for what stands in them, and listen."""
        self._up = True
        self.sub_title = self.source.host.url
        for kind, table in TABLES.items():
            self._table(kind).add_columns(*table.columns)
        self._table("containers").focus()
        self.refresh_all()
        self._listen()
        self.set_interval(_REFRESH_S, self.refresh_shown)

    def exit(self, *arguments: Any, **options: Any) -> None:
        """Leave; what threads still say is not shown any more."""
        self._up = False
        super().exit(*arguments, **options)

    def on_unmount(self) -> None:
        """Let the daemon go."""
        self._up = False
        if self._events is not None:
            self._events.stop()
        self.source.close()

    def _table(self, kind: str) -> DataTable[str]:
        return self.query_one(f"#{kind}-table", DataTable)

    @property
    def kind(self) -> str:
        """Which table is shown."""
        return self.query_one("#kinds", TabbedContent).active or KINDS[0]

    def selected(self) -> Row | None:
        """The row under the cursor."""
        table = self._table(self.kind)
        if not table.row_count:
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return self._rows[self.kind].get(key or "")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that mean nothing for what is shown are not offered."""
        if len(self.screen_stack) > 1 and action in (*_CONTAINER_ACTIONS, "inspect", "remove", "tab", "quit"):
            return False  # the keys of the screen above count alone
        if action in _CONTAINER_ACTIONS:
            return self.kind == "containers"
        return not (action == "remove" and self.kind == "networks")

    def on_tabbed_content_tab_activated(self) -> None:
        """Another table: other keys."""
        self._table(self.kind).focus()
        self.refresh_bindings()
        self.refresh_shown()

    # --- what stands in it ---

    def refresh_all(self) -> None:
        """Ask for all kinds."""
        for kind in KINDS:
            self._ask(kind)

    def refresh_shown(self) -> None:
        """Ask for the kind that is shown."""
        if self._up and self.query("#kinds"):
            self._ask(self.kind)

    def _ask(self, kind: str) -> None:
        everything = self._everything

        def work() -> None:
            self.post_message(Listed(kind, TABLES[kind].rows(self.source.rows(kind, everything))))

        self._do(work, kind)

    def _do(self, work: Callable[[], None], group: str, done: str = "") -> None:
        """In a thread; a failure is shown, and `done` when there is none."""

        def guarded() -> None:
            try:
                work()
            except (CommandError, OSError, EOFError) as error:
                text = error.message if isinstance(error, CommandError) else str(error)
                lost = isinstance(error, ConnectionFailed) or not isinstance(error, CommandError)
                self.post_message(Said(text or "the daemon has closed the connection", lost=lost))
            else:
                if done:
                    self.post_message(Said(done, failed=False))

        self.run_worker(guarded, thread=True, group=group, exclusive=False, exit_on_error=False)

    def _listen(self) -> None:
        self._events = self.source.events()
        self._events.follow(
            lambda event: self.post_message(Happened()), lambda reason: self.post_message(Happened(over=True))
        )

    def on_happened(self, message: Happened) -> None:
        """Something changed: look again soon, once for all that comes in the meantime."""
        if not self._up:
            return
        if message.over:
            self.set_timer(1.0, self._listen)
        if not self._due:
            self._due = True
            self.set_timer(_SETTLE_S, self._settle)

    def _settle(self) -> None:
        self._due = False
        self.refresh_all()

    def on_listed(self, message: Listed) -> None:
        """Put the rows in, and the cursor back where it was."""
        if not (self._up and self.query(f"#{message.kind}-table")):
            return
        table = self._table(message.kind)
        new = {row.key: row for row in message.rows}
        old = self._rows[message.kind]
        self._rows[message.kind] = new
        if [*new] == [*old]:
            columns = list(table.columns)
            for key, row in new.items():
                if row.cells != old[key].cells:
                    for column, cell in zip(columns, row.cells, strict=True):
                        table.update_cell(key, column, _plain(cell), update_width=True)
        else:
            here = table.cursor_row
            before = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value if old else None
            table.clear()
            for row in message.rows:
                table.add_row(*map(_plain, row.cells), key=row.key)
            if new:
                place = [*new].index(before) if before in new else min(here, len(new) - 1)
                table.move_cursor(row=place, animate=False)
        said = self.query_one("#said", Static)
        if said.has_class("lost"):
            self.on_said(Said(""))

    def on_said(self, message: Said) -> None:
        """Show a line above the keys, or take it away."""
        if not (self._up and self.query("#said")):
            return
        said = self.query_one("#said", Static)
        said.update(message.text)
        said.set_class(bool(message.text), "shown")
        said.set_class(message.failed and bool(message.text), "failed")
        said.set_class(message.lost, "lost")
        if message.text and not message.failed:
            self.set_timer(4.0, lambda: self.on_said(Said("")) if said.content == message.text else None)

    # --- what can be done ---

    def action_tab(self, kind: str) -> None:
        """Show another table."""
        self.query_one("#kinds", TabbedContent).active = kind

    def _act(self, verb: str) -> None:
        row = self.selected()
        if row is not None:
            self._do(lambda: self.source.act(verb, row.key), "act", f"{verb} {row.name}: done")

    def action_turn(self) -> None:
        """Stop what runs, start what does not."""
        row = self.selected()
        if row is not None:
            self._act("stop" if row.state in ("running", "restarting", "paused") else "start")

    def action_restart(self) -> None:
        """Restart the container."""
        self._act("restart")

    def action_kill(self) -> None:
        """Kill the container, once that was confirmed."""
        row = self.selected()
        if row is not None:
            self._confirmed(
                f"Kill {row.name}?", lambda: self.source.act("kill", row.key), f"killed {row.name}"
            )

    def action_pause(self) -> None:
        """Pause the container, or let it go on."""
        row = self.selected()
        if row is not None:
            self._act("unpause" if row.state == "paused" else "pause")

    def action_all(self) -> None:
        """Stopped containers too, or only those that run."""
        self._everything = not self._everything
        self.refresh_shown()

    def action_remove(self) -> None:
        """Remove the object, once that was confirmed."""
        row, kind = self.selected(), self.kind
        if row is None:
            return
        running = ", which is running" if row.state == "running" else ""
        question = f"Remove {kind[:-1]} {row.name}{running}?"
        self._confirmed(question, lambda: self.source.remove(kind, row.key), f"removed {row.name}")

    def _confirmed(self, question: str, work: Callable[[], None], done: str) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._do(work, "act", done)

        self.push_screen(Confirm(question), answered)

    def action_inspect(self) -> None:
        """All that is known of the object."""
        row, kind = self.selected(), self.kind
        if row is None:
            return

        def work() -> None:
            shape: Any = self.source.inspect(kind, row.key)
            self.call_from_thread(self.push_screen, Details(f"{kind[:-1].capitalize()} {row.name}", shape))

        self._do(work, "inspect")

    def on_data_table_row_selected(self) -> None:
        """Enter on a row."""
        self.action_inspect()

    def action_logs(self) -> None:
        """What the container prints."""
        row = self.selected()
        if row is not None:
            self.push_screen(Logs(self.source, row.key, row.name))

    def action_figures(self) -> None:
        """What the container uses."""
        row = self.selected()
        if row is not None:
            self.push_screen(Figures(self.source, row.key, row.name))

    def action_shell(self) -> None:
        """A shell in the container, on this very terminal; the tables come back when it ends."""
        row = self.selected()
        if row is None:
            return
        if row.state != "running":
            self.on_said(Said(f"{row.name} is not running: start it first (s)"))
            return
        try:
            with self.suspend():
                code = subprocess.run(shell_words(self._options, row.key), env=_environment(), check=False)
        except SuspendNotSupported:
            self.on_said(Said("a shell needs this terminal, which cannot be given away here"))
            return
        if code.returncode in (126, 127):
            self.on_said(Said(f"{row.name} has no shell that could be started"))


def _plain(cell: str) -> Any:
    """A cell whose text means nothing but itself."""
    from rich.text import Text

    return Text(cell)


def shell_words(options: tuple[str, ...], container: str) -> list[str]:
    """`sampan exec` with the best shell that the container has."""
    best = "command -v bash >/dev/null && exec bash || exec sh"
    return [sys.executable, "-m", "sampan.cli", *options, "exec", "-it", container, "sh", "-c", best]


def _environment() -> dict[str, str]:
    here = os.path.abspath(__file__)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(here))))
    return {**os.environ, "PYTHONPATH": search_path(root)}
