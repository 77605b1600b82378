"""The environment of the Python tests: rmom's own programs, as processes. Independent of the client package."""
