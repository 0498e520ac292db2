//! The ways out of this server, as the settings say: to other servers, to push gateways, to application services.

use std::{path::Path, sync::Arc};

use vatra_domain::{clock::SharedClock, random::SharedRandom, remote::Transport};

use super::BuildError;
use crate::{
    config::{Config, set},
    outbound::{
        self, dial::Dialer, dns::SystemDns, gateway::Gateways, pages::Pages, policy::Policy,
        services::Services, web::Web,
    },
};

/// The network as the settings say; none if this server does not speak with others.
pub(super) fn network(
    config: &Config,
    clock: &SharedClock,
    random: &SharedRandom,
) -> Result<Arc<dyn Transport>, BuildError> {
    let settings = &config.federation;
    if !settings.enabled {
        return Ok(Arc::new(outbound::Closed));
    }
    let policy = policy(settings.allow_loopback, &settings.allowed_networks);
    let dns = Arc::new(SystemDns::new());
    let trusted = set(&settings.trusted_ca);
    let dialer = Dialer::new(dns, policy, trusted).map_err(|text| bad_authority(config, &text))?;
    Ok(Arc::new(outbound::Outbound::new(
        dialer,
        clock.clone(),
        random.clone(),
    )))
}

/// The way to push gateways as the settings say.
pub(super) fn gateways(config: &Config) -> Result<Gateways, BuildError> {
    let policy = policy(config.push.allow_loopback, &config.push.allowed_networks);
    let dns = Arc::new(SystemDns::new());
    let dialer = Dialer::new(dns, policy, None).map_err(BuildError::Network)?;
    Ok(Gateways::new(dialer))
}

/// The way to pages that people speak of, as the settings say.
pub(super) fn pages(config: &Config) -> Result<Pages, BuildError> {
    let settings = &config.url_preview;
    let policy = policy(settings.allow_loopback, &settings.allowed_networks);
    let dns = Arc::new(SystemDns::new());
    let dialer = Dialer::new(dns, policy, None).map_err(BuildError::Network)?;
    Ok(Pages::new(dialer))
}

/// The network towards application services.
pub(super) fn service_line(config: &Config) -> Result<Arc<Services>, BuildError> {
    let trusted = set(&config.federation.trusted_ca);
    let line = Services::new(trusted).map_err(|text| bad_authority(config, &text))?;
    Ok(Arc::new(line))
}

/// The way to identity providers as the settings say.
pub(super) fn sso_web(config: &Config) -> Result<Web, BuildError> {
    let settings = &config.sso;
    let policy = policy(settings.allow_loopback, &settings.allowed_networks);
    let dns = Arc::new(SystemDns::new());
    let trusted = set(&settings.trusted_ca);
    let dialer = Dialer::new(dns, policy, trusted).map_err(|text| {
        let place = config.origin.of("sso.trusted_ca");
        BuildError::Network(format!("{place}: {text}"))
    })?;
    Ok(Web::new(dialer))
}

/// The way to a service whose URL is the operator's own word, and whose answers lead nowhere: to every address.
pub(super) fn own_web() -> Result<Web, BuildError> {
    Ok(Web::new(own_dialer(None).map_err(BuildError::Network)?))
}

/// Connections to every address.
pub(super) fn own_dialer(trusted_ca: Option<&Path>) -> Result<Dialer, String> {
    let everywhere = ["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    let dns = Arc::new(SystemDns::new());
    Dialer::new(dns, policy(true, &everywhere), trusted_ca)
}

/// Which addresses are connected to. What is no network was refused when the settings were read.
fn policy(allow_loopback: bool, networks: &[String]) -> Policy {
    let allowed = networks.iter().filter_map(|network| network.parse().ok());
    Policy {
        allow_loopback,
        allowed: allowed.collect(),
    }
}

fn bad_authority(config: &Config, text: &str) -> BuildError {
    let place = config.origin.of("federation.trusted_ca");
    BuildError::Network(format!("{place}: {text}"))
}
