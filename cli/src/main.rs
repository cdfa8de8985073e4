//! The `openclaw` binary; everything is in the library.

fn main() -> std::process::ExitCode {
    openclaw_cli::main()
}
