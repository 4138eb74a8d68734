//! The command line `aurora-redis`; all of it is in the library, beside its tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    controller::cli::main()
}
