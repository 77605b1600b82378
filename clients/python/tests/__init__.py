"""Tests of the client: its programs in a simulated world, and the whole with real clusters."""
