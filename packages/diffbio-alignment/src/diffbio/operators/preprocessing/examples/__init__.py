"""The conformance examples of the operators that preprocess reads."""
