//! Tokens signed a second, by one thread. All keys are made up.

use std::{
    hint::black_box,
    time::{Duration, Instant, SystemTime},
};

use agent_aws::{Region, Target, sign};
use aws_credential_types::Credentials;

use super::{Error, Measurement, Report};

pub(super) fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    let wrong = |error: &dyn std::fmt::Display| Error::Unexpected(error.to_string());
    let region = Region::parse("eu-west-1").map_err(|error| wrong(&error))?;
    let host = "orders-a.abc123.eu-west-1.rds.amazonaws.com";
    let target = Target::new(host, 5432, "lb_agent", region).map_err(|error| wrong(&error))?;
    // As long as those of a container's role.
    let session = "session+token/".repeat(70);
    let credentials = Credentials::new("AKIDEXAMPLE", "made+up/secret", Some(session), None, "bench");

    let patience = Duration::from_millis(if quick { 300 } else { 2_000 });
    let began = Instant::now();
    let mut signed = 0_u64;
    while began.elapsed() < patience {
        let token =
            sign(&target, black_box(&credentials), SystemTime::now()).map_err(|error| wrong(&error))?;
        black_box(token.expose_secret());
        signed += 1;
    }
    let rate = signed as f64 / began.elapsed().as_secs_f64();
    report.tell(&Measurement::new("tokens", rate, "tokens/s"))
}
