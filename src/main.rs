//! The `kero` command.

use clap::Parser;
use kero::cli::Cli;
use std::process::ExitCode;

/// Many small pieces from many threads: the system's allocator takes a tenth of the time of a send.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("kero: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(kero::run(cli));
    // Whatever still runs now was cut off on purpose.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kero: {error:#}");
            ExitCode::FAILURE
        }
    }
}
