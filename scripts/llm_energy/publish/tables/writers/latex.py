r"""Set a table as LaTeX for a paper, with the packages booktabs, siunitx and graphicx.

Numbers stand in siunitx's S columns, aligned at the decimal point, their intervals behind them. A
column whose text is the same in all rows is told below the table instead. A table longer than a
page is cut into several, and so is one that is so wide that it could not be read on one line: each
part has the columns of names and some of the others. Where the names alone take most of a line,
they stand in the first part, and numbers of rows in all. What is a little wider is scaled down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from llm_energy.publish.tables.writers.table import Column, Line, Sheet

LINES_A_PAGE = 40
PROSE_WIDTH, PROSE_LETTERS = "0.42\\linewidth", 36  # and how many letters one line of it holds
# In letters: what a column takes beside its own, and what a line takes that is still legible, at
# three quarters of its size, in the 345 pt of an article.
BETWEEN, WIDEST, LONGEST_NAME = 3, 98, 40
NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?: ± (\d+)(?:\.(\d+))?)?")
ROW = Column("row", "row")
PREAMBLE = "\\usepackage{booktabs,siunitx,graphicx}"
# Letters that pdflatex sets with any font encoding; a character that is in neither is named.
LETTERS = frozenset("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ")
SIGNS = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "`": "\\textasciigrave{}",
    "±": "$\\pm$",
    "\u00d7": "$\\times$",
    "·": "$\\cdot$",
    "µ": "$\\mu$",
    "μ": "$\\mu$",
    "°": "$^{\\circ}$",
    "≈": "$\\approx$",
    "≤": "$\\leq$",
    "≥": "$\\geq$",
    "→": "$\\to$",
    "\u2013": "--",
    "\u2014": "---",
    "\u2018": "{}`",
    "\u2019": "'",
    "\u201c": "{}``",
    "\u201d": "''",
    "…": "\\ldots{}",
    "-": "-{}",  # two hyphens of a cell's id are no dash
    "*": "{*}",  # what begins a row is no option of the line break before it
    "[": "{[}",
    "]": "{]}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def to_latex(sheet: Sheet) -> str:
    """Set a table as LaTeX; one without a row becomes a paragraph that says so."""
    head = f"% {_escape(sheet.title)}; needs {PREAMBLE}"
    if not sheet.lines:
        return f"{head}\n\\par\\noindent {_escape(f'{sheet.title}: {sheet.label}')}\\par\n"
    sheet, prefix = _without_prefix(sheet)
    columns, shared = _shared(sheet)
    shared += prefix
    if _room(names := _names(columns, sheet.lines), sheet.lines) > WIDEST / 2 and columns != names:
        sheet = _numbered(sheet)
        columns = [ROW, *columns]
    pages = [(page, part) for page in _pages(sheet) for part in _parts(columns, sheet.lines)]
    parts = []
    for number, (page, shown) in enumerate(pages, 1):
        setting = [_preamble(shown, sheet.lines), _heads(shown)]
        below = [sheet.explanation, *shared] if number == 1 else []
        place = f"{page.title} ({number} of {len(pages)})" if len(pages) > 1 else page.title
        mark = f"tab:{page.name}" + (f"-{number}" if number > 1 else "")
        parts += [
            "\\begin{table}" + ("[p]" if len(pages) > 1 else ""),
            "\\centering",
            f"\\caption{{{_escape(f'{place}. {page.label}')}}}",
            f"\\label{{{mark}}}",
            "\\medskip\\footnotesize\\sisetup{group-digits=none}",
            *_scaled([*setting, *_body(page, shown), "\\bottomrule", "\\end{tabular}"]),
            *_notes(page, below),
            "\\end{table}",
            *(["\\clearpage"] if len(pages) > 1 else []),
        ]
    return "\n".join([head, *parts]) + "\n"


def _without_prefix(sheet: Sheet) -> tuple[Sheet, list[str]]:
    """Take off the cells' names what all of them begin with (model--backend--), and tell it."""
    names = [c.name for c in sheet.columns if c.name in ("cell", "reference", "other")]
    cells = [line.cells[name] for line in sheet.lines for name in names]
    ends = [match.end() for match in re.finditer("--", cells[0])] if len(set(cells)) > 1 else []
    shared = [cells[0][:end] for end in ends if all(c.startswith(cells[0][:end]) for c in cells)]
    if not shared:
        return sheet, []
    prefix = shared[-1]

    def shorter(line: Line) -> Line:
        cut = {name: line.cells[name].removeprefix(prefix) for name in names}
        return replace(line, cells=line.cells | cut)

    blocks = tuple((title, tuple(map(shorter, lines))) for title, lines in sheet.blocks)
    return replace(sheet, blocks=blocks), [f"Every cell's name begins with {prefix}"]


