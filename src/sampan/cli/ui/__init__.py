"""`sampan ui`: the engine on the whole terminal, by textual. It talks HTTP to the daemon as commands do.

Modules: `app` the screen with the tables, `tables` what stands in them, `logs`, `figures`, `details` and
`dialogs` the screens above it, `source` the requests. Loaded by `sampan ui` alone.
"""
