"""What the Python tests run against: rmom's own programs, as processes. Knows nothing of the client package."""
