"""Every error that diffbio raises on purpose; each message says what was given, what was wanted and what to do.

All derive from `DiffbioError` and from the builtin that a caller would expect to catch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DiffbioError(Exception):
    """Base of all errors that diffbio raises on purpose."""


class ConfigError(DiffbioError, ValueError):
    """A configuration field is out of its range, of the wrong type or unknown."""


class ContractError(DiffbioError, ValueError):
    """An array has another rank, size or dtype than the operator's signature says."""


class MissingKeyError(DiffbioError, KeyError):
    """A data key that an operator or a loss reads is not there."""

    def __str__(self) -> str:
        """Return the message as written; `KeyError` would quote it."""
        return str(self.args[0])


class ClobberedKeyError(DiffbioError, ValueError):
    """An operator would overwrite a data key that it does not read."""


class MissingRandomnessError(DiffbioError, ValueError):
    """An operator that draws random numbers was given no `rngs` or no `key`."""


class WiringError(DiffbioError, ValueError):
    """The keys that the steps of a pipeline read and write do not fit together."""


class NonFiniteError(DiffbioError, FloatingPointError):
    """Training met NaN or infinity; the message names the stage."""


class RegistryError(DiffbioError, LookupError):
    """A name is not registered, or a plugin that declares it could not be used."""


class StorageError(DiffbioError, OSError):
    """A saved pipeline can't be written, read or rebuilt here."""


class DataError(DiffbioError, ValueError):
    """A file or a table holds something that can't be used."""


class MissingExtraError(DiffbioError, ImportError):
    """An optional library is not installed; the message gives the command that installs it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known names closest to `name`, or an empty string.

    >>> nearest("cuonts", ["counts", "labels"])
    " (did you mean 'counts'?)"
    """
    close = difflib.get_close_matches(name, list(known), n=3)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


def listed(names: Iterable[str]) -> str:
    """Return names as an English list for a message, or `none`.

    >>> listed(["counts", "labels"])
    "'counts', 'labels'"
    """
    return ", ".join(repr(name) for name in names) or "none"
