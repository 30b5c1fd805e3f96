"""The failures that a user can mend. Each message is one line that names the remedy."""


class ForewarnError(Exception):
    """Base of all errors that the command line reports without a traceback."""


class TaxonomyError(ForewarnError):
    """A taxonomy file is missing, malformed or contradicts itself."""


class TableError(ForewarnError):
    """A table (CSV, TSV, JSON Lines, Parquet) cannot be read or written."""


class CorpusError(ForewarnError):
    """A corpus was read but cannot be trained or scored on."""


class ModelError(ForewarnError):
    """A model directory is missing, damaged, foreign or of a newer schema."""


class RecordError(ForewarnError):
    """A run record cannot be found or read, or was not logged."""


class InterruptedRunError(TableError):
    """A run on a table cannot go on now, for no fault of its input: no space, a killed worker."""


class ClusterError(ForewarnError):
    """A Dask scheduler cannot be reached, or its workers cannot do the work."""
