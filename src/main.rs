//! The binary: arguments in, errors out with their chain.

fn main() {}
