//! Logins by JSON web tokens that a service of the operator's signs: whoever shows one is who it says.
//!
//! The signature, the algorithm (only the one that is set), `exp` (which must be there), `nbf`, and what the settings say of `iss` and `aud` are
//! checked. A token with an audience is refused where no audience is set: it was meant for someone else.

use std::fs;

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode};
use serde_json::{Map, Value};

use crate::config::{self, Config};

/// The type of login.
pub(crate) const LOGIN_TYPE: &str = "org.matrix.login.jwt";
/// The shortest secret, in bytes: what can be guessed signs for everyone.
const SHORTEST: usize = 32;

/// What makes no sense: which key, and why.
pub(crate) type Fault = (&'static str, String);

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JwtError {
    /// What is wrong with it.
    #[error("the token is not accepted: {0}")]
    Refused(#[from] jsonwebtoken::errors::Error),
    /// It does not say who.
    #[error("the token is not accepted: it has no claim {0} that is text")]
    Nobody(String),
}

/// What checks tokens.
pub struct Jwt {
    key: DecodingKey,
    validation: Validation,
    subject: String,
}

impl Jwt {
    /// As the settings say; `None` if there is no key.
    ///
    /// # Errors
    /// A key that cannot be used, or settings that contradict each other.
    pub(crate) fn build(config: &Config) -> Result<Option<Self>, Fault> {
        let settings = &config.jwt;
        let file = config::set(&settings.public_key_file);
        if settings.secret.is_empty() && file.is_none() {
            return Ok(None);
        }
        let unknown = || {
            let remedy = "write HS256, HS384, HS512 (with a secret), RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA (with a public key)";
            ("jwt.algorithm", remedy.to_owned())
        };
        let algorithm: Algorithm = settings.algorithm.parse().map_err(|_| unknown())?;
        let key = match (algorithm.family(), file) {
            (AlgorithmFamily::Hmac, None) => {
                if settings.secret.len() < SHORTEST {
                    let remedy = format!("write a secret of at least {SHORTEST} bytes");
                    return Err(("jwt.secret", remedy));
                }
                DecodingKey::from_secret(settings.secret.as_bytes())
            }
            (AlgorithmFamily::Hmac, Some(_)) => {
                let remedy = format!("{algorithm:?} needs jwt.secret, and no key file");
                return Err(("jwt.public_key_file", remedy));
            }
            (_, Some(_)) if !settings.secret.is_empty() => {
                let remedy = format!("{algorithm:?} needs jwt.public_key_file, and no secret");
                return Err(("jwt.secret", remedy));
            }
            (family, Some(file)) => {
                let bad = |reason: &dyn std::fmt::Display| {
                    let remedy = format!(
                        "{}: {reason}: write the path of a public key (PEM) for {algorithm:?}",
                        file.display()
                    );
                    ("jwt.public_key_file", remedy)
                };
                let pem = fs::read(file).map_err(|error| bad(&error))?;
                let key = match family {
                    AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(&pem),
                    AlgorithmFamily::Ec => DecodingKey::from_ec_pem(&pem),
                    _ => DecodingKey::from_ed_pem(&pem),
                };
                key.map_err(|error| bad(&error))?
            }
            (_, None) => {
                let remedy = format!("{algorithm:?} needs the path of a public key (PEM)");
                return Err(("jwt.public_key_file", remedy));
            }
        };
        if settings.subject_claim.is_empty() {
            let remedy = "write the claim that holds the user name, such as sub";
            return Err(("jwt.subject_claim", remedy.to_owned()));
        }
        let mut validation = Validation::new(algorithm);
        validation.validate_nbf = true;
        let mut needed = vec!["exp"];
        if !settings.issuer.is_empty() {
            validation.set_issuer(&[&settings.issuer]);
            needed.push("iss");
        }
        if !settings.audiences.is_empty() {
            validation.set_audience(&settings.audiences);
            needed.push("aud");
        }
        validation.set_required_spec_claims(&needed);
        Ok(Some(Self {
            key,
            validation,
            subject: settings.subject_claim.clone(),
        }))
    }

    /// The local part of the user whom a token speaks of.
    ///
    /// # Errors
    /// [`JwtError`] for a token that is not accepted.
    pub(crate) fn subject(&self, token: &str) -> Result<String, JwtError> {
        let claims = decode::<Map<String, Value>>(token, &self.key, &self.validation)?.claims;
        let subject = claims.get(&self.subject).and_then(Value::as_str);
        let subject = subject.filter(|subject| !subject.is_empty());
        subject
            .map(str::to_owned)
            .ok_or_else(|| JwtError::Nobody(self.subject.clone()))
    }
}
