//! The providers of the standard credential chain, in the SDK's order.
//!
//! The SDK's own chain does not say which of its providers failed, nor which file or address that
//! one uses. So the providers are tried one by one here, and errors name them.

use std::env;

use aws_config::{
    Region as SdkRegion, ecs::EcsCredentialsProvider, environment::EnvironmentVariableCredentialsProvider,
    imds::credentials::ImdsCredentialsProvider, profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig, web_identity_token::WebIdentityTokenCredentialsProvider,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError as SdkError},
};

use crate::{causes::chain, error::CredentialsError};

/// Providers with their descriptions, tried in order until one has credentials.
pub(crate) struct Providers(Vec<Provider>);

struct Provider {
    /// With the file or address that it uses.
    description: String,
    provider: SharedCredentialsProvider,
}

impl Providers {
    /// The standard chain of this process's environment.
    pub(crate) fn standard(profile: Option<&str>, region: Option<SdkRegion>) -> Self {
        let sts = sts_address(region.as_ref());
        let config = ProviderConfig::without_region().with_region(region);
        let environment = EnvironmentVariableCredentialsProvider::new();
        let mut profiles = ProfileFileCredentialsProvider::builder().configure(&config);
        if let Some(name) = profile {
            profiles = profiles.profile_name(name);
        }
        let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(&config).build();
        let container = EcsCredentialsProvider::builder().configure(&config).build();
        let metadata = ImdsCredentialsProvider::builder().configure(&config).build();
        Self(vec![
            Provider::new(
                "the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                environment,
            ),
            Provider::new(profile_description(profile, &sts), profiles.build()),
            Provider::new(web_identity_description(&sts), web_identity),
            Provider::new(format!("the container endpoint {}", container_address()), container),
            Provider::new(metadata_description(), metadata),
        ])
    }

    pub(crate) fn given(provider: SharedCredentialsProvider) -> Self {
        Self(vec![Provider::new("their provider", provider)])
    }

    /// Credentials of the first provider that has any. `trying` gets the description of each provider
    /// before it is asked.
    pub(crate) async fn load(&self, mut trying: impl FnMut(&str)) -> Result<Credentials, CredentialsError> {
        let mut none = Vec::new();
        for Provider { description, provider } in &self.0 {
            trying(description);
            let error = match provider.provide_credentials().await {
                Ok(credentials) => return Ok(credentials),
                Err(error) => error,
            };
            let text = format!("{description}: {}", supported(&chain(&error)));
            match &error {
                SdkError::CredentialsNotLoaded(_) => none.push(text),
                SdkError::InvalidConfiguration(_) => return Err(CredentialsError::Misconfigured(text)),
                SdkError::ProviderTimedOut(details) => {
                    let after = details.timeout_duration();
                    return Err(CredentialsError::TimedOut { after, provider: description.clone() });
                }
                _ => return Err(CredentialsError::Failed(text)),
            }
        }
        Err(CredentialsError::NotFound(none.join("; ")))
    }
}

impl Provider {
    fn new(description: impl Into<String>, provider: impl ProvideCredentials + 'static) -> Self {
        Self { description: description.into(), provider: SharedCredentialsProvider::new(provider) }
    }
}

/// The SDK names its own build feature where it lacks one; here it is the setting that counts.
fn supported(text: &str) -> String {
    if text.contains("credentials-login") {
        "`login_session` (`aws login`) is not supported by this agent; use an SSO session, a role or \
         `credential_process`"
            .to_owned()
    } else {
        text.to_owned()
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn profile_description(profile: Option<&str>, sts: &str) -> String {
    let name = profile.map(str::to_owned).or_else(|| variable("AWS_PROFILE"));
    let config = variable("AWS_CONFIG_FILE").unwrap_or_else(|| "~/.aws/config".to_owned());
    let credentials =
        variable("AWS_SHARED_CREDENTIALS_FILE").unwrap_or_else(|| "~/.aws/credentials".to_owned());
    let name = name.unwrap_or_else(|| "default".to_owned());
    format!("the profile {name:?} of {config} and {credentials} (roles are assumed at {sts})")
}

fn web_identity_description(sts: &str) -> String {
    let file = variable("AWS_WEB_IDENTITY_TOKEN_FILE").unwrap_or_else(|| "(unset)".to_owned());
    let role = variable("AWS_ROLE_ARN").unwrap_or_else(|| "(unset)".to_owned());
    format!(
        "the web identity (token file AWS_WEB_IDENTITY_TOKEN_FILE {file}, role AWS_ROLE_ARN {role}, STS {sts})"
    )
}

fn sts_address(region: Option<&SdkRegion>) -> String {
    let configured = variable("AWS_ENDPOINT_URL_STS").or_else(|| variable("AWS_ENDPOINT_URL"));
    configured.unwrap_or_else(|| match region {
        Some(region) => format!("https://sts.{region}.amazonaws.com"),
        None => "https://sts.amazonaws.com".to_owned(),
    })
}

fn container_address() -> String {
    let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let relative = relative.map(|path| format!("http://169.254.170.2{path}"));
    relative
        .or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
        .unwrap_or_else(|| "(AWS_CONTAINER_CREDENTIALS_FULL_URI unset)".to_owned())
}

fn metadata_description() -> String {
    let address = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let address = address.unwrap_or_else(|| "http://169.254.169.254".to_owned());
    format!(
        "the EC2 metadata service {address} (outside EC2 set AWS_PROFILE, or AWS_EC2_METADATA_DISABLED=true)"
    )
}
