//! Files with tokens for clients.

use super::{
    super::{
        Problem, TokenFile,
        file::{self, At, TokenFormat},
    },
    Check,
};

impl Check {
    pub(super) fn token_file(&mut self, at: &At<file::TokenFile>) -> Option<TokenFile> {
        let file = at.value();
        let path = self.path(Some(&file.path), "/run/rds-lb-agent/tokens/app.pgpass");
        let format = file.format.unwrap_or(TokenFormat::Plain);
        let listed = file.endpoints.value();
        if listed.is_empty() || (listed.len() > 1 && format != TokenFormat::Pgpass) {
            let hint = "write one endpoint; only a pgpass file has room for several";
            let message = format!("{} endpoints for one token file", listed.len());
            self.problem(Problem::at(file.endpoints.location(), message).hint(hint));
        }
        let endpoints: Vec<_> = listed.iter().map(|endpoint| self.address(endpoint)).collect();
        let endpoints: Option<Vec<_>> = endpoints.into_iter().collect();
        let user = file.user.value();
        // A line or a quote in the name would be another setting of the file.
        if user.trim().is_empty() || user.contains(|c: char| c.is_control() || "\"'\\".contains(c)) {
            let hint = "name the database user whose token this is";
            self.problem(Problem::at(file.user.location(), "this cannot be the name of a user").hint(hint));
        }
        let region = match &file.region {
            None => None,
            Some(region) => match agent_aws::Region::parse(region.value()) {
                Ok(region) => Some(region),
                Err(error) => {
                    self.problem(Problem::advising(region.location(), &error.to_string()));
                    return None;
                }
            },
        };
        let endpoints = endpoints?;
        for (endpoint, at) in endpoints.iter().zip(listed) {
            // If the region comes from the environment, any region will do to check the names.
            let region = region.clone().or_else(|| agent_aws::Region::parse("eu-west-1").ok())?;
            if let Err(error) = agent_aws::Target::new(&endpoint.host, endpoint.port, user, region) {
                self.problem(Problem::advising(at.location(), &error.to_string()));
            }
        }
        Some(TokenFile {
            path: path?,
            format,
            endpoints,
            user: user.clone(),
            region: region.map(|region| region.as_str().to_owned()),
            owner: file.owner.as_ref().map(|owner| owner.value().clone()),
        })
    }
}
