"""The checker that tests/conftest.py puts on every function of the library."""

from beartype import BeartypeConf, beartype

#: As PEP 484 has it, an int will do where a float is wanted.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
