"""Turns medians into a table, ratios first, and into a plot."""

import dataclasses
import html

REFERENCE = "rmom on PostgreSQL"
BEGIN = "<!-- side by side: begin -->"
END = "<!-- side by side: end -->"


@dataclasses.dataclass
class Table:
    """A figure of all systems."""

    title: str
    more_is_better: bool
    # Of each system: the figure, CPU seconds of its servers, and their peak memory in bytes.
    rows: dict

    def ratio(self, system):
        """How many times better the reference is."""
        own, other = self.rows[REFERENCE][0], self.rows[system][0]
        return own / other if self.more_is_better else other / own


def number(value):
    """With as many digits as make sense."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(tables, about):
    """A table for each figure, and how it was measured."""
    lines = []
    for table in tables:
        lines += [
            f"**{table.title}**",
            "",
            f"| | {REFERENCE} is better by | figure | CPU of servers | peak memory |",
            "| --- | --- | --- | --- | --- |",
        ]
        for system, (value, cpu, peak) in table.rows.items():
            lines.append(
                f"| {system} | {table.ratio(system):.2f} times | {number(value)} | {cpu:.1f} s | {peak / 2**20:.0f} MiB |"
            )
        lines.append("")
    return "\n".join([*lines, " ".join(about), ""])


def svg(tables):
    """Bars for each figure: the longer, the better; the best is as wide as the plot."""
    bar, gap, left, width = 16, 4, 220, 420
    parts, y = [], 10
    for table in tables:
        y += 18
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{html.escape(table.title)}</text>')
        y += 8
        goodness = {system: row[0] if table.more_is_better else 1 / row[0] for system, row in table.rows.items()}
        best = max(goodness.values())
        for system, row in table.rows.items():
            length = max(1, goodness[system] / best * width)
            colour = "#c2410c" if system.startswith("rmom") else "#94a3b8" if system.startswith("limit") else "#475569"
            parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{html.escape(system)}</text>')
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" fill="{colour}"/>')
            parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 12}">{number(row[0])}</text>')
            y += bar + gap
        y += 8
    size = f'width="{left + width + 90}" height="{y + 10}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])


def write(docs, text, tables):
    """Puts both where the documentation has a place for them."""
    page = docs / "benchmarks.md"
    old = page.read_text()
    before, rest = old.split(BEGIN)
    _, after = rest.split(END)
    plot = "![The same as bars](images/benchmarks.svg)\n"
    page.write_text(f"{before}{BEGIN}\n{text}\n{plot}{END}{after}")
    (docs / "images" / "benchmarks.svg").write_text(svg(tables))
