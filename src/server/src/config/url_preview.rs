//! Previews of URLs: whether there are any, and what they may cost.

use serde::{Deserialize, Serialize};
use vatra_domain::url_preview::is_pattern;

use crate::outbound::policy::Network;

/// Bounds on settings, in bytes and in seconds.
const PAGE_BYTES: std::ops::RangeInclusive<usize> = 16_384..=16_777_216;
const MOST_IMAGE_BYTES: usize = 67_108_864;
const TIMEOUT_S: std::ops::RangeInclusive<u64> = 1..=60;

/// Previews of URLs that people speak of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UrlPreview {
    /// Whether there are any.
    pub enabled: bool,
    /// Connects to this machine too.
    pub allow_loopback: bool,
    /// Networks that are connected to although they are not public.
    pub allowed_networks: Vec<String>,
    /// Hosts that are asked and no others, such as `*.example.org`; empty: all.
    pub allow_hosts: Vec<String>,
    /// Hosts that are not asked.
    pub deny_hosts: Vec<String>,
    /// How much of a page is read, in bytes.
    pub max_page_bytes: usize,
    /// The largest picture, in bytes.
    pub max_image_bytes: usize,
    /// How long a page may take, and after it what it leads to, in seconds.
    pub timeout_s: u64,
    /// For how long a preview is kept, in seconds.
    pub keep_s: u64,
}

impl Default for UrlPreview {
    fn default() -> Self {
        Self {
            enabled: false,
            allow_loopback: false,
            allowed_networks: Vec::new(),
            allow_hosts: Vec::new(),
            deny_hosts: Vec::new(),
            max_page_bytes: 2 << 20,
            max_image_bytes: 8 << 20,
            timeout_s: 10,
            keep_s: 21_600,
        }
    }
}

impl UrlPreview {
    /// Whether previews are also made of what only this machine, or a network of the operator's, can reach.
    pub fn reaches_own_networks(&self) -> bool {
        self.allow_loopback || !self.allowed_networks.is_empty()
    }

    /// A key that makes no sense, and what to write there instead.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let no_network = |network: &String| network.parse::<Network>().is_err();
        let no_pattern = |pattern: &String| !is_pattern(pattern);
        let hosts = "write hosts as in URLs, in lower case, such as example.org, *.example.org or 192.0.2.1";
        if self.allowed_networks.iter().any(no_network) {
            Some(("url_preview.allowed_networks", super::check::NETWORKS))
        } else if self.allow_hosts.iter().any(no_pattern) {
            Some(("url_preview.allow_hosts", hosts))
        } else if self.deny_hosts.iter().any(no_pattern) {
            Some(("url_preview.deny_hosts", hosts))
        } else if !PAGE_BYTES.contains(&self.max_page_bytes) {
            let remedy = "write a number of bytes from 16384 to 16777216, such as 2097152 (2 MiB)";
            Some(("url_preview.max_page_bytes", remedy))
        } else if !(1..=MOST_IMAGE_BYTES).contains(&self.max_image_bytes) {
            let remedy = "write a number of bytes from 1 to 67108864, such as 8388608 (8 MiB)";
            Some(("url_preview.max_image_bytes", remedy))
        } else if !TIMEOUT_S.contains(&self.timeout_s) {
            Some((
                "url_preview.timeout_s",
                "write a number of seconds from 1 to 60",
            ))
        } else {
            None
        }
    }
}
