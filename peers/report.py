"""Turns what was measured into tables, ratios first, and into a plot."""

import html
import statistics

import aims
from results import figure
from scenarios import SCENARIOS, STORES_NOTHING, WARM_UP

HEAD = """# rmom and other systems, side by side

`just bench-peers` generates this page.
[The page on benchmarks](../benchmarks.md#other-systems) explains the measurements.

"""


class Table:
    """A figure of all systems of a scenario."""

    def __init__(self, results, name, shown):
        self.title = f"{SCENARIOS[name].title}: {shown.title}"
        self.more_is_better = shown.more_is_better
        self.rows = []
        systems = list(SCENARIOS[name].runs)
        for system in systems:
            values = results.figures(name, system, shown.path)
            if values:
                self.rows.append(Row(results, name, shown, systems[0], system, values))

    @property
    def reference(self):
        return self.rows[0].reference


class Row:
    """Of one system, the medians of all rounds."""

    def __init__(self, results, name, shown, reference, system, values):
        self.system = system
        self.reference = reference
        self.value = statistics.median(values)
        self.spread = (min(values), max(values))

        def ratio(one):
            own, other = figure(one, name, reference, shown.path), figure(one, name, system, shown.path)
            if not (own and other):
                raise KeyError(system)
            return own / other if shown.more_is_better else other / own

        def cost(what):
            found = results.values(lambda one: one[name][system][what])
            return statistics.median(found) if found else None

        ratios = results.values(ratio)
        self.ratio = statistics.median(ratios) if ratios else None
        self.cpu, self.peak = cost("cpu"), cost("peak")


def number(value):
    """With as many digits as make sense."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def acknowledges(system):
    """When a system acknowledges."""
    return "**nothing stored**" if system in STORES_NOTHING else "when synced"


def tables_of(results):
    """Those that there is something in."""
    all_of_them = [Table(results, name, shown) for name in SCENARIOS for shown in SCENARIOS[name].figures]
    return [table for table in all_of_them if table.rows]


def markdown(results):
    """How far the aims are reached, a table for each figure, and how it was measured."""
    lines = ["## Aims", "", *aims.table(results), "", "## All figures", ""]
    for table in tables_of(results):
        lines += [
            f"**{table.title}**",
            "",
            f"| | {table.reference} is better by | figure | of all rounds | CPU of servers | peak memory | acknowledged |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for row in table.rows:
            ratio = "–" if row.ratio is None else f"{row.ratio:.2f} times"
            spread = " to ".join(number(value) for value in row.spread)
            cpu = "–" if row.cpu is None else f"{row.cpu:.1f} s"
            peak = "–" if row.peak is None else f"{row.peak / 2**20:.0f} MiB"
            cells = [row.system, ratio, number(row.value), spread, cpu, peak, acknowledges(row.system)]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, *circumstances(results)])


def circumstances(results):
    """Settings, and what went wrong."""
    about = results.about
    lines = [
        f"{len(results.rounds)} rounds on {about['date']}, each run {about['seconds']:g} s after {WARM_UP} s of warm-up, "
        f"on {about['machine']}.",
        "",
        *(f"- {server}: {settings}." for server, settings in about["servers"].items()),
        "",
    ]
    if results.failures:
        lines += [f"{len(results.failures)} runs failed, and are in no figure:", ""]
        for failure in results.failures:
            said = " ".join(failure["error"].split())
            lines.append(f"- round {failure['round']}, {failure['scenario']}, {failure['system']}: `{said}`")
        lines.append("")
    return lines


def svg(tables):
    """Bars for each figure: the longer, the better; the best is as wide as the plot."""
    bar, gap, left, width = 16, 4, 330, 420
    parts, y = [], 10
    for table in tables:
        y += 18
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{html.escape(table.title)}</text>')
        y += 8
        good = [row.value if table.more_is_better else 1 / max(row.value, 1e-9) for row in table.rows]
        for row, goodness in zip(table.rows, good):
            length = max(1, goodness / max(good) * width)
            ours, bound = row.system.startswith("rmom"), row.system.startswith("limit")
            colour = "#c2410c" if ours else "#94a3b8" if bound else "#475569"
            note = number(row.value) + (" (nothing stored)" if row.system in STORES_NOTHING else "")
            parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{html.escape(row.system)}</text>')
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" fill="{colour}"/>')
            parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 12}">{note}</text>')
            y += bar + gap
        y += 8
    size = f'width="{left + width + 190}" height="{y + 10}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])


def write(docs, text, results):
    """Writes the page of tables and the plot into the documentation."""
    page = docs / "benchmarks" / "side-by-side.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(f"{HEAD}{text}\n![All figures as bars](../images/benchmarks.svg)\n")
    (docs / "images" / "benchmarks.svg").write_text(svg(tables_of(results)))
