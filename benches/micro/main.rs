//! The cost of single steps: `cargo bench --bench micro [-- FILTER]`. One module a room.

mod queue;
mod routing;
mod rule;
mod source;
mod vault;

fn main() {
    routing::report();
    divan::main();
    routing::clear();
}
