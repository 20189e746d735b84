"""The engine in the database: its id, and a row for each container: unique name, one document."""

from __future__ import annotations

import json
import sqlite3
import uuid

from sampan.database import Database
from sampan.engine.errors import NameInUse
from sampan.engine.model import Container
from sampan.oci.records import decode, encode

_SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    document TEXT NOT NULL
) WITHOUT ROWID;
"""


class ContainerStore:
    """Load, save and forget containers. Every call is one short transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.script(_SCHEMA)

    def load(self) -> list[Container]:
        """Every container, oldest first."""
        rows = self._database.execute("SELECT document FROM containers")
        containers = [decode(Container, json.loads(document)) for (document,) in rows]
        return sorted(containers, key=lambda container: container.created_at_ns)

    def insert(self, container: Container) -> None:
        """Record a new container.

        Raises:
            NameInUse: another container has this name.
        """
        try:
            self._database.execute(
                "INSERT INTO containers (id, name, document) VALUES (?, ?, ?)",
                (container.id, container.name, json.dumps(encode(container))),
            )
        except sqlite3.IntegrityError as error:
            raise self._name_in_use(container.name) from error

    def save(self, container: Container) -> None:
        """Record what has changed, its name included; raises `NameInUse` as `insert` does."""
        try:
            self._database.execute(
                "UPDATE containers SET name = ?, document = ? WHERE id = ?",
                (container.name, json.dumps(encode(container)), container.id),
            )
        except sqlite3.IntegrityError as error:
            raise self._name_in_use(container.name) from error

    def delete(self, container_id: str) -> None:
        """Forget a container; its name is free from here on."""
        self._database.execute("DELETE FROM containers WHERE id = ?", (container_id,))

    def _name_in_use(self, name: str) -> NameInUse:
        rows = self._database.execute("SELECT id FROM containers WHERE name = ?", (name,))
        return NameInUse(name, rows[0][0] if rows else "")


def engine_id(database: Database) -> str:
    """A random UUID, the same for the life of the data root."""
    database.script("CREATE TABLE IF NOT EXISTS engine (id TEXT NOT NULL);")
    rows = database.execute("SELECT id FROM engine")
    if not rows:
        database.execute("INSERT INTO engine (id) VALUES (?)", (str(uuid.uuid4()),))
        rows = database.execute("SELECT id FROM engine")
    return str(rows[0][0])
