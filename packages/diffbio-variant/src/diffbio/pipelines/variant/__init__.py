"""From aligned reads to called variants."""
