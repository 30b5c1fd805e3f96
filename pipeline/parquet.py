"""A Parquet table: read a batch of rows at a time, and written from Arrow streams."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import IO, Any, cast

from pipeline.errors import TableError
from pipeline.records import Chunk, Place, text

_BUFFER = 1 << 18
_GROUP = 1 << 13
"""Rows of a row group in the files that are written."""


def open_file(stream: IO[bytes], name: str) -> Any:
    """A `pyarrow.parquet.ParquetFile` of a stream that can be gone back in.

    Raises:
        TableError: it is not a Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(stream, buffer_size=_BUFFER)
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError(f"{name}: not a readable Parquet file ({error})") from error


def extended_schema(schema: Any, names: Sequence[str], numbers: Collection[str]) -> Any:
    """An Arrow schema with more columns: those among `numbers` of 64-bit floats, others of text."""
    import pyarrow as pa

    for column in names:
        kind = pa.float64() if column in numbers else pa.string()
        schema = schema.append(pa.field(column, kind))
    return schema


def chunks(
    table: Any, name: str, size: int, chunk: int, read: Callable[[int], None], start: Place
) -> Iterator[Chunk]:
    """The rows of a `ParquetFile` from a place on, in batches of at most `chunk` rows.

    Row groups are read one at a time; `read` is told their share of the file's `size` in bytes.

    Raises:
        TableError: a page of it is damaged.
    """
    import pyarrow as pa

    total, count, told = table.metadata.num_rows, 0, 0
    try:
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if count + rows <= start.rows:
                count += rows
                continue
            for batch in table.iter_batches(chunk, row_groups=[group], use_threads=False):
                before, count = Place(count), count + len(batch)
                if count > start.rows:
                    yield Chunk(batch, before, Place(count))
                read(size * count // total - told)
                told = size * count // total
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{name}: a page of it is damaged ({error})") from error


def texts(chunk: Chunk, name: str, column: str) -> list[str]:
    """The texts of a column of a chunk; what is not text is empty, and so is a lacking column.

    Of several columns of that name, the first counts.

    Raises:
        TableError: a text is not UTF-8.
    """
    if column not in chunk.data.schema.names:
        return [""] * len(chunk.data)
    values = chunk.data.column(chunk.data.schema.names.index(column))
    try:
        return list(map(text, values.to_pylist()))
    except UnicodeDecodeError as error:
        row = chunk.start.rows + _first_undecodable(values) + 1
        raise TableError(
            f"{name}: row {row} of column {column!r} is not UTF-8; write it anew from its source"
        ) from error


def _first_undecodable(values: Any) -> int:
    for place, value in enumerate(values):
        try:
            value.as_py()
        except UnicodeDecodeError:
            return place
    return 0


def arrow_stream(batch: Any, cells: dict[str, list[Any]], schema: Any) -> bytes:
    """An extended batch as an Arrow stream of its own, which a Parquet file is made of later."""
    import pyarrow as pa

    names = schema.names[batch.num_columns :]
    arrays = [pa.array(cells[name], schema.field(name).type) for name in names]
    full = pa.RecordBatch.from_arrays([*batch.columns, *arrays], schema=schema)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        writer.write_batch(full)
    return cast(bytes, sink.getvalue().to_pybytes())


def write(schema: Any, part: IO[bytes], sink: IO[bytes]) -> None:
    """Make a Parquet file of Arrow streams; its row groups do not depend on theirs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(sink, schema) as writer:
        batches, rows = [], 0
        for batch in _batches(part):
            batches.append(batch)
            rows += len(batch)
            if rows >= _GROUP:
                table = pa.Table.from_batches(batches, schema)
                whole = rows - rows % _GROUP
                writer.write_table(table.slice(0, whole), _GROUP)
                batches, rows = table.slice(whole).to_batches(), rows - whole
        if rows:
            writer.write_table(pa.Table.from_batches(batches, schema), _GROUP)


def _batches(part: IO[bytes]) -> Iterator[Any]:
    import pyarrow as pa

    end = part.seek(0, 2)
    part.seek(0)
    while part.tell() < end:
        with pa.ipc.open_stream(part) as stream:
            yield from stream
