//! `aurora-redis-agent`: reads its configuration and runs.

use std::process::ExitCode;

use agent::config::Config;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let config = match Config::read(&Config::command().get_matches()) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(2);
        }
    };
    let quiet = "info,zookeeper_client=warn,hdfs_native=warn";
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    eprint!("{}", config.effective);
    match agent::run::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("aurora-redis-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
