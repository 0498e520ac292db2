//! A request as plain parts, for handlers that read by hand.

use axum::body::Body;
use ruma::api::error::DeserializationError;

use super::{must_be_good, unreadable};
use crate::http::{address::Address, conditions::Conditions, error::Error};

/// A body that was not read.
pub(crate) struct Upload {
    /// The body.
    pub(crate) body: Body,
    /// How long the client says that it is.
    pub(crate) announced_bytes: Option<u64>,
    /// Which part of the answer is wanted, and when.
    pub(crate) conditions: Conditions,
}

/// A request as plain parts.
pub(crate) struct Input {
    /// The variable parts of the path, decoded, in order.
    pub(crate) args: Vec<String>,
    /// The query, as sent.
    pub(crate) query: String,
    /// The body.
    pub(crate) body: bytes::Bytes,
    /// Where it came from.
    pub(crate) address: Option<Address>,
    /// The languages of who sends it, as in `Accept-Language`.
    pub(crate) languages: String,
}

impl Input {
    /// A request of which only the body is of interest.
    ///
    /// # Errors
    /// If the body is no JSON object.
    pub(crate) fn of_body(body: bytes::Bytes) -> Result<Self, Error> {
        must_be_good(&body)?;
        Ok(Self {
            args: Vec::new(),
            query: String::new(),
            body,
            address: None,
            languages: String::new(),
        })
    }

    /// A part of the path; the route guarantees how many there are.
    pub(crate) fn arg(&self, place: usize) -> &str {
        self.args.get(place).map_or("", String::as_str)
    }

    /// A part of the path as an id.
    pub(crate) fn id<'a, T: TryFrom<&'a str, Error = ruma::IdParseError>>(
        &'a self,
        place: usize,
    ) -> Result<T, Error> {
        T::try_from(self.arg(place)).map_err(|error| Error::invalid_param(&error.to_string()))
    }

    /// The body as JSON of a type; an empty body is an empty object.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        let body: &[u8] = if self.body.is_empty() {
            b"{}"
        } else {
            &self.body
        };
        serde_json::from_slice(body)
            .map_err(|error| unreadable(DeserializationError::Json(error).into(), body))
    }

    /// A parameter of the query, decoded. The values of others are not.
    pub(crate) fn param(&self, name: &str) -> Option<String> {
        self.params(name).next()
    }

    /// A parameter of the query that may be there more than once.
    pub(crate) fn params<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        params(&self.query, name)
    }
}

/// The values of a parameter of a query, decoded. Those of others are not.
pub(super) fn params<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let decoded = move |part: &str| {
        let mut pairs = form_urlencoded::parse(part.as_bytes());
        pairs
            .next()
            .map(|(key, value)| (key == name, value.into_owned()))
    };
    query.split('&').filter_map(move |part| {
        let key = part.split('=').next().unwrap_or_default();
        if key != name && !key.contains(['%', '+']) {
            return None;
        }
        decoded(part).and_then(|(wanted, value)| wanted.then_some(value))
    })
}
