//! `version` and `schema`.

use serde_json::json;

use super::{Exit, print, print_json};
use crate::{
    cli::{Format, Output},
    config,
};

pub(super) fn version(arguments: &Output) -> Exit {
    let version = env!("CARGO_PKG_VERSION");
    match arguments.output {
        Format::Text => print(format_args!("rds-lb-agent {version}")),
        Format::Json => print_json(&json!({"name": "rds-lb-agent", "version": version})),
    }
    Exit::Ok
}

pub(super) fn schema() -> Exit {
    print_json(&schemars::schema_for!(config::file::File));
    Exit::Ok
}
