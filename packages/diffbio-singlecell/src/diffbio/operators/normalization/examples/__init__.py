"""The tiny example of each operator, by family, on which `diffbio.testing` holds it to the laws."""
