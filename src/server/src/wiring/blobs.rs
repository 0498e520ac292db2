//! Where pictures and files are kept, as the settings say.

use std::sync::Arc;

use vatra_domain::media::{BlobBackend, BlobError, LocalBlobs};

use super::{BuildError, networks::own_dialer};
use crate::{
    config::{Config, MediaBackend, set},
    folders,
    outbound::s3::{Bucket, S3Blobs, Unusable},
};

/// The place that is in use.
pub(super) async fn blobs(config: &Config) -> Result<Arc<dyn BlobBackend>, BuildError> {
    if config.media.backend == MediaBackend::Disk {
        let opened = folder(config).await;
        return Ok(Arc::new(
            opened.map_err(|error| BuildError::media(config, &error))?,
        ));
    }
    let blobs = bucket(config)?;
    match blobs.try_it().await {
        Ok(()) => {}
        Err(Unusable::Refused(text)) => {
            let remedy = "see whether bucket, key and secret are right, and whether the key may read, write, list and delete there";
            let text = format!("{text}: {remedy}");
            return Err(BuildError::setting(config, "media.s3.bucket", &text));
        }
        // People write to each other meanwhile, and `/health/ready` tells.
        Err(Unusable::Away(error)) => {
            tracing::error!(%error, "the service that keeps pictures and files does not answer");
        }
    }
    Ok(Arc::new(blobs))
}

/// The media folder, which is made if it is not there.
pub(crate) async fn folder(config: &Config) -> Result<LocalBlobs, BlobError> {
    folders::make(&config.media_dir)?;
    LocalBlobs::open(config.media_dir.clone()).await
}

/// The bucket, of which nothing is asked yet.
pub(crate) fn bucket(config: &Config) -> Result<S3Blobs, BuildError> {
    let s3 = &config.media.s3;
    let dialer = own_dialer(set(&s3.trusted_ca))
        .map_err(|text| BuildError::setting(config, "media.s3.trusted_ca", &text))?;
    let bucket = Bucket {
        name: s3.bucket.clone(),
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        prefix: s3.prefix.clone(),
        access_key_id: s3.access_key_id.clone(),
        secret_access_key: s3.secret_access_key.clone(),
        in_host: s3.bucket_in_host,
    };
    S3Blobs::new(bucket, dialer, &config.media_dir.join("spool"))
        .map_err(|text| BuildError::setting(config, "media.s3", &text))
}
