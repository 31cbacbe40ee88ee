"""A fixed part and slopes, from a few measurements: least squares."""

from collections.abc import Sequence


def fit(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """The factors with which ``rows`` come closest to ``values``, relative to each value: a large one counts
    for no more than a small one. Raises ValueError where the rows do not tell the factors apart."""
    scaled = [[x / value for x in row] for row, value in zip(rows, values, strict=True)]
    size = len(rows[0])
    # The normal equations, with what they are to be equal to in the last column.
    table = [
        [sum(row[i] * row[j] for row in scaled) for j in range(size)] + [sum(row[i] for row in scaled)]
        for i in range(size)
    ]
    largest = max(abs(each) for row in table for each in row[:size])
    for column in range(size):
        pivot = max(range(column, size), key=lambda at: abs(table[at][column]))
        table[column], table[pivot] = table[pivot], table[column]
        if abs(table[column][column]) < 1e-9 * largest:
            raise ValueError("these measurements do not tell the factors apart")
        for at in range(size):
            if at != column:
                factor = table[at][column] / table[column][column]
                table[at] = [x - factor * y for x, y in zip(table[at], table[column], strict=True)]
    return [table[at][size] / table[at][at] for at in range(size)]
