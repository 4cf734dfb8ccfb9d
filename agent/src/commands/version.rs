//! `version` and `schema`.

use serde_json::json;

use super::{Exit, print, print_json};
use crate::{
    cli::{Described, Format, Output, Schema},
    commands::validate::Report,
    config,
    hand_offs::view::HandOffsView,
    status::{SessionRow, Status},
};

pub(super) fn version(arguments: &Output) -> Exit {
    let version = env!("CARGO_PKG_VERSION");
    match arguments.output {
        Format::Text => print(format_args!("rds-lb-agent {version}")),
        Format::Json => print_json(&json!({"name": "rds-lb-agent", "version": version})),
    }
    Exit::Ok
}

pub(super) fn schema(arguments: &Schema) -> Exit {
    print_json(&match arguments.of {
        Described::Config => schemars::schema_for!(config::file::File),
        Described::Status => schemars::schema_for!(Status),
        Described::Sessions => schemars::schema_for!(Vec<SessionRow>),
        Described::Handoffs => schemars::schema_for!(HandOffsView),
        Described::Validate => schemars::schema_for!(Report),
    });
    Exit::Ok
}
