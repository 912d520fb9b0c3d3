"""Which reads of an alignment file are used, and the account of those that are not.

The defaults are those of `samtools mpileup`: a read is dropped if it is unmapped, secondary, failed by the machine's
quality check, a duplicate, or one of a pair that did not align as a pair.

References:
    Li et al., The Sequence Alignment/Map format and SAMtools, Bioinformatics 2009.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntFlag

from diffbio.core.errors import ConfigError


class Flags(IntFlag):
    """The bits of the FLAG of an alignment, as the SAM specification numbers them."""

    PAIRED = 0x1
    PROPER_PAIR = 0x2
    UNMAPPED = 0x4
    MATE_UNMAPPED = 0x8
    REVERSE = 0x10
    MATE_REVERSE = 0x20
    FIRST_IN_PAIR = 0x40
    SECOND_IN_PAIR = 0x80
    SECONDARY = 0x100
    QUALITY_CHECK_FAILED = 0x200
    DUPLICATE = 0x400
    SUPPLEMENTARY = 0x800


_REASONS = {
    Flags.UNMAPPED: "unmapped",
    Flags.SECONDARY: "secondary",
    Flags.QUALITY_CHECK_FAILED: "failed quality check",
    Flags.DUPLICATE: "duplicate",
    Flags.SUPPLEMENTARY: "supplementary",
}


@dataclass(frozen=True, kw_only=True)
class ReadFilters:
    """Which reads are used.

    Attributes:
        skipped_flags: Reads with any of these bits are dropped; unmapped ones always are.
        required_flags: Reads with none of these bits are dropped; no bits: all pass.
        minimal_mapping_quality: Reads below are dropped, Phred.
        keep_orphans: Keep reads of pairs that are not proper ones, as `samtools mpileup -A`.
        max_depth: A read is dropped if so many that were kept already cover its first aligned position; `None` for no
            cap. It needs sorted reads, so it acts where reads are asked for by region or window.

    Raises:
        ConfigError: A value is out of range.

    Example:
        >>> ReadFilters(minimal_mapping_quality=20).reason(Flags.PAIRED | Flags.PROPER_PAIR, 13)
        'low mapping quality'
        >>> ReadFilters().reason(Flags.DUPLICATE, 60)
        'duplicate'
    """

    skipped_flags: int = Flags.UNMAPPED | Flags.SECONDARY | Flags.QUALITY_CHECK_FAILED | Flags.DUPLICATE
    required_flags: int = 0
    minimal_mapping_quality: int = 0
    keep_orphans: bool = False
    max_depth: int | None = 8000

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("skipped_flags", "required_flags"):
            if not 0 <= getattr(self, name) < 1 << 16:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a sum of `Flags`, from 0 to 65535")
        if not 0 <= self.minimal_mapping_quality <= 255:
            raise ConfigError(f"minimal_mapping_quality is {self.minimal_mapping_quality}; give a Phred, 0 to 255")
        if self.max_depth is not None and self.max_depth < 1:
            raise ConfigError(f"max_depth is {self.max_depth}; give at least 1, or None for no cap")

    def reason(self, flags: int, mapping_quality: int) -> str | None:
        """Return why a read is dropped; `None` if it is not.

        Args:
            flags: Bits of its FLAG.
            mapping_quality: Phred.

        Returns:
            The first reason that applies, in the order in which samtools looks.
        """
        skipped = flags & (self.skipped_flags | Flags.UNMAPPED)
        if skipped:
            return next((reason for bit, reason in _REASONS.items() if skipped & bit), "skipped by flag")
        if self.required_flags and not flags & self.required_flags:
            return "without a required flag"
        if mapping_quality < self.minimal_mapping_quality:
            return "low mapping quality"
        orphan = flags & Flags.PAIRED and not flags & Flags.PROPER_PAIR
        return "not properly paired" if orphan and not self.keep_orphans else None


MPILEUP = ReadFilters()
"""The defaults of `samtools mpileup`."""


@dataclass
class Account:
    """How many records of a file were seen, used and dropped; each that is seen is in one of the other two.

    Attributes:
        seen: Reads, or variants, that the file gave.
        used: Those that were given on.
        dropped: By reason, how many were not.
        what: What is counted.

    Example:
        >>> account = Account(seen=10, used=7, dropped={"duplicate": 2, "unmapped": 1})
        >>> print(account)
        10 reads: 7 used, 2 dropped as duplicate, 1 dropped as unmapped
    """

    seen: int = 0
    used: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    what: str = "reads"

    def drop(self, reason: str) -> None:
        """Count a record as seen and dropped."""
        self.seen += 1
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def use(self) -> None:
        """Count a record as seen and used."""
        self.seen += 1
        self.used += 1

    def __str__(self) -> str:
        """Return the account as a line."""
        dropped = "".join(f", {count} dropped as {reason}" for reason, count in sorted(self.dropped.items()))
        return f"{self.seen} {self.what}: {self.used} used{dropped}"
