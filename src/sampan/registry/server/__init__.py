"""A registry, `sampan registry serve`: the server's side of the OCI distribution specification 1.1.

`faults` and `names` are the protocol's words, `manifests` its documents; `catalog` (SQLite), `blobs` and
`uploads` (files) keep what was pushed, `store` ties them together, `collector` takes away what nobody
needs; `access` and `tokens` say who may do what; `routing`, `handlers` and `page` are the HTTP side;
`mirror` makes a pull-through cache of it; `service` is the composition root.
"""
