"""Tables as text, for terminals."""

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[object]], *, left: Collection[int] = (0,)) -> str:
    """Rows as lines, the first one the header, each column as wide as it must be.

    left: the columns that stand on the left, such as names; the others, numbers, on the right.
        Integers get commas between thousands.
    """
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join("  ".join(
        cell.ljust(width) if i in left else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in texts)
