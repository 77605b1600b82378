"""Tests of the client: its programs in a world of their own, and the whole against real clusters."""
