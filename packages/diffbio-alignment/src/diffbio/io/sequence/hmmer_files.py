"""Profile HMMs in HMMER's text format, read and written.

The format has a header of tagged lines, and for each node three lines of negative natural logarithms with five
decimals, `*` for a probability of 0: match emissions, insert emissions, transitions. Its reader is a few lines here,
for no library reads it without the whole of HMMER.

References:
    HMMER User's Guide, chapter on file formats: HMMER3/f, and HMMER3/e, which lacks the line `MM` and its column.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from diffbio.core.errors import DataError, listed
from diffbio.io.sequence.profiles import Profile

_ALPHABETS = {"amino": "ACDEFGHIKLMNPQRSTVWY", "DNA": "ACGT", "RNA": "ACGU"}
_VERSIONS = ("HMMER3/f", "HMMER3/e")
_TRANSITIONS = ("m->m", "m->i", "m->d", "i->m", "i->i", "d->m", "d->d")
_COLUMNS = {"CONS": "consensus", "RF": "reference", "MM": "mask", "CS": "structure"}  # after MAP, in their order
_TEXTS = {"ACC": "accession", "DESC": "description", "DATE": "date"}
_CUTOFFS = ("GA", "TC", "NC")


def read_hmm(path: str | Path) -> list[Profile]:
    """Return the profile HMMs of a file of HMMER 3.

    Args:
        path: Of a text file, which may be compressed by gzip.

    Returns:
        One for each model, in their order; probabilities are float32.

    Raises:
        DataError: The file is not of version 3/f or 3/e, ends within a model, or a line is not what it should be; the
            message names file, line and model.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     half = np.full((2, 4), 0.25, np.float32)
        ...     steps = np.array([[0.9, 0.05, 0.05, 0.6, 0.4, 1, 0], [0.9, 0.1, 0, 0.6, 0.4, 1, 0]], np.float32)
        ...     write_hmm(f"{folder}/tiny.hmm", [Profile(name="tiny", alphabet="ACGT", match=half[:1], insert=half,
        ...                                              transitions=steps)])
        ...     [profile.name for profile in read_hmm(f"{folder}/tiny.hmm")]
        ['tiny']
    """
    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text; HMMER's hmmconvert -a makes a text file of a binary one") from None
    lines = _Lines(str(path), text)
    profiles = []
    while lines.more():
        profiles.append(_read_model(lines))
    if not profiles:
        raise DataError(f"{path} has no model; a file of profile HMMs begins with {_VERSIONS[0]}")
    return profiles


def write_hmm(path: str | Path, profiles: Iterable[Profile]) -> None:
    """Write profile HMMs as HMMER does, format 3/f.

    Args:
        path: Of the file; compressed if it ends in `.gz`.
        profiles: At least one.

    Raises:
        DataError: The letters are not those of amino acids, DNA or RNA, in any order.
    """
    content = "".join(line + "\n" for profile in profiles for line in _model_lines(profile)).encode()
    Path(path).write_bytes(gzip.compress(content, mtime=0) if str(path).endswith(".gz") else content)


class _Lines:
    """The lines of a file, and where in it an error is."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()
        self._next = 0
        self.model = ""

    def more(self) -> bool:
        """Say whether anything but blank lines is left."""
        while self._next < len(self._lines) and not self._lines[self._next].strip():
            self._next += 1
        return self._next < len(self._lines)

    def take(self) -> list[str]:
        """Return the words of the next line."""
        if self._next == len(self._lines):
            raise self.error("the file ends within the model; get it again, or cut the model off")
        self._next += 1
        return self._lines[self._next - 1].split()

    def rest(self) -> str:
        """Return what follows the first word of the last line."""
        return self._lines[self._next - 1].strip().partition(" ")[2].strip()

    def error(self, message: str) -> DataError:
        """Return the error that says where and what."""
        model = f", model {self.model}" if self.model else ""
        return DataError(f"{self._path}, line {self._next}{model}: {message}")


