//! What the whole must show: the plan of the house and the behaviour that real clients see. Everything is under `tests/`.
#![forbid(unsafe_code)]
