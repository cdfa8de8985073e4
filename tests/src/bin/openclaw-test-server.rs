//! A gateway with methods that misbehave, in a process of its own: see `openclaw_tests::hazards`.

fn main() {
    openclaw_tests::hazards::serve(std::env::args().skip(1));
}