def _shared(sheet: Sheet) -> tuple[list[Column], list[str]]:
    """Return the columns of the page, and as sentences those whose text all rows share."""
    columns = [column for column in sheet.columns if column.head is not None]
    if len(sheet.lines) < 2:
        return columns, []
    values = {c.name: {line.cells[c.name] for line in sheet.lines} for c in columns}
    alike = [c for c in columns if c.kind == "text" and len(values[c.name]) == 1]
    if len(alike) == len([c for c in columns if c.kind == "text"]):
        alike = alike[:-1]  # a row keeps a name
    told = [f"{column.head}: {next(iter(values[column.name]))}." for column in alike]
    return [column for column in columns if column not in alike], told


def _pages(sheet: Sheet) -> list[Sheet]:
    """Cut a long table into pages of so many lines, each with the blocks' titles."""
    prose = [column.name for column in sheet.columns if column.kind == "prose"]
    cut: list[dict[str, list[Line]]] = []
    room = 0
    for title, lines in sheet.blocks:
        for line in lines:
            height = max([1, *(-(-len(line.cells[name]) // PROSE_LETTERS) for name in prose)])
            height += title not in (cut[-1] if cut else ())
            if height > room:
                cut.append({})
                room = LINES_A_PAGE
            room -= height
            cut[-1].setdefault(title, []).append(line)
    pages = [tuple((title, tuple(lines)) for title, lines in page.items()) for page in cut]
    return [replace(sheet, explanation="", blocks=blocks) for blocks in pages]


def _parts(columns: Sequence[Column], lines: Sequence[Line]) -> list[list[Column]]:
    """Cut a wide table into parts that can be read; each has all columns of names."""
    widths = {column.name: _letters(column, lines) + BETWEEN for column in columns}
    names = _names(columns, lines)
    parts: list[list[Column]] = []
    room = 0
    others = [one for one in columns if one not in names]
    if columns[0] == ROW:
        parts.append(names[1:])
        names = [ROW]
    taken = sum(widths[column.name] for column in names)
    for column in others:
        if not parts or widths[column.name] > room:
            parts.append([])
            room = WIDEST - taken
        room -= widths[column.name]
        parts[-1].append(column)
    return [[one for one in columns if one in names or one in part] for part in parts or [[]]]


def _names(columns: Sequence[Column], lines: Sequence[Line]) -> list[Column]:
    """Return the columns that name a row."""
    short = [c for c in columns if c.kind == "text" and _room([c], lines) <= LONGEST_NAME]
    return short or list(columns[:1])


def _room(columns: Sequence[Column], lines: Sequence[Line]) -> int:
    """Return how many letters columns take in a line."""
    return sum(_letters(column, lines) + BETWEEN for column in columns)


def _numbered(sheet: Sheet) -> Sheet:
    """Number the rows, by which one is found in every part."""
    numbers = count(1)
    blocks = tuple(
        (
            title,
            tuple(
                replace(line, cells=line.cells | {ROW.name: str(next(numbers))}) for line in lines
            ),
        )
        for title, lines in sheet.blocks
    )
    return replace(sheet, blocks=blocks)


def _letters(column: Column, lines: Sequence[Line]) -> int:
    """Return about how many letters wide a column is set."""
    if column.kind == "prose":
        return PROSE_LETTERS
    head = max(map(len, _packed(column.head.split(" "))))
    return max(head, *(len(line.cells[column.name]) for line in lines))


def _preamble(columns: Sequence[Column], lines: Sequence[Line]) -> str:
    """Begin a tabular whose number columns have the room that their widest parts need."""
    kinds = []
    for column in columns:
        if column.kind == "number":
            kinds.append(_number_column([line.cells[column.name] for line in lines]))
        elif column.kind == "prose":
            kinds.append(f">{{\\raggedright\\arraybackslash}}p{{{PROSE_WIDTH}}}")
        else:
            kinds.append("l")
    return f"\\begin{{tabular}}{{@{{}}{''.join(kinds)}@{{}}}}"


def _number_column(cells: Sequence[str]) -> str:
    """Return an S column for these cells: digits before, after, and of the interval."""
    found = [match for cell in cells if (match := NUMBER.fullmatch(cell))]
    if not found:
        return "r"
    sign = "-" if any(match[1] for match in found) else ""
    before = max(len(match[2]) for match in found)
    after = max(len(match[3] or "") for match in found)
    halves = [len(match[4]) for match in found if match[4]]
    if not halves:
        return f"S[table-format={sign}{before}.{after}]"
    # One decimal more than there is: siunitx leaves no space between a full width and the sign.
    form = f"{sign}{before}.{after + 1}({max(halves)}.{after + 1})"
    return f"S[table-format={form},separate-uncertainty=true]"


def _heads(columns: Sequence[Column]) -> str:
    """Set the heads, broken at their spaces so that numbers and not words make the width."""
    cells = []
    for column in columns:
        words = _escape(column.head).split(" ")
        side = "" if column.kind == "number" else "[l]"
        broken = " \\\\ ".join(_packed(words))
        head = words[0] if len(words) == 1 else f"\\shortstack{side}{{{broken}}}"
        cells.append(f"{{{head}}}" if column.kind == "number" else head)
    return "\\toprule\n" + " & ".join(cells) + " \\\\"


def _packed(words: list[str]) -> list[str]:
    """Join short words, so that a head does not get a line for each."""
    lines = [words[0]]
    for word in words[1:]:
        joined = f"{lines[-1]} {word}"
        lines[-1:] = [joined] if len(joined) <= 9 else [lines[-1], word]
    return lines


def _body(page: Sheet, columns: Sequence[Column]) -> list[str]:
    rows = []
    # Footnote marks stand with the last name, just before the numbers.
    marked = next((k for k, c in enumerate(columns) if c.kind == "number"), 1) - 1
    for title, lines in page.blocks:
        rows.append("\\midrule")
        span = f"\\multicolumn{{{len(columns)}}}{{@{{}}l}}"
        rows.append(f"{span}{{\\textbf{{{_escape(title)}}}}} \\\\")
        for line in lines:
            cells = [_cell(column, line.cells[column.name]) for column in columns]
            if line.notes:
                cells[marked] += f"\\textsuperscript{{{','.join(map(str, line.notes))}}}"
            rows.append(" & ".join(cells) + " \\\\")
    return rows


def _cell(column: Column, text: str) -> str:
    if column.kind != "number":
        return _escape(text)
    if NUMBER.fullmatch(text):
        return text.replace("±", "\\pm")
    return f"{{{_escape(text)}}}"


def _scaled(tabular: list[str]) -> list[str]:
    """Scale what is wider than the line down to it, and leave the rest as it is."""
    return [
        "\\sbox0{%",
        *tabular,
        "}%",
        "\\ifdim\\wd0>\\linewidth \\resizebox{\\linewidth}{!}{\\usebox0}\\else \\usebox0 \\fi",
    ]


def _notes(page: Sheet, below: Sequence[str]) -> list[str]:
    """Set below a table what it means and the footnotes that its rows have."""
    used = sorted({mark for line in page.lines for mark in line.notes})
    texts = [_escape(text) for text in (" ".join(below),) if text]
    texts += [f"\\textsuperscript{{{k}}} {_escape(page.notes[k - 1])}" for k in used]
    if not texts:
        return []
    return ["\\par\\medskip\\raggedright\\scriptsize", *(f"{text}\\par" for text in texts)]


def _escape(text: str) -> str:
    """Keep text from being read as LaTeX commands, or as a character that it cannot set.

    >>> _escape("50 % of a--b \N{SNOWMAN}")
    '50 \\\\% of a-{}-{}b {[}U+2603{]}'
    """
    return " ".join(text.split()).translate(_ESCAPED)


class _Escaped(dict[int, str]):
    """What stands for a character, by its code; found out when a text first has it."""

    def __missing__(self, code: int) -> str:
        mark = chr(code)
        if mark in SIGNS:
            found = SIGNS[mark]
        elif " " <= mark <= "~" or mark in LETTERS:
            found = mark
        else:
            found = f"{{[}}U+{code:04X}{{]}}"
        self[code] = found
        return found


_ESCAPED = _Escaped()
