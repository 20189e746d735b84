"""One module a group of endpoints; each offers its table as `routes`."""
