"""What was measured: kept in a file after each round, so that nothing is lost, and read from there again."""

import json
import os
import pathlib


class Results:
    """Of each round, what each run printed and cost."""

    def __init__(self, about, rounds=(), failures=()):
        self.about = about
        # For each round: of each scenario and system what a run found.
        self.rounds = list(rounds)
        # What went wrong: round, scenario, system, and what was said.
        self.failures = list(failures)

    @classmethod
    def load(cls, path):
        return cls(**json.loads(pathlib.Path(path).read_text()))

    def keep(self, path):
        """In whole or not at all."""
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps({"about": self.about, "rounds": self.rounds, "failures": self.failures}, indent=1))
        os.replace(new, path)

    def values(self, of):
        """What `of` finds in each round; of those rounds that have it."""
        found = []
        for number in self.rounds:
            try:
                found.append(of(number))
            except KeyError:
                continue
        return found

    def figures(self, scenario, system, path):
        return self.values(lambda one: figure(one, scenario, system, path))


def figure(one, scenario, system, path):
    """A number of a round."""
    value = one[scenario][system]["figures"]
    for part in path.split("."):
        value = value[part]
    if value is None:
        raise KeyError(path)
    return value
