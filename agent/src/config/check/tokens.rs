//! Tokens for clients: in files, and through a socket.

use std::path::PathBuf;

use agent_aws::{Region, Target};
use agent_database::Address;

use super::{
    super::{
        Problem, SocketToken, TokenFile,
        file::{self, At, TokenFormat},
    },
    Check, Invalid,
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
        let region = self.region_of_tokens(file.region.as_ref()).ok()?;
        let endpoints = endpoints?;
        for (endpoint, at) in endpoints.iter().zip(listed) {
            self.signable_for_clients(endpoint, at, user, region.as_ref());
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

    pub(super) fn token_socket(
        &mut self,
        socket: &file::TokenSocket,
        file: &file::File,
    ) -> Option<(PathBuf, Vec<SocketToken>)> {
        let path = self.path(Some(&socket.path), "/run/rds-lb-agent/tokens.sock");
        let tokens: Vec<_> =
            socket.tokens.value().iter().map(|token| self.socket_token(token, file)).collect();
        let tokens: Vec<SocketToken> = tokens.into_iter().collect::<Option<_>>()?;
        for (index, token) in tokens.iter().enumerate() {
            let same = |other: &SocketToken| (&other.database, &other.user) == (&token.database, &token.user);
            if let Some(at) = socket.tokens.value().get(index)
                && tokens.iter().take(index).any(same)
            {
                let message = format!("`{}/{}` is listed twice", token.database, token.user);
                self.problem(Problem::at(at.location(), message).hint("list all `peers` in one entry"));
            }
        }
        Some((path?, tokens))
    }

    fn socket_token(&mut self, at: &At<file::SocketToken>, file: &file::File) -> Option<SocketToken> {
        let token = at.value();
        let mut known = file.databases.value().iter().map(|database| database.name.value());
        if !known.clone().any(|name| name == token.database.value()) {
            let hint = format!("there are {}", known.by_ref().cloned().collect::<Vec<_>>().join(", "));
            let message = format!("there is no database `{}`", token.database.value());
            self.problem(Problem::at(token.database.location(), message).hint(hint));
        }
        if token.peers.value().is_empty() {
            let hint = "name the users of this host who get the token, as in `peers: [app]`";
            self.problem(Problem::at(token.peers.location(), "no user gets this token").hint(hint));
        }
        let region = self.region_of_tokens(token.region.as_ref()).ok()?;
        let endpoint = self.address(&token.endpoint)?;
        self.signable_for_clients(&endpoint, &token.endpoint, token.user.value(), region.as_ref());
        Some(SocketToken {
            database: token.database.value().clone(),
            user: token.user.value().clone(),
            endpoint,
            region: region.map(|region| region.as_str().to_owned()),
            peers: token.peers.value().iter().map(|peer| peer.value().clone()).collect(),
        })
    }

    fn region_of_tokens(&mut self, region: Option<&At<String>>) -> Result<Option<Region>, Invalid> {
        let Some(region) = region else { return Ok(None) };
        Region::parse(region.value()).map(Some).map_err(|error| {
            self.problem(Problem::advising(region.location(), &error.to_string()));
            Invalid
        })
    }

    fn signable_for_clients(
        &mut self,
        endpoint: &Address,
        at: &At<String>,
        user: &str,
        region: Option<&Region>,
    ) {
        // If the region comes from the environment, any region will do to check the names.
        let Some(region) = region.cloned().or_else(|| Region::parse("eu-west-1").ok()) else { return };
        if let Err(error) = Target::new(&endpoint.host, endpoint.port, user, region) {
            self.problem(Problem::advising(at.location(), &error.to_string()));
        }
    }
}
