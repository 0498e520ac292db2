//! An identity provider that speaks OpenID Connect: where people are sent, and who they are when they come back.
//! <https://openid.net/specs/openid-connect-core-1_0.html>

use std::{future::Future, pin::Pin, sync::Arc};

use openidconnect::{
    AccessTokenHash, AsyncHttpClient, AuthType, AuthorizationCode, ClaimsVerificationError,
    ClientId, ClientSecret, CsrfToken, IssuerUrl, Nonce, OAuth2TokenResponse, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, Scope, SignatureVerificationError, TokenResponse,
    core::{
        CoreAuthPrompt, CoreAuthenticationFlow, CoreClient, CoreClientAuthMethod,
        CoreIdTokenClaims, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreTokenResponse,
        CoreUserInfoClaims,
    },
    http::{Request, Response},
    url::Url,
};
use tokio::sync::Mutex;
use vatra_domain::{clock::Millis, remote::TransportError};

use crate::{config::SsoProvider, outbound::web::Web};

/// How long what a provider says of itself is believed, in milliseconds.
const BELIEVED_MS: Millis = 3_600_000;
/// How soon it is asked again because its keys do not fit, in milliseconds.
const AGAIN_MS: Millis = 60_000;

/// The algorithms that an ID token may be signed with: none that a shared secret, or nothing, is enough for.
const SIGNED_WITH: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Why nobody is known by a provider.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    /// It cannot be reached, or does not say what it must.
    #[error("the provider cannot be used: {0}")]
    Unusable(String),
    /// It does not vouch for anyone with this.
    #[error("the provider's answer is not believed: {0}")]
    NotBelieved(String),
}

/// Someone, as a provider tells it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Person {
    pub(crate) subject: String,
    pub(crate) preferred_username: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) name: Option<String>,
}

/// What one login is bound to.
pub(crate) struct Bound<'a> {
    pub(crate) state: &'a str,
    pub(crate) nonce: &'a str,
    pub(crate) verifier: &'a str,
}

/// One provider.
pub(crate) struct Provider {
    pub(crate) settings: SsoProvider,
    issuer: IssuerUrl,
    callback: RedirectUrl,
    web: Web,
    known: Mutex<Option<(Millis, Arc<CoreProviderMetadata>)>>,
}

impl Provider {
    /// One of the settings.
    ///
    /// # Errors
    /// If its issuer or this server's callback is no URL.
    pub(crate) fn new(settings: SsoProvider, callback: String, web: Web) -> Result<Self, String> {
        let issuer = IssuerUrl::new(settings.issuer.clone()).map_err(|error| error.to_string())?;
        Ok(Self {
            settings,
            issuer,
            callback: RedirectUrl::new(callback).map_err(|error| error.to_string())?,
            web,
            known: Mutex::new(None),
        })
    }

    /// Where its login page is, as a page's policy has it.
    pub(crate) async fn source(&self, now: Millis) -> Result<String, ProviderError> {
        let metadata = self.metadata(now, BELIEVED_MS).await?;
        let page = metadata.authorization_endpoint().url();
        Ok(page.origin().ascii_serialization())
    }

