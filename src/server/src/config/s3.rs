//! Settings of a service that keeps pictures and files.

use std::path::PathBuf;

use http::{Uri, uri::Scheme};
use serde::{Deserialize, Serialize};

use super::{MediaBackend, set};
use crate::{config::Media, outbound::dial};

/// A service with the interface of Amazon's S3.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    /// The bucket.
    pub bucket: String,
    /// The service's URL; empty: Amazon's of the region.
    pub endpoint: String,
    /// The region.
    pub region: String,
    /// What the names of all files begin with; empty: nothing.
    pub prefix: String,
    /// Who asks.
    pub access_key_id: String,
    /// With which secret.
    pub secret_access_key: String,
    /// Whether the bucket stands in the name of the host, not in the path.
    pub bucket_in_host: bool,
    /// Certificates of authorities (PEM) that are trusted beside the public ones; empty for none.
    pub trusted_ca: PathBuf,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            prefix: String::new(),
            access_key_id: String::new(),
            secret_access_key: String::new(),
            bucket_in_host: false,
            trusted_ca: PathBuf::new(),
        }
    }
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3({} at {:?})", self.bucket, self.endpoint)
    }
}

impl S3 {
    /// Whether there is such a service.
    pub fn is_set(&self) -> bool {
        !self.bucket.is_empty()
    }
}

/// What makes no sense, and what to write there instead.
pub(super) fn fault(media: &Media) -> Option<(&'static str, String)> {
    let s3 = &media.s3;
    if !s3.is_set() {
        let wanted = media.backend == MediaBackend::S3;
        return wanted.then(|| {
            (
                "media.s3.bucket",
                "media.backend is \"s3\": name the bucket".to_owned(),
            )
        });
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let unfit = [
        (
            !s3.bucket.bytes().all(plain),
            "media.s3.bucket",
            "write a bucket's name, such as matrix-media",
        ),
        (
            !s3.prefix.bytes().all(|byte| plain(byte) || byte == b'/'),
            "media.s3.prefix",
            "use letters, digits, and the characters . - _ /",
        ),
        (
            s3.region.is_empty(),
            "media.s3.region",
            "write the service's region; where there are none, leave it as it was",
        ),
        (
            !s3.endpoint.is_empty() && !is_endpoint(&s3.endpoint),
            "media.s3.endpoint",
            "write a URL without a path, such as https://s3.example.org, or leave it empty",
        ),
        (
            s3.access_key_id.is_empty(),
            "media.s3.access_key_id",
            "write the name of the key",
        ),
        (
            s3.secret_access_key.is_empty(),
            "media.s3.secret_access_key",
            "write the key's secret",
        ),
    ];
    if let Some((_, key, remedy)) = unfit.into_iter().find(|(unfit, _, _)| *unfit) {
        return Some((key, remedy.to_owned()));
    }
    if let Err(text) = dial::authorities(set(&s3.trusted_ca)) {
        let remedy = format!("{text}: write the path of a readable PEM file");
        return Some(("media.s3.trusted_ca", remedy));
    }
    None
}

fn is_endpoint(text: &str) -> bool {
    let Ok(url) = text.parse::<Uri>() else {
        return false;
    };
    let web = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&url.scheme());
    let named = url.authority().is_some_and(|it| !it.as_str().contains('@'));
    web && named && url.path_and_query().is_none_or(|path| path.as_str() == "/")
}