def _read_model(lines: _Lines) -> Profile:
    lines.model = ""
    version = (lines.take() or [""])[0]
    if version not in _VERSIONS:
        raise lines.error(f"found {version!r}, and can read {listed(_VERSIONS)}; HMMER's hmmconvert converts others")
    tags, cutoffs, statistics, commands = _read_header(lines)
    for tag in ("NAME", "LENG", "ALPH"):
        if tag not in tags:
            raise lines.error(f"the header has no line {tag}")
    letters = {kind.lower(): letters for kind, letters in _ALPHABETS.items()}.get(tags["ALPH"].lower())
    if letters is None:
        raise lines.error(f"the alphabet is {tags['ALPH']!r}; it must be one of {listed(_ALPHABETS)}")
    n_nodes = _integer(lines, tags["LENG"])
    lines.take()  # the names of the transitions
    words = lines.take()
    composition = None
    if words[:1] == ["COMPO"]:
        composition = _probabilities(lines, words[1:], len(letters))
        words = lines.take()
    insert = [_probabilities(lines, words, len(letters))]
    transitions = [_probabilities(lines, lines.take(), 7)]
    match, annotation = [], []
    for node in range(1, n_nodes + 1):
        words = lines.take()
        if words[:1] != [str(node)]:
            raise lines.error(
                f"expected node {node} of {n_nodes}, found {' '.join(words[:1])!r}; LENG or a node is wrong"
            )
        match.append(_probabilities(lines, words[1 : len(letters) + 1], len(letters)))
        annotation.append(words[len(letters) + 1 :])
        insert.append(_probabilities(lines, lines.take(), len(letters)))
        transitions.append(_probabilities(lines, lines.take(), 7))
    if lines.take() != ["//"]:
        raise lines.error(f"expected // after the {n_nodes} nodes that LENG tells")
    return Profile(
        name=tags["NAME"],
        alphabet=letters,
        match=np.stack(match),
        insert=np.stack(insert),
        transitions=np.stack(transitions),
        composition=composition,
        **{name: tags[tag] for tag, name in _TEXTS.items() if tag in tags},
        **_annotations(lines, tags, annotation, version),
        max_length=_integer(lines, tags["MAXL"]) if "MAXL" in tags else None,
        commands=tuple(commands),
        n_sequences=_integer(lines, tags["NSEQ"]) if "NSEQ" in tags else None,
        effective_sequences=_number(lines, tags["EFFN"]) if "EFFN" in tags else None,
        checksum=_integer(lines, tags["CKSUM"]) if "CKSUM" in tags else None,
        cutoffs=cutoffs,
        statistics=statistics,
    )


def _read_header(lines: _Lines) -> tuple[dict[str, str], dict, dict, list[str]]:
    """Return the text of each tag, and those that have more than one line or two numbers."""
    tags: dict[str, str] = {}
    cutoffs, statistics, commands = {}, {}, []
    while (words := lines.take() or [""])[0] != "HMM":
        tag, rest = words[0], lines.rest()
        if tag == "NAME":
            lines.model = rest
        if tag in _CUTOFFS:
            cutoffs[tag] = _numbers(lines, [word.rstrip(";") for word in words[1:]], 1 if len(words) == 2 else 2)
        elif tag == "STATS" and len(words) > 2:
            statistics[words[2]] = _numbers(lines, words[3:], 2)
        elif tag == "COM":
            commands.append(rest)
        elif tag == "//":
            raise lines.error("the model ends without a line HMM")
        else:
            tags[tag] = rest
    return tags, cutoffs, statistics, commands


def _annotations(lines: _Lines, tags: dict[str, str], rows: Sequence[list[str]], version: str) -> dict[str, Any]:
    """Return what stands behind the match emissions, by the names of the fields of a profile."""
    names = [tag for tag in _COLUMNS if tag != "MM" or version != _VERSIONS[1]]
    wanted = 1 + len(names)
    for node, row in enumerate(rows, start=1):
        if len(row) != wanted:
            raise lines.error(f"node {node} has {len(row)} annotations after its emissions; {version} has {wanted}")
    has = {tag: tags.get(tag, "no").lower() == "yes" for tag in ("MAP", *names)}
    found = {_COLUMNS[tag]: "".join(row[place] for row in rows) for place, tag in enumerate(names, start=1) if has[tag]}
    return found | ({"columns": tuple(_integer(lines, row[0]) for row in rows)} if has["MAP"] else {})


