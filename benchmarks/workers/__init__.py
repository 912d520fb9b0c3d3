"""Programs that `benchmarks.scale` runs as children, because memory is measured for a whole process."""
