"""What is made of the alignment operators: scores that are learned, and the commands `align` and `learn-scores`."""