    /// Where a browser goes to log in; with `again`, also if it is logged in there.
    pub(crate) async fn login_page(
        &self,
        bound: &Bound<'_>,
        again: bool,
        now: Millis,
    ) -> Result<Url, ProviderError> {
        let metadata = self.metadata(now, BELIEVED_MS).await?;
        let page = metadata.authorization_endpoint().url();
        if !matches!(page.scheme(), "http" | "https") {
            let reason = "its authorization endpoint is no web page".to_owned();
            return Err(ProviderError::Unusable(reason));
        }
        let client = CoreClient::from_provider_metadata(
            (*metadata).clone(),
            ClientId::new(self.settings.client_id.clone()),
            None,
        )
        .set_redirect_uri(self.callback.clone());
        let verifier = PkceCodeVerifier::new(bound.verifier.to_owned());
        let (state, nonce) = (bound.state.to_owned(), bound.nonce.to_owned());
        let scopes = self.settings.scopes.iter();
        // That one is always asked for.
        let scopes = scopes.filter(|scope| *scope != "openid");
        let mut request = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                move || CsrfToken::new(state),
                move || Nonce::new(nonce),
            )
            .add_scopes(scopes.map(|scope| Scope::new(scope.clone())))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
        if again {
            request = request.add_prompt(CoreAuthPrompt::Login);
        }
        let (url, _, _) = request.url();
        Ok(url)
    }

    /// Who has come back with a code.
    pub(crate) async fn person(
        &self,
        code: String,
        bound: &Bound<'_>,
        now: Millis,
    ) -> Result<Person, ProviderError> {
        let metadata = self.metadata(now, BELIEVED_MS).await?;
        let answer = self.redeem(&metadata, code, bound).await?;
        let nonce = Nonce::new(bound.nonce.to_owned());
        let claims = match self.claims(&metadata, &answer, &nonce) {
            Err(error) if of_unknown_key(&error) => {
                // It may have new keys.
                let metadata = self.metadata(now, AGAIN_MS).await?;
                self.claims(&metadata, &answer, &nonce)
            }
            other => other,
        };
        let claims = claims.map_err(|error| ProviderError::NotBelieved(error.to_string()))?;
        let mut person = Person {
            subject: claims.subject().to_string(),
            preferred_username: claims.preferred_username().map(|name| name.to_string()),
            email: claims.email().map(|email| email.to_string()),
            name: claims
                .name()
                .and_then(|name| name.get(None))
                .map(|name| name.to_string()),
        };
        if person.preferred_username.is_none() {
            self.ask_more(&metadata, &answer, &claims, &mut person)
                .await;
        }
        Ok(person)
    }

    async fn redeem(
        &self,
        metadata: &CoreProviderMetadata,
        code: String,
        bound: &Bound<'_>,
    ) -> Result<CoreTokenResponse, ProviderError> {
        let secret = &self.settings.client_secret;
        let secret = (!secret.is_empty()).then(|| ClientSecret::new(secret.clone()));
        let client = CoreClient::from_provider_metadata(
            metadata.clone(),
            ClientId::new(self.settings.client_id.clone()),
            secret,
        )
        .set_redirect_uri(self.callback.clone())
        .set_auth_type(way_of_proof(metadata));
        client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| ProviderError::Unusable(error.to_string()))?
            .set_pkce_verifier(PkceCodeVerifier::new(bound.verifier.to_owned()))
            .request_async(&self.web)
            .await
            .map_err(|error| ProviderError::NotBelieved(with_cause(&error)))
    }

    /// What the ID token says, once it is proven.
    fn claims(
        &self,
        metadata: &CoreProviderMetadata,
        answer: &CoreTokenResponse,
        nonce: &Nonce,
    ) -> Result<CoreIdTokenClaims, ClaimsVerificationError> {
        let other = |text: &str| ClaimsVerificationError::Other(text.to_owned());
        let token = answer.id_token().ok_or_else(|| other("no ID token"))?;
        let offered = metadata.id_token_signing_alg_values_supported();
        let allowed = SIGNED_WITH.iter().filter(|one| offered.contains(one));
        let client = CoreClient::from_provider_metadata(
            metadata.clone(),
            ClientId::new(self.settings.client_id.clone()),
            None,
        );
        let verifier = client
            .id_token_verifier()
            .set_allowed_algs(allowed.cloned());
        let claims = token.claims(&verifier, nonce)?;
        if let Some(expected) = claims.access_token_hash() {
            let unreadable = |text: String| ClaimsVerificationError::Other(text);
            let algorithm = token
                .signing_alg()
                .map_err(|error| unreadable(error.to_string()))?;
            let key = token
                .signing_key(&verifier)
                .map_err(|error| unreadable(error.to_string()))?;
            let is = AccessTokenHash::from_token(answer.access_token(), algorithm, key)
                .map_err(|error| unreadable(error.to_string()))?;
            if is != *expected {
                return Err(other("the access token is another's"));
            }
        }
        Ok(claims.clone())
    }

    /// What the ID token does not say of someone. What is not to be had is left out: a name is chosen then.
    async fn ask_more(
        &self,
        metadata: &CoreProviderMetadata,
        answer: &CoreTokenResponse,
        claims: &CoreIdTokenClaims,
        person: &mut Person,
    ) {
        let client = CoreClient::from_provider_metadata(
            metadata.clone(),
            ClientId::new(self.settings.client_id.clone()),
            None,
        );
        let subject = Some(claims.subject().clone());
        let Ok(request) = client.user_info(answer.access_token().clone(), subject) else {
            return;
        };
        let told: CoreUserInfoClaims = match request.request_async(&self.web).await {
            Ok(told) => told,
            Err(error) => {
                let (provider, error) = (&self.settings.id, with_cause(&error));
                tracing::info!(
                    provider,
                    error,
                    "an identity provider tells no more of someone"
                );
                return;
            }
        };
        person.preferred_username = told.preferred_username().map(|name| name.to_string());
        let email = || told.email().map(|email| email.to_string());
        person.email = person.email.take().or_else(email);
        let name = || told.name().and_then(|name| name.get(None));
        person.name = person
            .name
            .take()
            .or_else(|| name().map(|name| name.to_string()));
    }

    /// What the provider says of itself, unless that was asked less than `fresh` milliseconds ago.
    async fn metadata(
        &self,
        now: Millis,
        fresh: Millis,
    ) -> Result<Arc<CoreProviderMetadata>, ProviderError> {
        let mut known = self.known.lock().await;
        if let Some((at, metadata)) = &*known
            && now.saturating_sub(*at) < fresh
        {
            return Ok(metadata.clone());
        }
        let found = CoreProviderMetadata::discover_async(self.issuer.clone(), &self.web).await;
        let found = found.map_err(|error| ProviderError::Unusable(with_cause(&error)))?;
        let found = Arc::new(found);
        *known = Some((now, found.clone()));
        Ok(found)
    }
}

impl<'a> AsyncHttpClient<'a> for Web {
    type Error = TransportError;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, TransportError>> + Send + 'a>>;

    fn call(&'a self, request: Request<Vec<u8>>) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// Whether a token may be signed with a key that the provider has only now.
fn of_unknown_key(error: &ClaimsVerificationError) -> bool {
    let ClaimsVerificationError::SignatureVerification(error) = error else {
        return false;
    };
    matches!(
        error,
        SignatureVerificationError::NoMatchingKey
            | SignatureVerificationError::AmbiguousKeyId(_)
            | SignatureVerificationError::CryptoError(_)
    )
}

/// How this server shows its secret: in the head, unless the provider takes it in the body only.
fn way_of_proof(metadata: &CoreProviderMetadata) -> AuthType {
    let taken = metadata.token_endpoint_auth_methods_supported();
    let takes = |method| taken.is_none_or(|taken| taken.contains(&method));
    if !takes(CoreClientAuthMethod::ClientSecretBasic)
        && takes(CoreClientAuthMethod::ClientSecretPost)
    {
        AuthType::RequestBody
    } else {
        AuthType::BasicAuth
    }
}

/// An error with what caused it.
fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
