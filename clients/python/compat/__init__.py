"""Tests of the original's contract against rmom: see README.md."""
