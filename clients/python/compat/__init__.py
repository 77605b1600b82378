"""The original's contract, held against rmom: see README.md."""
