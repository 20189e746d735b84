"""`sampan ui`: the engine on the whole terminal, with textual. It talks HTTP to the daemon as all commands do.

Modules: `app` the screen with the tables, `tables` what stands in them, `logs`, `figures`, `details` and
`dialogs` the screens above it, `source` the requests, `graphs` lines of blocks. Loaded by `sampan ui` alone.
"""
