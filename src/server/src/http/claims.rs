//! Claims of one-time keys as both APIs read and write them.

use std::collections::BTreeMap;

use ruma::{
    IdParseError, OneTimeKeyAlgorithm, OwnedDeviceId, OwnedUserId,
    api::federation::keys::claim_keys::v1::OneTimeKeys, serde::Raw,
};
use vatra_domain::e2ee::{ClaimedKeys, Claims};

use super::error::Error;

/// Which keys are asked for.
pub(super) fn asked(
    users: impl IntoIterator<Item = (OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>)>,
) -> Claims {
    let of_user = |devices: BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>| {
        let devices = devices.into_iter();
        devices
            .map(|(device, algorithm)| (device.to_string(), algorithm.to_string()))
            .collect()
    };
    let users = users.into_iter();
    users.map(|(user, them)| (user, of_user(them))).collect()
}

/// The keys that were handed out.
pub(super) fn shown(found: ClaimedKeys) -> Result<OneTimeKeys, Error> {
    let mut shown = OneTimeKeys::new();
    for (user, devices) in found {
        let of_user = shown.entry(user).or_default();
        for (device, keys) in devices {
            let keys = keys
                .into_iter()
                .map(|(id, key)| Ok((id.try_into()?, Raw::from_json(key))));
            let keys = keys
                .collect::<Result<_, IdParseError>>()
                .map_err(|error| Error::internal(&error))?;
            of_user.insert(device.into(), keys);
        }
    }
    Ok(shown)
}
