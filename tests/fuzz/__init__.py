"""A target for each parser of what comes from outside: it reads any input, or says what is wrong.

$DAVFUSION_FUZZ inputs for each, a few hundred by default; `make fuzz` takes many more.
"""