def _probabilities(lines: _Lines, words: list[str], count: int) -> Float[np.ndarray, " count"]:
    values = _numbers(lines, ["inf" if word == "*" else word for word in words], count)
    if min(values) < 0:
        raise lines.error(f"{min(values)} is the negative logarithm of no probability")
    return np.exp(-np.array(values)).astype(np.float32)


def _numbers(lines: _Lines, words: Sequence[str], count: int) -> tuple[float, ...]:
    if len(words) != count:
        raise lines.error(f"expected {count} numbers, found {len(words)}")
    return tuple(_number(lines, word) for word in words)


def _number(lines: _Lines, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise lines.error(f"{word!r} is no number") from None


def _integer(lines: _Lines, word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise lines.error(f"{word!r} is no whole number") from None


def _model_lines(profile: Profile) -> list[str]:
    kind = next((kind for kind, letters in _ALPHABETS.items() if sorted(letters) == sorted(profile.alphabet)), None)
    if kind is None:
        raise DataError(
            f"the letters of profile {profile.name} are {profile.alphabet!r}; HMMER's files have those of "
            f"{listed(_ALPHABETS)}"
        )
    order = [profile.alphabet.index(letter) for letter in _ALPHABETS[kind]]
    n_nodes = len(profile.match)
    annotated = [getattr(profile, name) for name in _COLUMNS.values()]
    yes = {tag: "no" if text is None else "yes" for tag, text in zip(_COLUMNS, annotated, strict=True)}
    header = [("NAME", profile.name), ("ACC", profile.accession), ("DESC", profile.description), ("LENG", n_nodes)]
    header += [("MAXL", profile.max_length), ("ALPH", kind)]
    header += [(tag, yes[tag]) for tag in ("RF", "MM", "CONS", "CS")]
    header += [("MAP", "no" if profile.columns is None else "yes"), ("DATE", profile.date)]
    header += [("COM", command) for command in profile.commands]
    effective = None if profile.effective_sequences is None else f"{profile.effective_sequences:.6f}"
    header += [("NSEQ", profile.n_sequences), ("EFFN", effective), ("CKSUM", profile.checksum)]
    cutoffs = {tag: " ".join(f"{score:.2f}" for score in scores) for tag, scores in profile.cutoffs.items()}
    header += [(tag, cutoffs[tag]) for tag in _CUTOFFS if tag in cutoffs]
    header += [("STATS", f"LOCAL {name:<8} {a:8.4f} {b:8.5f}") for name, (a, b) in profile.statistics.items()]
    lines = ["HMMER3/f [diffbio]", *(f"{tag:<5} {value}" for tag, value in header if value is not None)]
    lines += ["HMM     " + "".join(f"     {letter}   " for letter in _ALPHABETS[kind])]
    lines += [" " * 7 + "".join(f"  {name:>7}" for name in _TRANSITIONS)]
    if profile.composition is not None:
        lines.append("  COMPO" + _written(profile.composition[order]))
    for node in range(n_nodes + 1):
        if node:
            column = "-" if profile.columns is None else profile.columns[node - 1]
            marks = " ".join("-" if text is None else text[node - 1] for text in annotated)
            lines.append(f"{node:7d}{_written(profile.match[node - 1][order])} {column:>6} {marks}")
        lines += [" " * 7 + _written(values) for values in (profile.insert[node][order], profile.transitions[node])]
    return [*lines, "//"]


def _written(probabilities: Float[np.ndarray, " numbers"]) -> str:
    """Return negative logarithms; a probability just above 1 counts as 1."""
    with np.errstate(divide="ignore"):
        values = 0.0 - np.log(probabilities.astype(np.float64))
    return " " + "".join("        *" if np.isinf(value) else f" {max(value, 0.0):8.5f}" for value in values)
